"""Transform PIL images into the tensors that a backbone reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

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
    `Normalize`, bit for bit (a test compares); for a whole batch the last three cost a tenth.
    """

    def __init__(self, crop_image: Callable[[Image], Image], normalization: Normalization) -> None:
        self.crop_image, self.normalization = crop_image, normalization

    def __call__(self, image: Image) -> torch.Tensor:
        """Transform one image -> ``[3, H, W]`` float32."""
        return self.collate([self.crop_image(image)])[0]

    def collate(self, cropped: Sequence[Image]) -> torch.Tensor:
        """Convert cropped images of one size -> ``[B, 3, H, W]`` float32, in channels-last memory."""
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in cropped]))  # [B, H, W, 3]
        values = functional.to_dtype(pixels.permute(0, 3, 1, 2), torch.float32, scale=True)
        return normalized(values, self.normalization)


def normalized(values: torch.Tensor, statistics: Normalization) -> torch.Tensor:
    """Subtract the means and divide by the standard deviations, in place: ``[B, 3, H, W]`` in 0..1."""
    result: torch.Tensor = functional.normalize(
        values, list(statistics.mean), list(statistics.std), inplace=True
    )
    return result


class Box(TypedDict):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


class RandomCropAndFlip:
    """Random resized crop and random horizontal flip."""

    def __init__(self, image_size: int) -> None:
        self.crop, self.image_size = v2.RandomResizedCrop(image_size), image_size

    def draw(self, image: Image) -> tuple[Box, bool]:
        """Draw the crop and the flip from torch's default generator."""
        box: Box = self.crop.make_params([image])
        return box, bool(torch.rand(1) < 0.5)

    def __call__(self, image: Image) -> Image:
        """Draw and apply."""
        box, flipped = self.draw(image)
        cropped: Image = functional.resized_crop(image, **box, size=[self.image_size] * 2)
        return functional.horizontal_flip(cropped) if flipped else cropped


class _Center:
    """Center crop of an image whose shorter side is resized to ``image_size * 92 / 84``."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __call__(self, image: Image) -> Image:
        resized = functional.resize(image, [round(self.image_size * 92 / 84)])
        center: Image = functional.center_crop(resized, [self.image_size] * 2)
        return center


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
    return Transform(_Center(image_size), normalization)
