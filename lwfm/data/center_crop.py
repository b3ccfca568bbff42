"""Center crops of images: what every image passes before a backbone reads it outside of training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

RESIZED_TO_CROP = (92, 84)
"""The shorter side is resized to ``image_size * 92 / 84``, of which ``image_size`` remain."""


class CenterCrop:
    """Resize the shorter side of an image to ``image_size * 92 / 84``, then crop its center.

    The pixels are those of torchvision's ``resize`` and ``center_crop`` (a test compares), which take seconds
    to import. This module needs neither torch nor torchvision.

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
        """Resize with antialiasing by Pillow's bilinear filter, and crop."""
        shorter = self.resized
        longer = int(shorter * max(image.size) / min(image.size))
        size = (shorter, longer) if image.width <= image.height else (longer, shorter)
        if image.size != size:
            image = image.resize(size, Image.Resampling.BILINEAR)
        left, top = (round((side - self.image_size) / 2) for side in size)
        return image.crop((left, top, left + self.image_size, top + self.image_size))

    def describe(self) -> Mapping[str, str | int]:
        """Return what it does as JSON values, for programs in other languages."""
        return {
            "color": "RGB, 8 bits a channel, upright",
            "resize": "shorter side, bilinear with antialiasing (Pillow's BILINEAR)",
            "resized_side": self.resized,
            "crop": "center",
            "image_size": self.image_size,
        }
