"""Similarities of whole episodes: the base term and the matched similarity of LWFM-SPM.

Letters: n encoded images, E episodes, S support images and Q queries of each, P positions, C channels of
all layers, L layers.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lwfm.ops._expressions import (
    correlation_scale,
    inverse_root,
    pair_blocks,
    raw_correlation,
    squared_norms,
)
from lwfm.ops._implementation import has_kernels
from lwfm.ops._register import call_operator, is_recorded, register
from lwfm.ops.embedding_weights import embedding_weights
from lwfm.ops.feature_matching import feature_matching

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lwfm.ops.class_lists import ClassLists
    from lwfm.ops.encode_maps import EncodedMaps


class EpisodeOptions(NamedTuple):
    """How an episode is compared; the arguments of :class:`lwfm.nn.LWFMHead`."""

    attention_temperature: float
    """Of layer-wise embedding; infinite: all positions weigh the same."""
    top_k: int | None
    """Matched pairs averaged, None for all, 0 for no matching."""
    mean_over_layers: bool
    """Whether matched similarities are averaged over the layers; else their maximum is taken."""
    merge_shots: bool
    """Whether a query is matched with all shots of a class at once."""


# A plain global, as the selected implementation.
_fused: bool | None = None


@contextlib.contextmanager
def products_in_kernel(wanted: bool | None) -> Iterator[None]:
    """Select who multiplies positions on CUDA in inference, for tests and benchmarks.

    Parameters
    ----------
    wanted : bool or None
        The kernel that compares episodes, or torch's matrix products before it; None, the default: what the
        rule of ``csrc/cuda/fused_plan.h`` predicts to be faster. The operator raises ``RuntimeError`` where
        the kernel cannot: for merged shots, and for more than 32 positions.
    """
    global _fused
    before, _fused = _fused, wanted
    try:
        yield
    finally:
        _fused = before


def products_of_kernels(device: torch.device) -> tuple[int, bool]:
    """Return the last two arguments of ``lwfm::episodes``, ``fused`` and ``tf32``."""
    return -1 if _fused is None else int(_fused), device.type == "cuda" and _allows_tf32()


def _allows_tf32() -> bool:
    """Return whether torch may round float32 to TF32 in matrix products on CUDA."""
    precision: str = torch.backends.cuda.matmul.fp32_precision
    return precision == "tf32"


# What torch.compiler.assume_constant_result does, which would load the compiler.
_allows_tf32._dynamo_marked_constant = True  # type: ignore[attr-defined]


def compare_episodes(
    images: EncodedMaps,
    classes: ClassLists,
    lists: tuple[Tensor, Tensor] | None,
    options: EpisodeOptions,
    *,
    features: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare queries with classes, of one episode or of several that share encoded images.

    Parameters
    ----------
    images : EncodedMaps
        n images.
    classes : ClassLists
        Of the S support images, for every episode the same.
    lists : (Tensor, Tensor) or None
        Images [E, S] and [E, Q] int64 of the support images and of the queries. None: one episode, whose
        support images are the first S images and whose queries are the others; results have no dimension E.
    options : EpisodeOptions
        How to compare.
    features : bool
        Whether the queries' weighted mean features are wanted.

    Returns
    -------
    base, matching, features : Tensor
        [E, Q, way] twice, and [E, Q, C], empty if not wanted; matching is not weighted, and zero where there
        is none. Differentiable with respect to positions and embedded positions.
    """
    if has_kernels(*images.positions, *images.embedded, operator="episodes"):
        record = is_recorded(*images.positions, *images.embedded)
        support, query = (None, None) if lists is None else lists
        outputs = call_operator(
            torch.ops.lwfm.episodes.default,
            *images.parts(),
            support,
            query,
            classes.order,
            classes.begin,
            options.attention_temperature,
            -1 if options.top_k is None else options.top_k,
            options.mean_over_layers,
            options.merge_shots,
            features,
            record,
            *products_of_kernels(images.device),
            recorded=record,
        )
        return outputs[0], outputs[1], outputs[2]
    if lists is None:
        everything = torch.arange(len(images), device=images.device)
        return _episode(images, classes, everything, options, features=features)
    if len(lists[0]) == 0:
        Q, channels = lists[1].shape[1], sum(x.shape[2] for x in images.positions)
        base = images.positions[0].new_zeros(0, Q, classes.way)
        return base, base.clone(), base.new_zeros((0, Q, channels) if features else (0,))
    several = [
        _episode(images, classes, torch.cat([support, query]), options, features=features)
        for support, query in zip(*lists, strict=True)
    ]
    base, matching, mean_features = (torch.stack(column) for column in zip(*several, strict=True))
    return base, matching, mean_features


def _episode(
    images: EncodedMaps, classes: ClassLists, episode: Tensor, options: EpisodeOptions, *, features: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare one episode by tensor expressions: support images, then queries."""
    S = len(classes.order)
    share = classes.share.to(images.positions[0])  # [S, way]
    terms, matched, means = [], [], []
    for number, positions in enumerate(images.positions):
        x = positions[episode]
        s, q = x[:S], x[S:]
        raw = raw_correlation(s, q)  # [Q, S, P, P]
        squares = squared_norms(x)
        scales = correlation_scale(squares)
        a, b = embedding_weights(pair_blocks(raw, scales[:S], scales[S:]), options.attention_temperature)
        b = torch.einsum("qsj,sw->qwj", b, share) / q.shape[1]
        a = a / s.shape[1]
        products = torch.einsum("qsi,qsij->qsj", a, raw)
        inner = torch.einsum("qsj,sw,qwj->qw", products, share, b)
        mean_s = torch.einsum("qsi,sw,sic->qwc", a, share, s)
        mean_q = torch.einsum("qwj,qjc->qwc", b, q)
        terms.append(torch.stack([inner, squared_norms(mean_s), squared_norms(mean_q)]))
        means.append(mean_q.mean(1))
        if options.top_k != 0:
            compared = images.embedded[number][episode] if images.embedded else x
            norms = inverse_root(squares.detach())
            blocks = (raw.detach(), norms[:S], norms[S:])
            matched.append(_match(blocks, compared, classes, options))
    inner, square_s, square_q = torch.stack(terms).sum(0)
    base = inner * inverse_root(square_s) * inverse_root(square_q)
    matching = torch.zeros_like(base)
    if matched:
        similarities = torch.stack(matched)  # [L, Q, S], merged [L, Q, way]
        matching = similarities.mean(0) if options.mean_over_layers else similarities.max(0).values
        matching = matching if options.merge_shots else matching @ share
    return base, matching, torch.cat(means, dim=-1) if features else base.new_empty(0)


def _match(
    blocks: tuple[Tensor, Tensor, Tensor], compared: Tensor, classes: ClassLists, options: EpisodeOptions
) -> Tensor:
    """Compute the matched similarity [Q, S], merged [Q, way], of one layer.

    ``blocks`` are R [Q, S, P, P] and the inverse norms [S, P] and [Q, P]; ``compared`` [S + Q, P, D].
    """
    raw, support_norms, query_norms = blocks
    S = len(classes.order)
    s, q = compared[:S], compared[S:]
    if not options.merge_shots:
        return feature_matching(pair_blocks(*blocks), s, q, options.top_k)[0]
    similarities = []
    for images in classes.of_equal_count:  # [classes, K]
        merged = raw[:, images].flatten(2, 3)  # [Q, classes, K P, P]
        cosines = pair_blocks(merged, support_norms[images].flatten(1), query_norms)
        similarities.append(feature_matching(cosines, s[images].flatten(1, 2), q, options.top_k)[0])
    return classes.in_class_order(similarities)


def all_gradients(grads: Sequence[Tensor | None], shapes: Sequence[torch.Size], like: Tensor) -> list[Tensor]:
    """Return gradients of the outputs that have ``shapes``, the first ones; zero for those that have none."""
    given = []
    for grad, shape in zip(grads, shapes, strict=False):
        given.append(like.new_zeros(shape) if grad is None else grad)
    return given


@register
class Episodes:
    """``lwfm::episodes``; only positions and embedded positions have gradients."""

    name = "episodes"

    @staticmethod
    def fake(
        positions: Sequence[Tensor],
        _squares: Sequence[Tensor],
        _grams: Sequence[Tensor],
        _embedded: Sequence[Tensor],
        _embedded_squares: Sequence[Tensor],
        support: Tensor | None,
        query: Tensor | None,
        order: Tensor,
        begin: Tensor,
        _temperature: float,
        top_k: int,
        _mean_over_layers: bool,
        merge_shots: bool,
        features: bool,
        record: bool,
        _fused: int = -1,
        _tf32: bool = False,
    ) -> list[Tensor]:
        """Allocate the outputs of csrc/ops/episodes.cpp, on CUDA of csrc/ops/episodes_cuda.cpp."""
        first = positions[0]
        S, way = order.shape[0], begin.shape[0] - 1
        listed = () if support is None else (support.shape[0],)
        E = 1 if support is None else support.shape[0]
        Q = first.shape[0] - S if query is None else query.shape[1]
        outputs = [first.new_empty(*listed, Q, way) for _ in range(2)]
        channels = sum(x.shape[2] for x in positions)
        outputs.append(first.new_empty((*listed, Q, channels) if features else (0,)))
        sums = 3 * way + len(positions) * (way if merge_shots else S)
        terms = (E, Q, sums) if first.is_cuda else (E, way, 3, Q)
        outputs.append(first.new_empty(terms if record else (0,)))
        for x in positions if record else ():
            P = x.shape[1]
            weights = (E, Q, S, P) if first.is_cuda else (E, S, P, Q)
            outputs += [first.new_empty(weights) for _ in range(2)]
            matches = (E, Q, S, P) if top_k else (0,)
            outputs += [first.new_empty(matches, dtype=torch.int32), first.new_empty(matches)]
        return outputs

    @staticmethod
    def backward_fake(
        _grads: Sequence[Tensor],
        positions: Sequence[Tensor],
        _squares: Sequence[Tensor],
        _grams: Sequence[Tensor],
        embedded: Sequence[Tensor],
        *_others: Any,
    ) -> list[Tensor]:
        """Allocate the gradients of positions and of embedded positions."""
        return [x.new_empty(x.shape) for x in (*positions, *embedded)]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        """Keep the encoded images, the lists and what was recorded."""
        encoded, (support, query, order, begin), ctx.options = inputs[:5], inputs[5:9], inputs[9:14]
        ctx.others = len(inputs) - 5
        ctx.counts = [len(part) for part in encoded]
        ctx.listed = support is not None
        ctx.shapes = [x.shape for x in output[:3]]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*output[3:])
        lists = (support, query) if ctx.listed else ()
        ctx.save_for_backward(*(x for part in encoded for x in part), *lists, order, begin, *output[3:])

    @staticmethod
    def backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
        """Differentiate with respect to positions and embedded positions."""
        saved = list(ctx.saved_tensors)
        parts = [[saved.pop(0) for _ in range(count)] for count in ctx.counts]
        support, query = (saved.pop(0), saved.pop(0)) if ctx.listed else (None, None)
        order, begin, *recorded = saved
        given = all_gradients(grads, ctx.shapes, parts[0][0])
        outputs = call_operator(
            torch.ops.lwfm.episodes_backward.default,
            given, *parts, support, query, order, begin, recorded, *ctx.options,
            recorded=torch.is_grad_enabled(),
        )  # fmt: skip
        L = ctx.counts[0]
        nothing = [[None] * count for count in ctx.counts]
        return (outputs[:L], *nothing[1:3], outputs[L:], nothing[4], *([None] * ctx.others))
