"""Encode a user's images, given as paths, PIL images, arrays or tensors."""

from __future__ import annotations

from operator import length_hint
from typing import TYPE_CHECKING

import torch

from lwfm.data.center_crop import VIEWS
from lwfm.data.decode_ahead import shared_batch_size
from lwfm.data.user_images import NO_WHITE, pixels_of
from lwfm.errors import UserError
from lwfm.model.engines import Encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lwfm.data.user_images import ImageLike
    from lwfm.data.white_levels import WhiteLevels
    from lwfm.model.network import LWFM


def image_batches(
    images: Iterable[ImageLike],
    image_size: int,
    batch_size: int,
    *,
    white: WhiteLevels = NO_WHITE,
    unreadable: Callable[[int, UserError], None] | None = None,
) -> Iterator[torch.Tensor]:
    """Yield pixels [B, H, W, 3] uint8 as :func:`lwfm.data.user_images.pixels_of`, by torch's threads."""
    threads = torch.get_num_threads()
    for pixels in pixels_of(
        images, image_size, batch_size, threads=threads, white=white, unreadable=unreadable
    ):
        yield torch.from_numpy(pixels)


@torch.inference_mode()
def encode_images(
    encoder: Encoder | LWFM,
    images: Iterable[ImageLike],
    batch_size: int | None = None,
    *,
    together: int = 1,
    white: WhiteLevels = NO_WHITE,
    unreadable: Callable[[int, UserError], None] | None = None,
    views: bool = False,
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Compute the maps [B, C_l, F_l, F_l] of every layer on the network's device.

    Parameters
    ----------
    encoder : Encoder or LWFM
        A network, or one with its engine.
    images : iterable of path, PIL image, array or tensor
        Read a batch ahead; may be a stream.
    batch_size : int, optional
        Images that pass the network at once, at most; by default as many as are fastest.
    together : int
        As many batches are joined as make up this number of images.
    white : WhiteLevels
        See :mod:`lwfm.data.white_levels`.
    unreadable : callable, optional
        See :func:`lwfm.data.user_images.pixels_of`.
    views : bool
        Whether each image is followed by its :data:`~lwfm.data.center_crop.VIEWS` further views, within the
        same batch.
    """
    encoder = encoder if isinstance(encoder, Encoder) else Encoder(encoder)
    alike = 1 + VIEWS if views else 1  # a batch holds whole images
    encoder.expect(alike * length_hint(images))
    most = max((batch_size or encoder.batch_size) // alike, 1)
    batch_size = alike * shared_batch_size(images, most, encoder.threads)
    waiting: list[tuple[torch.Tensor, ...]] = []
    size = encoder.network.config.image_size
    threads = torch.get_num_threads()
    pixels = pixels_of(
        images, size, batch_size, threads=threads, white=white, unreadable=unreadable, views=views
    )
    for maps in encoder.stream(map(torch.from_numpy, pixels)):
        waiting.append(maps)
        if len(waiting) * batch_size >= together:
            yield _joined(encoder, waiting)
            waiting = []
    if waiting:
        yield _joined(encoder, waiting)


def _joined(encoder: Encoder, batches: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
    """Join batches, layer by layer; UserError for values that are not finite, or whose squares are not."""
    with encoder.beside():
        maps = batches[0] if len(batches) == 1 else tuple(map(torch.cat, zip(*batches, strict=True)))
        finite = all(layer.float().square().sum(1).isfinite().all() for layer in maps)
    if not finite:
        raise UserError("the network computes NaN or huge values for an image: its weights are damaged")
    return maps
