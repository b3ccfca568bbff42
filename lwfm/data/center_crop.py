"""Center crops of images: what every image passes before a backbone reads it outside of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

RESIZED_TO_CROP = (92, 84)
"""The shorter side is resized to ``image_size * 92 / 84``, of which ``image_size`` remain."""

VIEWS = 7
"""Further views of an image."""
_ENLARGED = 0.75


class CenterCrop:
    """Resize the shorter side of an image to ``image_size * 92 / 84``, then crop its center.

    The pixels are those of torchvision's ``resize`` and ``center_crop`` (a test compares), which take seconds
    to import, but for rounding: few differ, by one level of 255 or, rarely, two, because Pillow keeps the
    corners of the part that it resizes in single precision. This module needs neither torch nor torchvision.

    Parameters
    ----------
    image_size : int
        Height and width of the result in pixels.

    Examples
    --------
    >>> CenterCrop(32)(Image.new("RGB", (200, 120))).size
    (32, 32)
    """

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    @property
    def resized(self) -> int:
        """The shorter side before the crop, in pixels."""
        resized, cropped = RESIZED_TO_CROP
        return round(self.image_size * resized / cropped)

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resize with antialiasing by Pillow's bilinear filter, only the part that remains after the crop."""
        shorter = self.resized
        longer = int(shorter * max(image.size) / min(image.size))
        size = (shorter, longer) if image.width <= image.height else (longer, shorter)
        left, top = (round((side - self.image_size) / 2) for side in size)
        right, bottom = left + self.image_size, top + self.image_size
        if image.size == size:
            return image.crop((left, top, right, bottom))
        across, down = (own / side for own, side in zip(image.size, size, strict=True))
        return self._window(image, left * across, top * down, right * across, bottom * down)

    def pixels(self, image: Image.Image, *, views: bool = False) -> list[npt.NDArray[np.uint8]]:
        """Return the pixels [image_size, image_size, 3] of the crop, then those of :meth:`views`."""
        cropped = self(image)
        return [np.asarray(each) for each in (cropped, *(self._views(image, cropped) if views else ()))]

    def views(self, image: Image.Image) -> list[Image.Image]:
        """Return :data:`VIEWS` further views of an image, of the same size.

        The crop mirrored; windows of three quarters of its side, enlarged: in its center, the same mirrored,
        and in its four corners.

        Examples
        --------
        >>> {view.size for view in CenterCrop(32).views(Image.new("RGB", (200, 120)))}
        {(32, 32)}
        """
        return self._views(image, self(image))

    def _views(self, image: Image.Image, cropped: Image.Image) -> list[Image.Image]:
        side = min(image.size) * self.image_size / self.resized
        left, top = ((length - side) / 2 for length in image.size)
        part = _ENLARGED * side
        windows = []
        for across, down in ((0.5, 0.5), (0, 0), (1, 0), (0, 1), (1, 1)):
            x, y = left + across * (side - part), top + down * (side - part)
            windows.append(self._window(image, x, y, x + part, y + part))
        center, *corners = windows
        mirrored = (x.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for x in (cropped, center))
        return [*mirrored, center, *corners]

    def describe_views(self) -> str:
        """Return what the views are, for fingerprints."""
        return f"mirrored; center (mirrored, plain) and corners of {_ENLARGED} of the side"

    def _window(
        self, image: Image.Image, left: float, top: float, right: float, bottom: float
    ) -> Image.Image:
        size = (self.image_size, self.image_size)
        return image.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))

    def describe(self) -> Mapping[str, str | int]:
        """Return what it does as JSON values, for programs in other languages."""
        return {
            "color": "RGB, 8 bits a channel, upright",
            "resize": "shorter side, bilinear with antialiasing (Pillow's BILINEAR)",
            "resized_side": self.resized,
            "crop": "center",
            "image_size": self.image_size,
        }
