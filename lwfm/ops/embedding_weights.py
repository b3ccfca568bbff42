"""Layer-wise embedding (LWE): weights of positions by mutual cross-correlation."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from lwfm.ops._checks import checked_features
from lwfm.ops._expressions import (
    ScaledBlocks,
    correlation_scale,
    has_pair_kernels,
    pair_blocks,
    raw_correlation,
    squared_norms,
    without_autocast,
)
from lwfm.ops._register import register

STANDARDIZE_EPS = 1e-5
"""Added to the variance when correlations are standardized (kStandardizeEps in csrc/core)."""


def layer_wise_embedding(
    support: Tensor, query: Tensor, *, temperature: float = 5.0
) -> tuple[Tensor, Tensor]:
    """Weigh positions by mutual cross-correlation (LWE), for every (query, support) pair.

    A position of one image weighs much where the other image has something that correlates with it.
    Each row of weights sums to the number of positions of the other image.

    Parameters
    ----------
    support, query : Tensor
        [S, P, C] and [Q, M, C] of one backbone layer, centered over channels; same floating dtype, device.
    temperature : float
        Softens the softmax over positions; positive. The paper: 5, on CUB 2.

    Returns
    -------
    support_weights, query_weights : Tensor
        [Q, S, P] and [Q, S, M], positive; float64 for float64 input, else float32. Differentiable.

    Raises
    ------
    ValueError
        For a wrong rank, dtype, device, channel count or temperature.

    References
    ----------
    "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot Learning", arXiv 2411.06363.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import layer_wise_embedding
    >>> a, b = layer_wise_embedding(torch.eye(4)[None], torch.eye(4)[None])
    >>> a.shape, bool(a.sum().isclose(torch.tensor(4.0)))
    (torch.Size([1, 1, 4]), True)
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    ((support, query),) = checked_features(support, query, None, None, None)
    with without_autocast(support.device):
        raw = raw_correlation(support, query)
        scales = [correlation_scale(squared_norms(x)) for x in (support, query)]
        correlation = pair_blocks(raw, *scales)
        return embedding_weights(correlation, temperature)


def embedding_weights(correlation: ScaledBlocks, temperature: float) -> tuple[Tensor, Tensor]:
    """Compute the LWE weights a [..., P] and b [..., M] of each pair.

    ``a_i = sum_j softmax_i(g_i(corr) / t)`` and ``b_j = sum_i softmax_j(g_j(corr) / t)``, where
    ``g_d`` standardizes along d with the unbiased variance. At an infinite temperature all weights are 1,
    whatever the correlations: no gradient reaches them.
    """
    if temperature == math.inf:  # math.isinf cannot be traced with a symbolic temperature
        raw = correlation.raw
        ones = raw.new_ones(())
        return ones.expand(raw.shape[:-1]), ones.expand(raw.shape[:-2] + raw.shape[-1:])
    if has_pair_kernels(*correlation.raw.shape[-2:], *correlation, operator="embedding_weights"):
        operator = torch.ops.lwfm.embedding_weights.default
        return cast("tuple[Tensor, Tensor]", operator(*correlation, temperature))
    values = correlation.values()
    a = _standardized_softmax(values, -2, temperature).sum(-1)
    b = _standardized_softmax(values, -1, temperature).sum(-2)
    return a, b


def _standardized_softmax(x: Tensor, dim: int, temperature: float) -> Tensor:
    # One position has no unbiased variance; its softmax is 1 whatever the divisor.
    centered = x - x.mean(dim, keepdim=True)
    variance = centered.square().sum(dim, keepdim=True) / max(x.shape[dim] - 1, 1)
    return (centered * ((variance + STANDARDIZE_EPS).rsqrt() / temperature)).softmax(dim)


@register
class EmbeddingWeights:
    """``lwfm::embedding_weights``, of blocks in any layout."""

    name = "embedding_weights"

    @staticmethod
    def fake(raw: Tensor, *_others: Any) -> tuple[Tensor, Tensor]:
        """Allocate a and b."""
        return raw.new_empty(raw.shape[:-1]), raw.new_empty((*raw.shape[:-2], raw.shape[-1]))

    @staticmethod
    def backward_fake(_grad_a: Tensor, _grad_b: Tensor, raw: Tensor, *_others: Any) -> tuple[Tensor, ...]:
        """Allocate the gradients of the blocks: the first in the layout of raw, as csrc/ops does."""
        return torch.empty_like(raw), *EmbeddingWeights.fake(raw)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG004
        """Keep the blocks; the backward operator recomputes the rest."""
        *tensors, ctx.temperature = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate with respect to the blocks."""
        operator = torch.ops.lwfm.embedding_weights_backward.default
        return (*operator(*grads, *ctx.saved_tensors, ctx.temperature), None)
