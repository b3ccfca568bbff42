"""Arithmetic on the P x M block of every (query, support) pair.

The collapsed form of the mathematics: every quantity of LWFM-SPM that depends on a pair is a function of
the raw correlations ``R = s q^T`` and of norms, so no pair of feature maps is ever expanded. Used by
:mod:`lwfm.ops` and :mod:`lwfm.nn`; inputs are already checked there.

On the CPU, and on CUDA if this build has the kernels, the fused operators of :mod:`lwfm.ops._block_ops` do
the work; other tensors go through the tensor expressions below. :func:`has_pair_kernels` chooses.

Letters: Q queries, S support images, P support positions, M query positions, C channels.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lwfm.ops import _block_ops as _block_ops  # importing the modules registers the operators
from lwfm.ops import _feature_ops as _feature_ops

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

COSINE_EPS = 1e-8
"""Smallest norm a cosine divides by, as in torch's ``cosine_similarity``."""
CORRELATION_EPS = 1e-6
"""Added to squared norms in the correlation of layer-wise embedding."""
STANDARDIZE_EPS = 1e-5
"""Added to the variance when correlations are standardized (kStandardizeEps in csrc/core)."""
MOST_LINES = 640
"""Positions of both images for which the CUDA kernels have room (csrc/cuda/pair_plan.h)."""
PAIR_KERNELS = frozenset(
    device
    for device, key in (("cpu", "CPU"), ("cuda", "CUDA"))
    if torch._C._dispatch_has_kernel_for_dispatch_key("lwfm::embedding_weights", key)
)
"""Types of devices for which this build has kernels on the blocks of pairs."""
PAIR_BYTES = 64 * 2**20
"""Budget for the blocks of all pairs that exist at once; more queries are processed in chunks."""
RECORDED_PAIR_BYTES = 256 * 2**20
"""The same where gradients are recorded: there a second chunk means that pairs are computed twice."""


def compute_dtype(x: Tensor) -> Tensor:
    """Float64 as it is, everything else as float32: sums over C channels need the mantissa."""
    return x if x.dtype == torch.float64 else x.float()


def raw_correlation(support: Tensor, query: Tensor) -> Tensor:
    """Inner products of all positions: support [S, P, C], query [Q, M, C] -> R [Q, S, P, M].

    The result is a strided view of one matrix product.
    """
    (S, P, C), (Q, M, _) = support.shape, query.shape
    product = query.reshape(Q * M, C) @ support.reshape(S * P, C).T  # [Q M, S P]
    return product.view(Q, M, S, P).permute(0, 2, 3, 1)


def inverse_root(square: Tensor) -> Tensor:
    """``1 / max(|x|, eps)`` from the squared norms |x|^2; 0 for a zero vector.

    The zero makes the cosine of a zero vector 0 *and* keeps 1 / eps out of its gradient.
    """
    return square.clamp_min(COSINE_EPS**2).rsqrt().masked_fill(square <= 0, 0.0)


def squared_norms(x: Tensor) -> Tensor:
    """``|x|^2`` along the last dimension of x [..., C] -> [...]."""
    square: Tensor = torch.linalg.vecdot(x, x)
    return square


def correlation_scale(squares: Tensor) -> Tensor:
    """``1 / sqrt(|x|^2 + eps)`` from the squared norms |x|^2, for correlations."""
    return (squares + CORRELATION_EPS).rsqrt()


class ScaledBlocks(NamedTuple):
    """Correlations or cosines ``raw[i, j] * row_scale[i] * column_scale[j]`` that are not multiplied out."""

    raw: Tensor
    """[..., P, M]"""
    row_scale: Tensor
    """[..., P]"""
    column_scale: Tensor
    """[..., M]"""

    def values(self) -> Tensor:
        """Multiply out -> [..., P, M]."""
        return self.raw * self.row_scale.unsqueeze(-1) * self.column_scale.unsqueeze(-2)


def pair_blocks(raw: Tensor, support_scale: Tensor, query_scale: Tensor) -> ScaledBlocks:
    """Scale R [Q, S, P, M] of all pairs by factors of each image's positions, [S, P] and [Q, M]."""
    Q, S, P, M = raw.shape
    return ScaledBlocks(raw, support_scale.expand(Q, S, P), query_scale.unsqueeze(1).expand(Q, S, M))


def paired_blocks(support: Tensor, query: Tensor) -> ScaledBlocks:
    """Cosines of the positions of paired images: support [B, P, C], query [B, M, C]."""
    scales = [inverse_root(squared_norms(x)) for x in (support, query)]
    return ScaledBlocks(support @ query.transpose(1, 2), *scales)


def cosine_blocks(support: Tensor, query: Tensor) -> ScaledBlocks:
    """Cosines of the positions of all pairs: support [S, P, C], query [Q, M, C]."""
    scales = [inverse_root(squared_norms(x)) for x in (support, query)]
    return pair_blocks(raw_correlation(support, query), *scales)


def is_fused(x: Tensor) -> bool:
    """Whether every fused operator exists for the device of x: on CUDA if its kernels were built."""
    return x.device.type in PAIR_KERNELS


def has_pair_kernels(raw: Tensor) -> bool:
    """Whether there are fused operators for blocks [..., P, M]: on CUDA only if there is room for them."""
    return is_fused(raw) and (raw.device.type == "cpu" or sum(raw.shape[-2:]) <= MOST_LINES)


def embedding_weights(correlation: ScaledBlocks, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """LWE weights a [..., P] and b [..., M] of each pair, and a^T R [..., M].

    ``a_i = sum_j softmax_i(g_i(corr) / t)`` and ``b_j = sum_i softmax_j(g_j(corr) / t)``, where
    ``g_d`` standardizes along d with the unbiased variance. At an infinite temperature all weights are 1,
    whatever the correlations: no gradient reaches them.
    """
    if math.isinf(temperature):
        raw = correlation.raw
        ones = raw.new_ones(())
        return ones.expand(raw.shape[:-1]), ones.expand(raw.shape[:-2] + raw.shape[-1:]), raw.sum(-2)
    if has_pair_kernels(correlation.raw):
        return cast(
            "tuple[Tensor, Tensor, Tensor]", torch.ops.lwfm.embedding_weights(*correlation, temperature)
        )
    values = correlation.values()
    a = _standardized_softmax(values, -2, temperature).sum(-1)
    b = _standardized_softmax(values, -1, temperature).sum(-2)
    return a, b, (a.unsqueeze(-2) @ correlation.raw).squeeze(-2)


def _standardized_softmax(x: Tensor, dim: int, temperature: float) -> Tensor:
    # One position has no unbiased variance; its softmax is 1 whatever the divisor.
    centered = x - x.mean(dim, keepdim=True)
    variance = centered.square().sum(dim, keepdim=True) / max(x.shape[dim] - 1, 1)
    return (centered * ((variance + STANDARDIZE_EPS).rsqrt() / temperature)).softmax(dim)


def feature_matching(
    cosines: ScaledBlocks, support: Tensor, query: Tensor, top_k: int | None
) -> tuple[Tensor, Tensor]:
    """Assign positions by ``1 - cosines``; mean of the ``top_k`` largest cosines of matched features.

    ``cosines`` [Q, S, P, M] of all pairs with features support [S, P, D], query [Q, M, D]; or those of
    paired images, [B, P, M] with [B, P, D], [B, M, D]; no gradient goes to them. None for ``top_k``
    averages all. Returns the similarity [Q, S] and the assignment [Q, S, P] (-1 where unmatched).

    Comparing only the matched positions takes 1 / P of the products of all, so there is no size at which
    products of whole maps would be faster.
    """
    if has_pair_kernels(cosines.raw):
        top_k = min(cosines.raw.shape[-2:]) if top_k is None else top_k
        similarity, assignment, _ = torch.ops.lwfm.feature_matching(*cosines, support, query, top_k)
        return similarity, assignment
    compare = paired_blocks if cosines.raw.ndim == 3 else cosine_blocks
    return pixel_matching(cosines, compare(support, query), top_k)


def pixel_matching(cosines: ScaledBlocks, compared: ScaledBlocks, top_k: int | None) -> tuple[Tensor, Tensor]:
    """Assign positions by ``1 - cosines``; mean of the ``top_k`` largest assigned ``compared`` (None: all).

    Returns the similarity [...] and the assignment [..., P] (-1 where unmatched), through which no
    gradient flows.
    """
    pairs = min(cosines.raw.shape[-2:])
    top_k = pairs if top_k is None else top_k
    if has_pair_kernels(cosines.raw):
        return cast("tuple[Tensor, Tensor]", torch.ops.lwfm.pixel_matching(*cosines, *compared, top_k))
    assignment = torch.ops.lwfm.linear_assignment(1 - cosines.values().detach())
    matched = compared.values().gather(-1, assignment.clamp_min(0).unsqueeze(-1)).squeeze(-1)  # [..., P]
    unmatched = assignment < 0
    if top_k == pairs:
        return matched.masked_fill(unmatched, 0.0).sum(-1) / pairs, assignment
    return matched.masked_fill(unmatched, -torch.inf).topk(top_k, dim=-1).values.mean(-1), assignment


def over_queries(
    function: Callable[..., tuple[Tensor, ...]], queries: Sequence[Tensor], query_bytes: int
) -> tuple[Tensor, ...]:
    """Call ``function`` on chunks of query images and concatenate what it returns.

    ``queries`` are tensors [Q, ...]; a chunk has as many images as fit in the budget at ``query_bytes``
    each: ``PAIR_BYTES``, or ``RECORDED_PAIR_BYTES`` where gradients are recorded. There a chunk is computed
    again in the backward pass instead of kept, so extra memory does not grow with Q.
    """
    budget = RECORDED_PAIR_BYTES if torch.is_grad_enabled() else PAIR_BYTES
    chunk = max(1, budget // max(1, query_bytes))
    Q = queries[0].shape[0]  # not len(), which would make torch.export fix it
    if chunk >= Q:
        return function(*queries)
    parts: list[tuple[Tensor, ...]] = []
    for begin in range(0, Q, chunk):
        pieces = [x[begin : begin + chunk] for x in queries]
        if torch.is_grad_enabled():
            parts.append(checkpoint(function, *pieces, use_reentrant=False, preserve_rng_state=False))
        else:
            parts.append(function(*pieces))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))
