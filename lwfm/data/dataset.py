"""Datasets and loaders of the images of a split as tensors."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.utils.data import BatchSampler, DataLoader

from lwfm.data.center_crop import VIEWS, CenterCrop
from lwfm.data.decode_ahead import in_threads, pixel_batches
from lwfm.data.transforms import PixelTransform, evaluation_transform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image

    from lwfm.data.image_sets import ImageSet
    from lwfm.data.normalization import Normalization
    from lwfm.data.transforms import Transform


class BatchTransform(Protocol):
    """Interface of transforms such as :class:`~lwfm.data.transforms.Transform`."""

    def crop_image(self, image: Image) -> Any:
        """Crop one image; randomness comes from torch's default generator."""

    def collate(self, cropped: Sequence[Any]) -> Any:
        """Combine results of :meth:`crop_image` into a batch."""


class ImageBatches(torch.utils.data.Dataset[tuple[Any, torch.Tensor]]):
    """Transformed images in whole batches, for a DataLoader with ``collate_fn=identity_collate``.

    Parameters
    ----------
    images
        The split.
    transform
        For images ``[B, 3, H, W]`` float32 :func:`~lwfm.data.transforms.training_transform` or
        :func:`~lwfm.data.transforms.evaluation_transform`.
    """

    def __init__(self, images: ImageSet, transform: BatchTransform) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, items: Sequence[int | tuple[int, int]]) -> tuple[Any, torch.Tensor]:
        """Return a batch and its labels [B] int64 (the name is torch's)."""
        seeded = [item if isinstance(item, tuple) else (item, None) for item in items]
        images = self.transform.collate([self._cropped(index, seed) for index, seed in seeded])
        return images, torch.from_numpy(self.images.labels[[index for index, _ in seeded]])

    def _cropped(self, index: int, seed: int | None) -> Any:
        image = self.images.image(index)
        if seed is None:
            return self.transform.crop_image(image)
        # CPU only: forked workers must not touch CUDA.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self.transform.crop_image(image)


class ImageDataset(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Decoded and transformed images with the indices of their classes.

    Parameters
    ----------
    images
        The split.
    transform
        From a PIL image to ``[3, H, W]`` float32: :func:`~lwfm.data.transforms.training_transform` or
        :func:`~lwfm.data.transforms.evaluation_transform`.

    Notes
    -----
    An item is addressed by its index, or by ``(index, seed)``: then the transform's randomness comes from
    that seed alone, and the state of torch's generator is restored.

    Examples
    --------
    >>> from lwfm.data import evaluation_transform, open_images
    >>> images = open_images("emoji", split="val")
    >>> dataset = ImageDataset(images, evaluation_transform(normalization=images.normalization))
    >>> image, label = dataset[0]
    >>> tuple(image.shape), images.classes[label]
    ((3, 84, 84), 'aerial-tramway')
    """

    def __init__(self, images: ImageSet, transform: Transform) -> None:
        self.images, self._batches = images, ImageBatches(images, transform)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, item: int | tuple[int, int]) -> tuple[torch.Tensor, int]:
        images, labels = self._batches.__getitems__([item])
        return images[0], int(labels[0])


def identity_collate(batch: Any) -> Any:  # torch expects a list of items here
    """Return the batch: the dataset has collated it already."""
    return batch


def image_loader(
    images: ImageSet,
    indices: Sequence[int],
    *,
    image_size: int,
    normalization: Normalization,
    batch_size: int = 64,
    workers: int = 0,
) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
    """Load images in batches, transformed as for evaluation.

    Parameters
    ----------
    images
        The split.
    indices
        Which of its images, in this order.
    image_size
        Height and width in pixels.
    normalization
        Mean and standard deviation per channel, for values in 0..1.
    batch_size
        Images in a batch; the last one may be smaller.
    workers
        Processes that decode images; 0 uses this one.

    Returns
    -------
    loader
        Yields ``(images [B, 3, image_size, image_size] float32, labels [B] int64)``.

    Raises
    ------
    UserError
        While iterating, if an image can no longer be read.

    Examples
    --------
    >>> from lwfm.data import open_images
    >>> from lwfm.data.normalization import IMAGENET
    >>> loader = image_loader(open_images("emoji"), [5, 0, 7], image_size=32, normalization=IMAGENET)
    >>> [tuple(batch.shape) for batch, _ in loader]
    [(3, 3, 32, 32)]
    """
    transform = evaluation_transform(image_size=image_size, normalization=normalization)
    return DataLoader(
        ImageBatches(images, transform),
        batch_sampler=BatchSampler(list(indices), batch_size, drop_last=False),
        num_workers=workers,
        collate_fn=identity_collate,
    )


def pixel_loader(
    images: ImageSet,
    indices: Sequence[int],
    *,
    image_size: int,
    batch_size: int,
    workers: int = 0,
    views: bool = False,
) -> Iterator[torch.Tensor]:
    """Yield the pixels [B, image_size, image_size, 3] uint8 of images, cropped as for evaluation.

    Parameters
    ----------
    images, indices, image_size, batch_size
        As of :func:`image_loader`.
    workers
        Processes that decode images; 0: threads of this one, as many as torch has, while batches are used.
    views
        Whether each image is followed by its :data:`~lwfm.data.center_crop.VIEWS` further views, within the
        same batch: of ``batch_size`` images and views, rounded down to whole images. Threads read them.

    Raises
    ------
    UserError
        While iterating, if an image can no longer be read.
    """
    crop = CenterCrop(image_size)
    if workers == 0 or views:
        alike = 1 + VIEWS if views else 1
        at_once = max(batch_size // alike, 1)
        read = lambda index: crop.pixels(images.image(index), views=views)  # noqa: E731
        threads = torch.get_num_threads()
        decoded = chain.from_iterable(in_threads(read, indices, ahead=at_once, threads=threads))
        yield from map(torch.from_numpy, pixel_batches(decoded, alike * at_once))
        return
    loader = DataLoader(
        ImageBatches(images, PixelTransform(crop)),
        batch_sampler=BatchSampler(list(indices), batch_size, drop_last=False),
        num_workers=workers,
        collate_fn=identity_collate,
    )
    for pixels, _ in loader:
        yield pixels
