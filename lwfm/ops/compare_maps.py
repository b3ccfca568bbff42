"""Logits of an episode from its maps: :func:`encode_maps` and :func:`compare_episodes` in one operator.

A small episode takes as long as the calls around its kernels, and what the backward passes of both leave to
one another takes no memory of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lwfm.ops._implementation import has_kernels
from lwfm.ops._register import call_operator, register
from lwfm.ops.encode_maps import EncodeMaps, encode_maps, encoded_parts, map_sizes
from lwfm.ops.episodes import Episodes, all_gradients, compare_episodes

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
    maps = [x for batch in batches for x in batch]
    if not has_kernels(*maps, *weights, operator="compare_maps"):
        images = encode_maps(batches, dims, together=together, weights=weights)
        base, matching, means = compare_episodes(images, classes, None, options, features=features)
        return (base + matching_weight * matching) / temperature, means
    record = torch.is_grad_enabled() and any(x.requires_grad for x in (*maps, *weights))
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
    # Positions of the first layer too: as an output they belong to the graph, so that the backward pass
    # refuses second derivatives with respect to every input.
    returned = 3

    @staticmethod
    def fake(
        maps: Sequence[Tensor],
        dims: Sequence[int],
        joined: bool,
        together: bool,
        weights: Sequence[Tensor],
        order: Tensor,
        begin: Tensor,
        attention_temperature: float,
        top_k: int,
        mean_over_layers: bool,
        merge_shots: bool,
        _matching_weight: float,
        _temperature: float,
        features: bool,
        record: bool,
    ) -> list[Tensor]:
        """Allocate the outputs of csrc/ops/compare_maps.cpp."""
        encoded = EncodeMaps.fake(maps, dims, joined, together, weights, record)
        positions, squares, grams, embedded, embedded_squares = encoded_parts(encoded, len(dims))
        outputs = Episodes.fake(
            positions, squares, grams, embedded, embedded_squares, None, None, order, begin,
            attention_temperature, top_k, mean_over_layers, merge_shots, features, record,
        )  # fmt: skip
        base, _, means, *recorded = outputs
        return [base, means, *encoded, *recorded] if record else [base, means]

    @staticmethod
    def backward_fake(
        grads: Sequence[Tensor],
        encoded: Sequence[Tensor],
        weights: Sequence[Tensor],
        _recorded: Sequence[Tensor],
        _order: Tensor,
        _begin: Tensor,
        images: Sequence[int],
        heights: Sequence[int],
        joined: bool,
        together: bool,
        *_options: Any,
    ) -> list[Tensor]:
        """Allocate the gradients of the maps, then of the weights."""
        positions = encoded[: len(heights)]
        return EncodeMaps.backward_fake(grads, positions, weights, (), (), images, heights, joined, together)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        """Keep the weights, the lists, the encoded images and what was recorded of the episode."""
        maps, dims, joined, together, weights, order, begin, *options = inputs
        L = len(dims)
        ctx.maps = (*map_sizes(maps, L, joined=joined), joined, together)
        *ctx.options, _ = options
        ctx.counts = len(weights), (7 if weights else 3) * L
        ctx.shapes = [x.shape for x in output[: 2 if output[1].ndim == 2 else 1]]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(order, begin, *weights, *output[2:])

    @staticmethod
    def backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """Differentiate with respect to the maps and the weights."""
        order, begin, *saved = ctx.saved_tensors
        of_weights, of_images = ctx.counts
        weights, encoded = saved[:of_weights], saved[of_weights : of_weights + of_images]
        given = all_gradients(grads[: len(ctx.shapes)], ctx.shapes, encoded[0])
        outputs = call_operator(
            torch.ops.lwfm.compare_maps_backward.default,
            given, encoded, weights, saved[of_weights + of_images :], order, begin, *ctx.maps, *ctx.options,
            recorded=torch.is_grad_enabled(),
        )  # fmt: skip
        maps = len(outputs) - of_weights
        return (outputs[:maps], None, None, None, outputs[maps:], *([None] * 10))
