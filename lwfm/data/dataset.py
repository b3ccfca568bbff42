"""The pictures of a split as tensors, for torch's DataLoader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.data import DataLoader, Subset

from lwfm.data.transforms import evaluation_transform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lwfm.data.pictures import PictureSet
    from lwfm.data.transforms import Transform
    from lwfm.normalization import Normalization


class PictureDataset(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Decoded and transformed pictures with the indices of their classes.

    Parameters
    ----------
    pictures
        The split.
    transform
        From a PIL picture to ``[3, H, W]`` float32: :func:`~lwfm.data.transforms.training_transform` or
        :func:`~lwfm.data.transforms.evaluation_transform`.

    Notes
    -----
    An item is asked for by its index, or by ``(index, seed)``: then the transform's randomness comes from
    that seed alone, and torch's generator is left as it was.

    Examples
    --------
    >>> from lwfm.data import evaluation_transform, open_pictures
    >>> pictures = open_pictures("emoji", split="val")
    >>> dataset = PictureDataset(pictures, evaluation_transform(normalization=pictures.normalization))
    >>> image, label = dataset[0]
    >>> tuple(image.shape), pictures.classes[label]
    ((3, 84, 84), 'aerial-tramway')
    """

    def __init__(self, pictures: PictureSet, transform: Transform) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[torch.Tensor, int]:
        index, seed = item if isinstance(item, tuple) else (item, None)
        picture = self.pictures.picture(index)
        label = int(self.pictures.labels[index])
        if seed is None:
            return self.transform(picture), label
        # CPU only: workers are forked and must not touch CUDA.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.transform(picture), label


def picture_loader(
    pictures: PictureSet,
    indices: Sequence[int],
    *,
    image_size: int,
    normalization: Normalization,
    batch_size: int = 64,
    workers: int = 0,
) -> DataLoader[tuple[torch.Tensor, int]]:
    """Batches (images [B, 3, H, W], labels [B]) of these pictures, prepared as for an evaluation."""
    transform = evaluation_transform(image_size=image_size, normalization=normalization)
    dataset = Subset(PictureDataset(pictures, transform), list(indices))
    return DataLoader(dataset, batch_size=batch_size, num_workers=workers)
