"""Encoded images as arrays: everything that the head needs of an image, whatever it is compared with.

Letters: n images, S support images, P positions (F x F), C channels, l a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Array = npt.NDArray[np.float32]
    Layers = tuple[Array, ...]
    Parts = tuple[Layers, Layers, Layers, Layers, Layers]


@dataclass(frozen=True)
class EncodedImages:
    """Centered positions of n images and what follows from them; float32, contiguous, one a layer.

    Attributes
    ----------
    positions : tuple of ndarray
        [n, P, C_l].
    squares : tuple of ndarray
        [n, P], the squared norms of the positions.
    grams : tuple of ndarray
        [n, P, P], the inner products of an image's positions.
    embedded, embedded_squares : tuple of ndarray
        [n, P, C_l] and [n, P]: embedded positions, by which matched ones are compared; none without an
        embedding.
    """

    positions: tuple[Array, ...]
    squares: tuple[Array, ...]
    grams: tuple[Array, ...]
    embedded: tuple[Array, ...] = ()
    embedded_squares: tuple[Array, ...] = ()

    def __len__(self) -> int:
        """Return n."""
        return len(self.positions[0])

    def __getitem__(self, images: npt.NDArray[np.int64] | slice) -> Self:
        """Return some of the images."""
        return type(self)(*(tuple(x[images] for x in part) for part in self.parts()))

    def parts(self) -> Parts:
        """Return positions, squares, grams, embedded and embedded squares."""
        return self.positions, self.squares, self.grams, self.embedded, self.embedded_squares

    @classmethod
    def cat(cls, batches: Sequence[Self]) -> Self:
        """Concatenate images."""
        parts = zip(*(batch.parts() for batch in batches), strict=True)
        return cls(*(tuple(map(np.concatenate, zip(*part, strict=True))) for part in parts))

    def are_finite(self) -> bool:
        """Return whether no number is NaN or infinite."""
        return all(bool(np.isfinite(x).all()) for x in (*self.squares, *self.embedded_squares))

    def centered(self, task: Sequence[Self]) -> Self:
        """Subtract, layer by layer, the mean over all positions of some images; embedded positions stay.

        The same as :func:`lwfm.nn.task_centering.center_positions`.
        """
        positions = []
        for layer, x in enumerate(self.positions):
            count = sum(len(images) for images in task) * x.shape[1]
            total = sum(images.positions[layer].sum((0, 1), dtype=np.float64) for images in task)
            positions.append(x - (total / count).astype(np.float32))
        squares, grams = _products(positions)
        return replace(self, positions=tuple(positions), squares=squares, grams=grams)


def encode_maps(
    maps: Sequence[npt.NDArray[Any]], weights: Sequence[Array] = (), *, together: bool
) -> EncodedImages:
    """Encode maps, as :meth:`lwfm.nn.LWFMHead.encode` does.

    Parameters
    ----------
    maps : sequence of ndarray
        [n, C_l, F_l, F_l] of each layer.
    weights : sequence of ndarray
        W1 [H, C_l] and W2 [C_l, H] of each layer's embedding ``x + ReLU(W2 ReLU(W1 x))``; none for none.
    together : bool
        Whether positions are centered over the channels of all layers, or of each layer alone.

    Returns
    -------
    EncodedImages

    Examples
    --------
    >>> maps = [np.ones((2, 4, 3, 3), np.float32), np.zeros((2, 4, 3, 3), np.float32)]
    >>> float(encode_maps(maps, together=True).positions[0][0, 0, 0])
    0.5
    """
    laid_out = [x.reshape(*x.shape[:2], -1).transpose(0, 2, 1).astype(np.float32) for x in maps]
    if together:
        total = sum(x.sum(-1, keepdims=True) for x in laid_out)
        means = [total / np.float32(sum(x.shape[-1] for x in laid_out))] * len(laid_out)
    else:
        means = [x.mean(-1, keepdims=True) for x in laid_out]
    positions = [np.ascontiguousarray(x - mean) for x, mean in zip(laid_out, means, strict=True)]
    embedded = [
        x + np.maximum(np.maximum(x @ w1.T, 0) @ w2.T, 0)
        for x, w1, w2 in zip(positions, weights[::2], weights[1::2], strict=False)
    ]
    squares, grams = _products(positions)
    return EncodedImages(
        tuple(positions), squares, grams, tuple(embedded), tuple(map(_squared_norms, embedded))
    )


def _squared_norms(x: Array) -> Array:
    norms: Array = np.einsum("npc,npc->np", x, x)
    return norms


def _products(positions: Sequence[Array]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Return squared norms and inner products of the positions of each image."""
    grams = tuple(x @ x.transpose(0, 2, 1) for x in positions)
    return tuple(map(_squared_norms, positions)), grams
