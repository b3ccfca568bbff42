"""Encoded images: centered positions, their products within an image, and embedded positions.

Letters: n images, P positions (F x F), C channels, l a layer.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lwfm.ops._expressions import squared_norms
from lwfm.ops._implementation import has_kernels
from lwfm.ops._register import call_operator, is_recorded, register

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class EncodedMaps:
    """Images as :meth:`lwfm.nn.LWFMHead.encode` returns them: all that episodes need of each one.

    Attributes
    ----------
    positions : tuple of Tensor
        [n, P_l, C_l] of each layer, centered over channels.
    squares : tuple of Tensor
        [n, P_l]: squared norms of the positions.
    grams : tuple of Tensor
        [n, P_l, P_l]: inner products of the positions of an image.
    embedded : tuple of Tensor
        [n, P_l, C_l]: what matched positions are compared by; empty where that is the positions themselves.
    embedded_squares : tuple of Tensor
        [n, P_l]: squared norms of ``embedded``.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import LWFMHead
    >>> images = LWFMHead([8, 16], feature_size=3).encode(torch.rand(10, 24, 3, 3))
    >>> len(images), len(images[[0, 7, 7]]), [tuple(x.shape) for x in images.positions]
    (10, 3, [(10, 9, 8), (10, 9, 16)])
    """

    positions: tuple[Tensor, ...]
    squares: tuple[Tensor, ...]
    grams: tuple[Tensor, ...]
    embedded: tuple[Tensor, ...] = ()
    embedded_squares: tuple[Tensor, ...] = ()

    def __len__(self) -> int:
        """Return n, the number of images."""
        return len(self.positions[0])

    def __getitem__(self, images: Sequence[int] | Tensor | slice) -> EncodedMaps:
        """Select images by a list of indices, a tensor [k] int64 or a slice."""
        if not isinstance(images, slice):
            dtype = images.dtype if isinstance(images, Tensor) else torch.int64
            images = torch.as_tensor(images, dtype=dtype, device=self.device)
        return self._each(lambda x: x[images])

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.positions[0].device

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> EncodedMaps:
        """Move to a device."""
        return self._each(lambda x: x.to(device, non_blocking=non_blocking))

    def _each(self, function: Any) -> EncodedMaps:
        return EncodedMaps(*(tuple(function(x) for x in part) for part in self.parts()))

    def parts(self) -> tuple[tuple[Tensor, ...], ...]:
        """Return the fields in order, each with a tensor for every layer, or empty."""
        return self.positions, self.squares, self.grams, self.embedded, self.embedded_squares

    @classmethod
    def cat(cls, several: Sequence[EncodedMaps]) -> EncodedMaps:
        """Concatenate the images of encodings by one head; ValueError for those of different ones."""
        kinds = {
            tuple((x.dtype, x.device, x.shape[1:]) for part in each.parts() for x in part) for each in several
        }
        if len(kinds) > 1:
            raise ValueError(
                "encoded maps differ in layers, embedding, dtype or device: encode all by one head"
            )
        columns = zip(*(each.parts() for each in several), strict=True)
        return cls(*(tuple(torch.cat(layer) for layer in zip(*part, strict=True)) for part in columns))

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, ``positions.0`` and so on, as safetensors stores them."""
        return {
            f"{field.name}.{number}": tensor.contiguous()
            for field, part in zip(fields(self), self.parts(), strict=True)
            for number, tensor in enumerate(part)
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> EncodedMaps:
        """Build from what :meth:`tensors` returned.

        Raises
        ------
        ValueError
            For a tensor that is missing or has another shape than the positions require.
        """
        layers = sum(name.startswith("positions.") for name in tensors)
        embedded = any(name.startswith("embedded.") for name in tensors)
        parts: list[tuple[Tensor, ...]] = []
        for field in fields(cls):
            if field.name.startswith("embedded") and not embedded:
                parts.append(())
                continue
            try:
                parts.append(tuple(tensors[f"{field.name}.{number}"] for number in range(layers)))
            except KeyError as error:
                raise ValueError(f"encoded maps lack the tensor {error.args[0]}") from None
        result = cls(*parts)
        result._check_shapes()
        return result

    def _check_shapes(self) -> None:
        if not self.positions:
            raise ValueError("encoded maps lack the tensor positions.0")
        for number, x in enumerate(self.positions):
            shape = list(x.shape)
            rows, n = shape[:2], len(self.positions[0])
            expected = {"positions": [n, *shape[1:]], "squares": rows, "grams": [*rows, *shape[1:2]]}
            if self.embedded:
                expected |= {"embedded": shape, "embedded_squares": rows}
            for name, wanted in expected.items():
                actual = list(getattr(self, name)[number].shape)
                if x.ndim != 3 or actual != wanted:
                    raise ValueError(f"{name}.{number} has shape {actual}, expected {wanted}")


def encode_maps(
    batches: Sequence[Sequence[Tensor]],
    dims: Sequence[int],
    *,
    together: bool,
    weights: Sequence[Tensor] = (),
) -> EncodedMaps:
    """Encode maps of several batches of images, one after another.

    Parameters
    ----------
    batches : sequence of sequence of Tensor
        Of each batch one tensor [B, sum of C_l, F, F], or one [B, C_l, F_l, F_l] for each layer, the same
        choice for all; float32 or float64, any strides.
    dims : sequence of int
        C_l.
    together : bool
        Whether positions are centered over the channels of all layers, or of each layer alone.
    weights : sequence of Tensor
        W1 [H, C_l] and W2 [C_l, H] of each layer's embedding ``x + ReLU(W2 ReLU(W1 x))``; none for none.

    Returns
    -------
    EncodedMaps
        Positions and embedded positions are differentiable; squares and Grams are not: whatever uses them
        has its gradient through the positions.
    """
    joined = len(batches[0]) == 1
    maps = [x for batch in batches for x in batch]
    if has_kernels(*maps, *weights, operator="encode_maps"):
        record = is_recorded(*maps, *weights)
        outputs = call_operator(
            torch.ops.lwfm.encode_maps.default, maps, list(dims), joined, together, list(weights), record,
            recorded=record,
        )  # fmt: skip
        return EncodedMaps(*(tuple(part) for part in encoded_parts(outputs, len(dims))))
    joint = [torch.cat(layer) for layer in zip(*batches, strict=True)]
    layers = torch.split_with_sizes(joint[0], list(dims), dim=1) if joined else joint
    positions = [x.flatten(2).transpose(1, 2) for x in layers]
    if together:
        total = torch.stack([x.sum(-1, keepdim=True) for x in positions]).sum(0)  # [n, P, 1]
        positions = [x - total / sum(dims) for x in positions]
    else:
        positions = [x - x.mean(-1, keepdim=True) for x in positions]
    embedded = [
        x + F.linear(F.linear(x, w1).relu(), w2).relu()
        for x, w1, w2 in zip(positions, weights[::2], weights[1::2], strict=False)
    ]
    with torch.no_grad():
        squares, embedded_squares = ([squared_norms(x) for x in each] for each in (positions, embedded))
        grams = [x @ x.transpose(1, 2) for x in positions]
    return EncodedMaps(*(tuple(x) for x in (positions, squares, grams, embedded, embedded_squares)))


def encoded_parts(outputs: Sequence[Tensor], layers: int) -> list[list[Tensor]]:
    """Split outputs of ``lwfm::encode_maps`` into the fields of :class:`EncodedMaps`."""
    return [list(outputs[k * layers : (k + 1) * layers]) for k in range(5)]


def map_sizes(maps: Sequence[Tensor], layers: int, *, joined: bool) -> tuple[list[int], list[int]]:
    """Return the images of each batch of maps, and the heights of the maps of each layer."""
    images = [x.shape[0] for x in maps[:: 1 if joined else layers]]
    return images, [maps[0 if joined else number].shape[2] for number in range(layers)]


@register
class EncodeMaps:
    """``lwfm::encode_maps``."""

    name = "encode_maps"

    @staticmethod
    def fake(
        maps: Sequence[Tensor],
        dims: Sequence[int],
        joined: bool,
        _together: bool,
        weights: Sequence[Tensor],
        record: bool,
    ) -> list[Tensor]:
        """Allocate the outputs of csrc/ops/encode_maps.cpp."""
        of_batch = 1 if joined else len(dims)
        n = sum(x.shape[0] for x in maps[::of_batch])
        shapes = [(maps[0 if joined else number].shape, C) for number, C in enumerate(dims)]
        rows = [((n, shape[2] * shape[3]), C) for shape, C in shapes]
        positions: list[tuple[int, ...]] = [(*row, C) for row, C in rows]
        squares: list[tuple[int, ...]] = [row for row, _ in rows]
        grams: list[tuple[int, ...]] = [(*row, row[1]) for row, _ in rows]
        kinds = [positions, squares, grams]
        dtypes = [maps[0].dtype] * 7
        if weights:
            kinds += [positions, squares]
            if record:
                hidden: list[tuple[int, ...]] = [
                    (*row, w1.shape[0]) for (row, _), w1 in zip(rows, weights[::2], strict=True)
                ]
                kinds += [hidden, positions]
                dtypes[6] = maps[0].dtype if maps[0].is_cuda else torch.bool
        return [
            maps[0].new_empty(shape, dtype=dtype)
            for kind, dtype in zip(kinds, dtypes, strict=False)
            for shape in kind
        ]

    @staticmethod
    def backward_fake(
        _grads: Sequence[Tensor],
        positions: Sequence[Tensor],
        weights: Sequence[Tensor],
        _hidden: Sequence[Tensor],
        _rectified: Sequence[Tensor],
        images: Sequence[int],
        heights: Sequence[int],
        joined: bool,
        _together: bool,
    ) -> list[Tensor]:
        """Allocate the gradients of the maps, then of the weights."""
        channels = [x.shape[2] for x in positions]
        layers = [(sum(channels), positions[0], heights[0])]
        if not joined:
            layers = list(zip(channels, positions, heights, strict=True))
        maps = [x.new_empty(n, C, height, x.shape[1] // height) for n in images for C, x, height in layers]
        return maps + [w.new_empty(w.shape) for w in weights]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        """Keep positions, weights and what was recorded of the embedding."""
        maps, dims, joined, together, weights, _ = inputs
        L = ctx.layers = len(dims)
        ctx.weights = len(weights)
        ctx.maps = (*map_sizes(maps, L, joined=joined), joined, together)
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[L : 3 * L], *output[4 * L :])
        ctx.save_for_backward(*output[:L], *weights, *output[5 * L :])

    @staticmethod
    def backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """Differentiate with respect to the maps and the weights."""
        L, saved = ctx.layers, list(ctx.saved_tensors)
        positions, weights, recorded = saved[:L], saved[L : L + ctx.weights], saved[L + ctx.weights :]
        given = [
            torch.zeros_like(positions[number % L]) if grad is None else grad
            for number, grad in enumerate(grads[:L] + (grads[3 * L : 4 * L] if weights else []))
        ]
        outputs = call_operator(
            torch.ops.lwfm.encode_maps_backward.default,
            given, positions, weights, recorded[:L], recorded[L:], *ctx.maps,
            recorded=torch.is_grad_enabled(),
        )  # fmt: skip
        maps = len(outputs) - len(weights)
        return outputs[:maps], None, None, None, outputs[maps:], None
