"""From a PIL picture to the tensor a backbone reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torchvision.transforms import v2

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image

    from lwfm.normalization import Normalization

    Transform = Callable[[Image], torch.Tensor]


def training_transform(*, image_size: int = 84, normalization: Normalization) -> Transform:
    """Augment, then normalise: random resized crop and horizontal flip.

    Parameters
    ----------
    image_size
        Height and width of the result in pixels.
    normalization
        Mean and standard deviation per channel, for values in 0..1.

    Returns
    -------
    transform
        Takes a PIL picture (RGB), returns ``[3, image_size, image_size]`` float32. Its randomness
        comes from torch's default generator.

    Examples
    --------
    >>> from PIL import Image
    >>> from lwfm.normalization import IMAGENET
    >>> tuple(training_transform(normalization=IMAGENET)(Image.new("RGB", (200, 120))).shape)
    (3, 84, 84)
    """
    augment = [v2.RandomResizedCrop(image_size), v2.RandomHorizontalFlip()]
    transform: Transform = v2.Compose([*augment, *_to_tensor(normalization)])
    return transform


def evaluation_transform(*, image_size: int = 84, normalization: Normalization) -> Transform:
    """Resize the shorter side to ``image_size * 92 / 84``, crop the centre, normalise.

    Parameters and result are those of :func:`training_transform`; nothing is random.

    Examples
    --------
    >>> from PIL import Image
    >>> from lwfm.normalization import IMAGENET
    >>> tuple(evaluation_transform(image_size=32, normalization=IMAGENET)(Image.new("RGB", (200, 120))).shape)
    (3, 32, 32)
    """
    crop = [v2.Resize(round(image_size * 92 / 84)), v2.CenterCrop(image_size)]
    transform: Transform = v2.Compose([*crop, *_to_tensor(normalization)])
    return transform


def _to_tensor(normalization: Normalization) -> list[torch.nn.Module]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(mean=list(normalization.mean), std=list(normalization.std)),
        v2.ToPureTensor(),
    ]
