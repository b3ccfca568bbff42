"""Semantic-pixel matching (SPM): positions of two images assigned one to one and compared."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lwfm.ops._checks import checked_features
from lwfm.ops._expressions import (
    ScaledBlocks,
    cosine_blocks,
    has_pair_kernels,
    inverse_root,
    pair_blocks,
    paired_blocks,
    raw_correlation,
    squared_norms,
    without_autocast,
)
from lwfm.ops._register import register

if TYPE_CHECKING:
    from collections.abc import Iterator

PAIR_BYTES = 64 * 2**20
"""Budget of :func:`semantic_pixel_matching` for the blocks of all pairs that exist at once."""


def semantic_pixel_matching(
    support: Tensor,
    query: Tensor,
    *,
    support_embedded: Tensor | None = None,
    query_embedded: Tensor | None = None,
    top_k: int | None = 1,
) -> tuple[Tensor, Tensor]:
    """Match every support image with every query, position by position (SPM).

    For each pair, positions are assigned one to one so that the total of
    ``cost[i, j] = 1 - cos(support_i, query_j)`` is least; the similarity is the mean of the ``top_k``
    largest cosines over the assigned positions, taken from the embedded features where they are given.
    No gradient flows through the assignment. A zero vector has cosine 0.

    Parameters
    ----------
    support : Tensor
        [S, P, C]: S images of P positions with C channels; any floating dtype.
    query : Tensor
        [Q, M, C], same dtype and device; M may differ from P.
    support_embedded, query_embedded : Tensor, optional
        [S, P, D] and [Q, M, D]: the features that the similarity compares; both or neither.
        Default: ``support`` and ``query``.
    top_k : int or None
        How many matched pairs are averaged, 1 to min(P, M); None for all. 1 is the paper's maximum.

    Returns
    -------
    similarity : Tensor
        [Q, S], in -1..1; float64 for float64 input, else float32. Differentiable.
    assignment : Tensor
        [Q, S, P] int64: the query position of each support position, -1 where unmatched (P > M).

    Raises
    ------
    ValueError
        For a wrong rank, dtype, device, channel count or ``top_k``. On the CPU also for NaN or infinite
        ``support`` and ``query``, or norms whose squares overflow (above 1.8e19 in float32): the message
        names the first pair [query, support].

    Notes
    -----
    CUDA tensors with such values raise no error, which would have to wait for the device: the assignment of
    their pairs is -1. Neither do embedded features on any device: the similarity is NaN where a matched
    position has such values. Norms below 1e-8 count as 1e-8.

    References
    ----------
    "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot Learning", arXiv 2411.06363.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import semantic_pixel_matching
    >>> support = torch.eye(3)[None]  # [1, 3, 3]: three positions
    >>> similarity, assignment = semantic_pixel_matching(support, support[:, [2, 0, 1]], top_k=None)
    >>> similarity, assignment
    (tensor([[1.]]), tensor([[[1, 2, 0]]]))
    """
    features = checked_features(support, query, support_embedded, query_embedded, top_k)
    (support, query), (support_embedded, query_embedded) = features[0], features[-1]
    support, query = support.detach(), query.detach()
    tensors = support, query, support_embedded, query_embedded
    P, M = support.shape[1], query.shape[1]
    with without_autocast(support.device):
        count = min(P, M) if top_k is None else top_k
        if not has_pair_kernels(P, M, *tensors, operator="feature_matching"):
            return _match_by_expressions(*tensors, count)
        similarity, assignment, _ = torch.ops.lwfm.semantic_pixel_matching.default(*tensors, count)
        return similarity, assignment


def paired_pixel_matching(
    support: Tensor,
    query: Tensor,
    *,
    support_embedded: Tensor | None = None,
    query_embedded: Tensor | None = None,
    top_k: int | None = 1,
) -> tuple[Tensor, Tensor]:
    """Match support image b with query b only: :func:`semantic_pixel_matching` on paired batches.

    Parameters
    ----------
    support, query : Tensor
        [B, P, C] and [B, M, C], same floating dtype and device.
    support_embedded, query_embedded : Tensor, optional
        [B, P, D] and [B, M, D]; both or neither. Default: ``support`` and ``query``.
    top_k : int or None
        How many matched pairs are averaged, 1 to min(P, M); None for all.

    Returns
    -------
    similarity : Tensor
        [B], in -1..1; float64 for float64 input, else float32. Differentiable.
    assignment : Tensor
        [B, P] int64: the query position of each support position, -1 where unmatched (P > M).

    Raises
    ------
    ValueError
        As :func:`semantic_pixel_matching`, and for unequal batch sizes.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import paired_pixel_matching
    >>> similarity, assignment = paired_pixel_matching(torch.eye(3)[None], -torch.eye(3)[None])
    >>> similarity.shape, assignment.shape
    (torch.Size([1]), torch.Size([1, 3]))
    """
    features = checked_features(support, query, support_embedded, query_embedded, top_k)
    if len(support) != len(query):
        raise ValueError(f"support and query pair up, but there are {len(support)} and {len(query)} images")
    with without_autocast(support.device):
        cosines = paired_blocks(*(x.detach() for x in features[0]))
        return feature_matching(cosines, *features[-1], top_k)


def feature_matching(
    cosines: ScaledBlocks, support: Tensor, query: Tensor, top_k: int | None
) -> tuple[Tensor, Tensor]:
    """Assign positions by ``1 - cosines``; average the ``top_k`` largest cosines of matched features.

    ``cosines`` [Q, S, P, M] of all pairs with features support [S, P, D], query [Q, M, D]; or those of
    paired images, [B, P, M] with [B, P, D], [B, M, D]; no gradient goes to them. None for ``top_k``
    averages all. Returns the similarity [Q, S] and the assignment [Q, S, P] (-1 where unmatched).

    Comparing only the matched positions takes 1 / P of the products of all, so there is no size at which
    products of whole maps would be faster.
    """
    with _explained(cosines.raw.dtype):
        return _assign_and_average(cosines, support, query, top_k)


@contextlib.contextmanager
def _explained(dtype: torch.dtype, first_query: int = 0) -> Iterator[None]:
    """Add to the error of a pair where its NaN comes from; its queries are counted from ``first_query``."""
    try:
        yield
    except ValueError as error:
        if " is nan" not in str(error):
            raise
        limit = torch.finfo(dtype).max ** 0.5
        pair = re.sub(r"(?<=cost\[)\d+", lambda number: str(first_query + int(number[0])), str(error))
        raise ValueError(
            f"{pair}; features are NaN or infinite, or the norm of a position is above {limit:.1e}, whose "
            f"square overflows {dtype}"
        ) from None


def _assign_and_average(
    cosines: ScaledBlocks, support: Tensor, query: Tensor, top_k: int | None
) -> tuple[Tensor, Tensor]:
    pairs = min(cosines.raw.shape[-2:])
    top_k = pairs if top_k is None else top_k
    tensors = cosines.raw, support, query
    if has_pair_kernels(*cosines.raw.shape[-2:], *tensors, operator="feature_matching"):
        operator = torch.ops.lwfm.feature_matching.default
        similarity, assignment, _ = operator(*cosines, support, query, top_k)
        return similarity, assignment
    assignment = torch.ops.lwfm.linear_assignment.default(1 - cosines.values().detach())
    compared = (paired_blocks if cosines.raw.ndim == 3 else cosine_blocks)(support, query).values()
    matched = compared.gather(-1, assignment.clamp_min(0).unsqueeze(-1)).squeeze(-1)  # [..., P]
    unmatched = assignment < 0
    if top_k == pairs:
        return matched.masked_fill(unmatched, 0.0).sum(-1) / pairs, assignment
    return matched.masked_fill(unmatched, -torch.inf).topk(top_k, dim=-1).values.mean(-1), assignment


@register
class FeatureMatching:
    """``lwfm::feature_matching``; no gradient flows through the assignment."""

    name = "feature_matching"

    @staticmethod
    def fake(raw: Tensor, *_others: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Allocate the similarity, the assignment and the cosines of matched positions."""
        rows = raw.shape[:-1]
        return raw.new_empty(rows[:-1]), raw.new_empty(rows, dtype=torch.int64), raw.new_empty(rows)

    @staticmethod
    def backward_fake(_grad: Tensor, support: Tensor, query: Tensor, *_others: Any) -> tuple[Tensor, Tensor]:
        """Allocate the gradients of the features."""
        return support.new_empty(support.shape), query.new_empty(query.shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        """Keep the features, the assignment and its cosines."""
        *others, support, query, ctx.top_k = inputs
        ctx.others = len(others)
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(support, query, *output[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_others: Any) -> tuple[Tensor | None, ...]:
        """Differentiate with respect to the features."""
        operator = torch.ops.lwfm.feature_matching_backward.default
        # Before the features: raw and two scales, or, of semantic_pixel_matching, what costs come from.
        others = [None] * ctx.others
        return (*others, *operator(grad, *ctx.saved_tensors, ctx.top_k), None)


def _query_chunks(support: Tensor, query: Tensor) -> Iterator[tuple[int, slice, ScaledBlocks]]:
    """Yield the number of a first query, some queries and their cosines, as many as fit in ``PAIR_BYTES``."""
    (S, P, _), (Q, M, _) = support.shape, query.shape
    support_scale, query_scale = (inverse_root(squared_norms(x)) for x in (support, query))
    chunk = max(1, PAIR_BYTES // max(1, S * P * M * support.element_size()))
    for begin in range(0, max(1, Q), chunk):
        some = slice(begin, begin + chunk)
        yield (
            begin,
            some,
            pair_blocks(raw_correlation(support, query[some]), support_scale, query_scale[some]),
        )


def _match_in_chunks(
    support: Tensor, query: Tensor, support_embedded: Tensor, query_embedded: Tensor, top_k: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute ``lwfm::semantic_pixel_matching`` by the kernels of ``lwfm::feature_matching``."""
    operator = torch.ops.lwfm.feature_matching.default
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for begin, some, blocks in _query_chunks(support, query):
        with _explained(support.dtype, begin):
            parts.append(operator(*blocks, support_embedded, query_embedded[some], top_k))
    if len(parts) == 1:
        return parts[0]
    similarity, assignment, cosines = (torch.cat(column) for column in zip(*parts, strict=True))
    return similarity, assignment, cosines


def _match_by_expressions(
    support: Tensor, query: Tensor, support_embedded: Tensor, query_embedded: Tensor, top_k: int
) -> tuple[Tensor, Tensor]:
    """Compute similarity [Q, S] and assignment [Q, S, P] by tensor expressions."""
    parts: list[tuple[Tensor, Tensor]] = []
    for begin, some, blocks in _query_chunks(support, query):
        with _explained(support.dtype, begin):
            parts.append(_assign_and_average(blocks, support_embedded, query_embedded[some], top_k))
    similarity, assignment = (torch.cat(column) for column in zip(*parts, strict=True))
    return similarity, assignment


def _match_fake(support: Tensor, query: Tensor, *_others: Any) -> tuple[Tensor, Tensor, Tensor]:
    rows = query.shape[0], support.shape[0], support.shape[1]
    return (
        support.new_empty(rows[:2]),
        support.new_empty(rows, dtype=torch.int64),
        support.new_empty(rows),
    )


torch.library.define(
    "lwfm::semantic_pixel_matching",
    "(Tensor support, Tensor query, Tensor support_embedded, Tensor query_embedded, int top_k) "
    "-> (Tensor similarity, Tensor assignment, Tensor cosines)",
)
torch.library.impl("lwfm::semantic_pixel_matching", ("cpu", "cuda"), _match_in_chunks)
torch.library.register_fake("lwfm::semantic_pixel_matching", _match_fake)
# No gradient flows through the assignment, so nothing of the chunks is needed beside what is returned.
torch.library.register_autograd(
    "lwfm::semantic_pixel_matching", FeatureMatching.backward, setup_context=FeatureMatching.setup_context
)
