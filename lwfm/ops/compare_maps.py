"""Similarities of an episode from its maps: :func:`encode_maps` and :func:`compare_episodes` in one step.

Small episodes take as long as the calls around their kernels, so that both operators share one autograd
function here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lwfm.ops._implementation import has_kernels
from lwfm.ops.encode_maps import differentiate_encoding, encode_maps, map_sizes
from lwfm.ops.episodes import compare_episodes, differentiate_episodes, products_of_kernels

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
    features: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare the queries of one episode with its classes.

    Parameters
    ----------
    batches, dims, together, weights
        Maps of the support images and of the queries, as :func:`encode_maps` takes them.
    classes, options, features
        As :func:`compare_episodes` takes them.

    Returns
    -------
    base, matching, features : Tensor
        As :func:`compare_episodes` returns them for one episode.
    """
    joined = len(batches[0]) == 1
    maps = [x for batch in batches for x in batch]
    kernels = not torch.compiler.is_compiling() and all(
        has_kernels(*maps, *weights, operator=operator) for operator in ("encode_maps", "episodes")
    )
    if not kernels:
        images = encode_maps(batches, dims, together=together, weights=weights)
        return compare_episodes(images, classes, None, options, features=features)
    call = _Call(len(maps), list(dims), joined, together, classes, options, features)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (*maps, *weights)):
        base, matching, means, _ = _Comparison.apply(call, *maps, *weights)
        return base, matching, means
    _, outputs = _run(call, maps, list(weights), record=False)
    return outputs[0], outputs[1], outputs[2]


class _Call(NamedTuple):
    """The arguments that have no gradient."""

    maps: int
    """Number of maps, which come before the weights."""
    dims: list[int]
    joined: bool
    together: bool
    classes: ClassLists
    options: EpisodeOptions
    features: bool

    @property
    def comparison(self) -> tuple[Any, ...]:
        """The last arguments of both operators of episodes."""
        temperature, top_k, mean_over_layers, merge_shots = self.options
        return temperature, -1 if top_k is None else top_k, mean_over_layers, merge_shots, self.features

    def parts(self, encoded: Sequence[Tensor], *, embedded: bool) -> list[list[Tensor]]:
        """Return positions, squares, Grams, embedded positions and their squares, a list for each."""
        L = len(self.dims)
        count = 5 if embedded else 3
        return [list(encoded[k * L : (k + 1) * L]) if k < count else [] for k in range(5)]


def _run(
    call: _Call, maps: list[Tensor], weights: list[Tensor], *, record: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the outputs of both operators."""
    with torch._C._AutoDispatchBelowAutograd():
        encoded = torch.ops.lwfm.encode_maps.default(
            maps, call.dims, call.joined, call.together, weights, record
        )
        parts = call.parts(encoded, embedded=len(weights) > 0)
        lists = call.classes.order, call.classes.begin
        products = products_of_kernels(maps[0].device)
        outputs = torch.ops.lwfm.episodes.default(
            *parts, None, None, *lists, *call.comparison, record, *products
        )
    return encoded, outputs


class _Comparison(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        maps, weights = list(tensors[: call.maps]), list(tensors[call.maps :])
        encoded, outputs = _run(call, maps, weights, record=True)
        ctx.call = call
        ctx.maps = (*map_sizes(maps, len(call.dims), joined=call.joined), call.joined, call.together)
        ctx.counts = len(weights), len(encoded)
        ctx.shapes = [x.shape for x in outputs[:3]]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*weights, *encoded, *outputs[3:])
        # As an output, what is saved of the images belongs to the graph: the operators of the backward pass
        # then refuse second derivatives with respect to every input.
        return *outputs[:3], encoded[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        call, saved = ctx.call, list(ctx.saved_tensors)
        of_weights, of_images = ctx.counts
        weights, encoded = saved[:of_weights], saved[of_weights : of_weights + of_images]
        recorded = saved[of_weights + of_images :]
        parts = call.parts(encoded, embedded=len(weights) > 0)
        lists = None, None, call.classes.order, call.classes.begin
        slopes = differentiate_episodes(grads[:3], ctx.shapes, parts, lists, recorded, call.comparison)
        of_embedding = encoded[5 * len(call.dims) :] if weights else ()
        return None, *differentiate_encoding(slopes, parts[0], weights, of_embedding, ctx.maps)
