"""Logits of an episode from its maps: :func:`encode_maps` and :func:`compare_episodes` in one operator.

A small episode takes as long as the calls around its kernels, and what the backward passes of both leave to
one another takes no memory of its own.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lwfm.ops._expressions import without_autocast
from lwfm.ops._implementation import has_kernels
from lwfm.ops._register import call_operator, is_recorded, register
from lwfm.ops.encode_maps import encode_maps
from lwfm.ops.episodes import all_gradients, compare_episodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lwfm.ops.class_lists import ClassLists
    from lwfm.ops.episodes import EpisodeOptions


def compare_maps(
    batches: Sequence[Sequence[Tensor]],
    dims: Sequence[int],
    classes: ClassLists,
    options: EpisodeOptions,
    *,
    together: bool,
    weights: Sequence[Tensor] = (),
    matching_weight: float,
    temperature: float,
    features: bool,
) -> tuple[Tensor, Tensor]:
    """Compare the queries of one episode with its classes.

    Parameters
    ----------
    batches, dims, together, weights
        Maps of the support images and of the queries, as :func:`encode_maps` takes them.
    classes, options, features
        As :func:`compare_episodes` takes them.
    matching_weight, temperature : float
        Of ``logits = (base + matching_weight * matching) / temperature``.

    Returns
    -------
    logits, features : Tensor
        [Q, way], and [Q, C], empty if not wanted. Differentiable with respect to maps and weights.
    """
    maps = list(itertools.chain.from_iterable(batches))
    if not has_kernels(*maps, *weights, operator="compare_maps"):
        with without_autocast(maps[0].device):
            images = encode_maps(batches, dims, together=together, weights=weights)
            base, matching, means = compare_episodes(images, classes, None, options, features=features)
            return (base + matching_weight * matching) / temperature, means
    record = is_recorded(*maps, *weights)
    attention_temperature, top_k, mean_over_layers, merge_shots = options
    outputs = call_operator(
        torch.ops.lwfm.compare_maps.default,
        maps, dims, len(batches[0]) == 1, together, weights, classes.order, classes.begin,
        attention_temperature, -1 if top_k is None else top_k, mean_over_layers, merge_shots,
        matching_weight, temperature, features, record,
        recorded=record,
    )  # fmt: skip
    return outputs[0], outputs[1]


@register
class CompareMaps:
    """``lwfm::compare_maps``, on the CPU; only maps and weights have gradients."""

    name = "compare_maps"

    @staticmethod
    def fake(
        maps: Sequence[Tensor],
        dims: Sequence[int],
        joined: bool,
        _together: bool,
        weights: Sequence[Tensor],
        order: Tensor,
        begin: Tensor,
        _attention_temperature: float,
        top_k: int,
        _mean_over_layers: bool,
        _merge_shots: bool,
        _matching_weight: float,
        _temperature: float,
        features: bool,
        record: bool,
    ) -> list[Tensor]:
        """Allocate the outputs of csrc/ops/compare_maps.cpp."""
        L, S, way = len(dims), order.shape[0], begin.shape[0] - 1
        n = sum(x.shape[0] for x in maps[:: 1 if joined else L])
        Q = n - S
        outputs = [maps[0].new_empty(Q, way), maps[0].new_empty((Q, sum(dims)) if features else (0,))]
        if record:
            number = maps[0].element_size()
            arrays = [way * 3 * Q * number]
            for layer, C in enumerate(dims):
                height, width = maps[0 if joined else layer].shape[2:]
                P = height * width
                arrays += [n * P * C * number, n * P * number, n * P * P * number]
                arrays += [S * P * Q * number] * 2
                if top_k != 0:
                    arrays += [S * P * Q * 4, S * P * Q * number]
                if weights:
                    H = weights[2 * layer].shape[0]
                    arrays += [n * P * C * number, n * P * number, n * P * H * number, n * P * C]
            outputs.append(maps[0].new_empty(sum((x + 63) // 64 * 64 for x in arrays) // number))
        return outputs

    @staticmethod
    def backward_fake(
        _grads: Sequence[Tensor],
        memory: Tensor,
        weights: Sequence[Tensor],
        _order: Tensor,
        _begin: Tensor,
        images: Sequence[int],
        dims: Sequence[int],
        heights: Sequence[int],
        widths: Sequence[int],
        joined: bool,
        *_options: Any,
    ) -> list[Tensor]:
        """Allocate the gradients of the maps, then of the weights."""
        channels = [sum(dims)] if joined else dims
        maps = [
            memory.new_empty(n, C, height, width)
            for n in images
            for C, height, width in zip(channels, heights, widths, strict=False)
        ]
        return maps + [w.new_empty(w.shape) for w in weights]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        """Keep the weights, the lists and the memory of what was recorded.

        It is differentiable to torch, so that the backward pass refuses second derivatives with respect to
        every input.
        """
        maps, dims, joined, together, weights, order, begin = inputs[:7]
        L, features = len(dims), inputs[13]
        ctx.shapes = [x.shape for x in (output[:2] if features else output[:1])]
        images = [x.shape[0] for x in maps[:: 1 if joined else L]]
        sides = [x.shape[2:] for x in ([maps[0]] * L if joined else maps[:L])]
        heights, widths = zip(*sides, strict=True)
        ctx.options = (images, dims, heights, widths, joined, together, *inputs[7:14])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[2], order, begin, *weights)

    @staticmethod
    def backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """Differentiate with respect to the maps and the weights."""
        memory, order, begin, *weights = ctx.saved_tensors
        outputs = call_operator(
            torch.ops.lwfm.compare_maps_backward.default,
            all_gradients(grads, ctx.shapes, memory), memory, weights, order, begin, *ctx.options,
            recorded=torch.is_grad_enabled(),
        )  # fmt: skip
        maps = len(outputs) - len(weights)
        return (outputs[:maps], None, None, None, outputs[maps:], *_NO_GRADIENTS)


_NO_GRADIENTS = (None,) * 10
"""Of the arguments of the operator after the weights."""
