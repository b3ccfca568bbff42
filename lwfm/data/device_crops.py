"""Random crops that are resized on the device, a batch at once.

The loader only crops; the device resizes, flips and normalizes. Crops and flips are drawn as by
:func:`~lwfm.data.transforms.training_transform`, image by image and from the same seeds, so both give the
same images but for rounding: PIL rounds to whole gray levels twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lwfm.data.transforms import RandomCropAndFlip, normalized

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from PIL.Image import Image

    from lwfm.data.normalization import Normalization

Crop = tuple["npt.NDArray[np.uint8]", bool]
"""Pixels [h, w, 3] of a crop, and whether it is to be flipped."""


class Crops(NamedTuple):
    """Crops of several sizes."""

    pixels: Tensor
    """[B, H, W, 3] uint8: each in the upper left corner, zeros beside and below it."""
    sizes: Tensor
    """[B, 2] int64: height and width of each."""
    flips: Tensor
    """[B] bool: which are flipped from left to right."""


class CropTransform:
    """Counterpart of :class:`~lwfm.data.transforms.Transform` that leaves resizing to the device.

    Examples
    --------
    >>> from PIL import Image
    >>> from lwfm.data.normalization import IMAGENET
    >>> transform = CropTransform(84)
    >>> crops = transform.collate([transform.crop_image(Image.new("RGB", (200, 120)))])
    >>> tuple(resized(crops, image_size=84, normalization=IMAGENET).shape)
    (1, 3, 84, 84)
    """

    def __init__(self, image_size: int) -> None:
        self.augmentation = RandomCropAndFlip(image_size)

    def crop_image(self, image: Image) -> Crop:
        """Crop a random part."""
        box, flipped = self.augmentation.draw(image)
        left, top = box["left"], box["top"]
        part = image.crop((left, top, left + box["width"], top + box["height"]))
        return np.asarray(part), flipped

    def collate(self, cropped: Sequence[Crop]) -> Crops:
        """Pad the crops to one size and stack them."""
        sizes = np.array([pixels.shape[:2] for pixels, _ in cropped])
        together = np.zeros((len(cropped), *sizes.max(0), 3), dtype=np.uint8)
        for target, (pixels, _) in zip(together, cropped, strict=True):
            target[: pixels.shape[0], : pixels.shape[1]] = pixels
        flips = torch.tensor([flipped for _, flipped in cropped])
        return Crops(torch.from_numpy(together), torch.from_numpy(sizes), flips)


def resized(crops: Crops, *, image_size: int, normalization: Normalization) -> Tensor:
    """Resize, flip and normalize crops -> ``[B, 3, image_size, image_size]`` float32.

    Bilinear with antialiasing, as PIL and torchvision resize: two products with a matrix of weights for each
    image and direction.
    """
    values = crops.pixels.permute(0, 3, 1, 2).float().div_(255)  # [B, 3, H, W]
    rows = _weights(crops.sizes[:, 0], values.shape[2], image_size)
    columns = _weights(crops.sizes[:, 1], values.shape[3], image_size)
    columns = torch.where(crops.flips[:, None, None], columns.flip(1), columns)
    narrow = values @ columns.mT[:, None]  # [B, 3, H, image_size]
    return normalized(rows[:, None] @ narrow, normalization)


def _weights(lengths: Tensor, longest: int, image_size: int) -> Tensor:
    """Return the weights [B, image_size, longest] of a row's pixels in the result; lengths [B]."""
    scale = lengths.float()[:, None, None] / image_size
    centers = (torch.arange(image_size, device=lengths.device)[:, None] + 0.5) * scale
    places = torch.arange(longest, device=lengths.device) + 0.5
    triangle = 1 - (places - centers).abs() / scale.clamp(min=1)  # as wide as a pixel of the coarser side
    weights = triangle.clamp(min=0) * (places < lengths[:, None, None])
    return weights / weights.sum(-1, keepdim=True)
