"""Transform PIL images into the tensors that a backbone reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch

from lwfm.data.center_crop import CenterCrop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

    from lwfm.data.normalization import Normalization


class Transform:
    """Transform in two steps: crop and resize each image, then convert the whole batch to numbers.

    Parameters
    ----------
    crop_image
        From a PIL image (RGB) to one of the size that the backbone reads; may be random, by torch's default
        generator.
    normalization
        Mean and standard deviation per channel, for values in 0..1.

    Notes
    -----
    The values are those of torchvision's `RandomResizedCrop` and so on with `ToImage`, `ToDtype` and
    `Normalize`, bit for bit (a test compares), but for the rounding of :class:`CenterCrop`; for a whole batch
    the last three cost a tenth.
    """

    def __init__(self, crop_image: Callable[[Image], Image], normalization: Normalization) -> None:
        self.crop_image, self.normalization = crop_image, normalization

    def __call__(self, image: Image) -> torch.Tensor:
        """Transform one image -> ``[3, H, W]`` float32."""
        return self.collate([self.crop_image(image)])[0]

    def collate(self, cropped: Sequence[Image]) -> torch.Tensor:
        """Convert cropped images of one size -> ``[B, 3, H, W]`` float32, in channels-last memory."""
        return normalized_pixels(stacked_pixels(cropped), self.normalization)


class PixelTransform:
    """Crop images, and leave the pixels as they are.

    Parameters
    ----------
    crop_image
        From a PIL image (RGB) to one of the size that the backbone reads.
    """

    def __init__(self, crop_image: Callable[[Image], Image]) -> None:
        self.crop_image = crop_image

    def collate(self, cropped: Sequence[Image]) -> torch.Tensor:
        """Join cropped images of one size -> ``[B, H, W, 3]`` uint8."""
        return stacked_pixels(cropped)


def stacked_pixels(images: Sequence[Image]) -> torch.Tensor:
    """Copy RGB images of one size into one tensor -> ``[B, H, W, 3]`` uint8."""
    return torch.from_numpy(np.stack([np.asarray(image) for image in images]))


def normalized_pixels(pixels: torch.Tensor, statistics: Normalization) -> torch.Tensor:
    """Normalize ``[B, H, W, 3]`` uint8 -> ``[B, 3, H, W]`` float32, in channels-last memory."""
    values = pixels.permute(0, 3, 1, 2).to(torch.float32).mul_(1 / 255)
    return normalized(values, statistics)


def normalized(values: torch.Tensor, statistics: Normalization) -> torch.Tensor:
    """Subtract the means and divide by the standard deviations, in place: ``[B, 3, H, W]`` in 0..1."""
    mean, std = (
        torch.tensor(each, dtype=values.dtype, device=values.device).view(3, 1, 1)
        for each in (statistics.mean, statistics.std)
    )
    return values.sub_(mean).div_(std)


class Box(TypedDict):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class RandomCropAndFlip:
    """Random resized crop and random horizontal flip."""

    def __init__(self, image_size: int) -> None:
        from torchvision.transforms import v2  # seconds to import; only training needs it

        self.crop, self.image_size = v2.RandomResizedCrop(image_size), image_size

    def draw(self, image: Image) -> tuple[Box, bool]:
        """Draw the crop and the flip from torch's default generator."""
        box: Box = self.crop.make_params([image])
        return box, bool(torch.rand(1) < 0.5)

    def __call__(self, image: Image) -> Image:
        """Draw and apply."""
        from torchvision.transforms.v2 import functional

        box, flipped = self.draw(image)
        cropped: Image = functional.resized_crop(image, **box, size=[self.image_size] * 2)
        return functional.horizontal_flip(cropped) if flipped else cropped


def training_transform(*, image_size: int = 84, normalization: Normalization) -> Transform:
    """Augment, then normalize: random resized crop and horizontal flip.

    Parameters
    ----------
    image_size
        Height and width of the result in pixels.
    normalization
        Mean and standard deviation per channel, for values in 0..1.

    Returns
    -------
    transform
        Takes a PIL image (RGB), returns ``[3, image_size, image_size]`` float32. Its randomness
        comes from torch's default generator.

    Examples
    --------
    >>> from PIL import Image
    >>> from lwfm.data.normalization import IMAGENET
    >>> tuple(training_transform(normalization=IMAGENET)(Image.new("RGB", (200, 120))).shape)
    (3, 84, 84)
    """
    return Transform(RandomCropAndFlip(image_size), normalization)


def evaluation_transform(*, image_size: int = 84, normalization: Normalization) -> Transform:
    """Resize the shorter side to ``image_size * 92 / 84``, crop the center, normalize.

    Parameters and result are those of :func:`training_transform`; nothing is random.

    Examples
    --------
    >>> from PIL import Image
    >>> from lwfm.data.normalization import IMAGENET
    >>> tuple(evaluation_transform(image_size=32, normalization=IMAGENET)(Image.new("RGB", (200, 120))).shape)
    (3, 32, 32)
    """
    return Transform(CenterCrop(image_size), normalization)
