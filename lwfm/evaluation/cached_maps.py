"""Maps of images: each image passes the backbone once, whatever heads and episodes read its maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lwfm._common.progress import batched_progress
from lwfm.data.center_crop import VIEWS
from lwfm.data.dataset import pixel_loader
from lwfm.model.engines import Encoder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lwfm.data import ImageSet
    from lwfm.model import LWFM


@dataclass(frozen=True)
class CachedMaps:
    """Maps of some images of a set.

    Attributes
    ----------
    layers : tuple of Tensor
        [n, C_l, F_l, F_l] each, for the n images that were encoded.
    rows : Tensor
        [images of the set] int64, on the CPU: row of an image's maps in each layer, -1 for one that was not
        encoded.
    views : tuple of Tensor
        [n, V, C_l, F_l, F_l] each, of further views of the images; empty without.
    """

    layers: tuple[Tensor, ...]
    rows: Tensor
    views: tuple[Tensor, ...] = ()

    @classmethod
    def build(
        cls, layers: tuple[Tensor, ...], indices: Sequence[int], images: int, *, views: bool = False
    ) -> CachedMaps:
        """Build from maps in the order of ``indices``, out of a set of ``images`` images.

        With ``views``, those of an image follow its own.
        """
        rows = torch.full((images,), -1)
        rows[torch.as_tensor(indices)] = torch.arange(len(indices))
        if not views:
            return cls(layers, rows)
        alike = [layer.view(-1, 1 + VIEWS, *layer.shape[1:]) for layer in layers]
        return cls(tuple(x[:, 0] for x in alike), rows, tuple(x[:, 1:] for x in alike))

    def select(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, ...]:
        """Return the maps of the images with these indices in the set, in this order, at least float32.

        IndexError for an image that was not encoded.
        """
        return self._rows(self.layers, indices)

    def select_views(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, ...]:
        """Return the maps [n * V, C_l, F_l, F_l] of the views of images, as :meth:`select` does."""
        return tuple(layer.flatten(0, 1) for layer in self._rows(self.views, indices))

    def _rows(self, layers: tuple[Tensor, ...], indices: Sequence[int] | Tensor) -> tuple[Tensor, ...]:
        indices = torch.as_tensor(indices)
        rows = self.rows[indices]
        if (rows < 0).any():  # on the CPU: no wait for the device
            missing = indices[rows < 0].tolist()
            raise IndexError(f"images {missing} of the set were not encoded")
        rows = rows.to(self.layers[0].device)
        return tuple(layer[rows].to(torch.promote_types(layer.dtype, torch.float32)) for layer in layers)


def compute_maps(
    model: LWFM,
    images: ImageSet,
    indices: Sequence[int],
    *,
    batch_size: int | None = None,
    workers: int = 0,
    engine: str = "auto",
    bar: bool = True,
    views: bool = False,
) -> CachedMaps:
    """Encode images, each once, on the device where the model is.

    Parameters
    ----------
    model : LWFM
        Switched to evaluation mode.
    images : ImageSet
        The set.
    indices : sequence of int
        Which of them; see :func:`lwfm.data.images_needed`.
    batch_size : int, optional
        How many images at a time; by default as many as are fastest.
    workers : int
        How many processes decode them (0: threads of this one).
    engine : str
        What runs the network, see :class:`lwfm.model.engines.Encoder`.
    bar : bool
        Whether to show a progress bar on a terminal.
    views : bool
        Whether to encode further views of each image too.

    Returns
    -------
    CachedMaps
    """
    batches = encoded_batches(
        model, images, indices, batch_size=batch_size, workers=workers, engine=engine, bar=bar, views=views
    )
    layers = tuple(torch.cat(layer) for layer in zip(*batches, strict=True))
    return CachedMaps.build(layers, indices, len(images.labels), views=views)


@torch.inference_mode()
def encoded_batches(
    model: LWFM,
    images: ImageSet,
    indices: Sequence[int],
    *,
    batch_size: int | None,
    workers: int,
    engine: str = "auto",
    bar: bool = True,
    views: bool = False,
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the per-layer maps [B, C_l, F_l, F_l] batch by batch; arguments as in :func:`compute_maps`.

    With ``views``, those of an image follow its own, within the batch.
    """
    count = len(indices) * (1 + VIEWS if views else 1)
    encoder = Encoder(model.eval(), engine, model.normalization or images.normalization)
    encoder.expect(count)
    loader = pixel_loader(
        images,
        indices,
        image_size=model.config.image_size,
        batch_size=batch_size or encoder.batch_size,
        workers=workers,
        views=views,
    )
    title = "encoding images and views" if views else "encoding images"
    yield from encoder.stream(batched_progress(loader, title, "image", total=count, show=bar))
