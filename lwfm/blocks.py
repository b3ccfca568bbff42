"""Arithmetic on the P x M block of every (query, support) pair, as tensor expressions.

The collapsed form of the mathematics: every quantity of LWFM-SPM that depends on a pair is a function of
the raw correlations ``R = s q^T`` and of norms, so no pair of feature maps is ever expanded. Used by
:mod:`lwfm.ops` and :mod:`lwfm.nn`; inputs are already checked there.

Letters: Q queries, S support pictures, P support positions, M query positions, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

COSINE_EPS = 1e-8
"""Smallest norm a cosine divides by, as in torch's ``cosine_similarity``."""
CORRELATION_EPS = 1e-6
"""Added to squared norms in the correlation of layer-wise embedding."""
STANDARDISE_EPS = 1e-5
"""Added to the variance when correlations are standardised."""


def compute_dtype(x: Tensor) -> Tensor:
    """Float64 as it is, everything else as float32: sums over C channels need the mantissa."""
    return x if x.dtype == torch.float64 else x.float()


def raw_correlation(support: Tensor, query: Tensor) -> Tensor:
    """Inner products of all positions: support [S, P, C], query [Q, M, C] -> R [Q, S, P, M].

    The result is a strided view of one matrix product.
    """
    (S, P, C), (Q, M, _) = support.shape, query.shape
    product = support.reshape(S * P, C) @ query.reshape(Q * M, C).T  # [S P, Q M]
    return product.view(S, P, Q, M).permute(2, 0, 1, 3)


def inverse_root(square: Tensor) -> Tensor:
    """``1 / max(|x|, eps)`` from the squared norms |x|^2; 0 for a zero vector.

    The zero makes the cosine of a zero vector 0 *and* keeps 1 / eps out of its gradient.
    """
    return square.clamp_min(COSINE_EPS**2).rsqrt().masked_fill(square <= 0, 0.0)


def inverse_norm(x: Tensor) -> Tensor:
    """``1 / max(|x|, eps)`` along the last dimension of x [..., C] -> [...]; 0 for a zero vector."""
    return inverse_root(x.square().sum(-1))


def pair_cosines(raw: Tensor, support: Tensor, query: Tensor) -> Tensor:
    """Cosines of all positions from R [Q, S, P, M] of support [S, P, C] and query [Q, M, C]."""
    return raw * inverse_norm(support)[None, :, :, None] * inverse_norm(query)[:, None, None, :]


def paired_cosines(support: Tensor, query: Tensor) -> Tensor:
    """Cosines of the positions of paired pictures: support [B, P, C], query [B, M, C] -> [B, P, M]."""
    raw = support @ query.transpose(1, 2)
    return raw * inverse_norm(support)[:, :, None] * inverse_norm(query)[:, None, :]


def embedding_weights(
    raw: Tensor, support: Tensor, query: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """LWE weights from R [Q, S, P, M] of support [S, P, C], query [Q, M, C] -> a [Q, S, P], b [Q, S, M].

    ``a_i = sum_j softmax_i(g_i(corr) / t)`` and ``b_j = sum_i softmax_j(g_j(corr) / t)``, where
    ``g_d`` standardises along d with the unbiased variance.
    """
    scale_s = (support.square().sum(-1) + CORRELATION_EPS).rsqrt()  # [S, P]
    scale_q = (query.square().sum(-1) + CORRELATION_EPS).rsqrt()  # [Q, M]
    correlation = raw * scale_s[None, :, :, None] * scale_q[:, None, None, :]
    a = _standardised_softmax(correlation, -2, temperature).sum(-1)
    b = _standardised_softmax(correlation, -1, temperature).sum(-2)
    return a, b


def _standardised_softmax(x: Tensor, dim: int, temperature: float) -> Tensor:
    # One position has no unbiased variance; its softmax is 1 whatever the divisor.
    centred = x - x.mean(dim, keepdim=True)
    variance = centred.square().sum(dim, keepdim=True) / max(x.shape[dim] - 1, 1)
    return (centred * ((variance + STANDARDISE_EPS).rsqrt() / temperature)).softmax(dim)


def matched_similarity(cosines: Tensor, assignment: Tensor, top_k: int | None) -> Tensor:
    """Mean of the ``top_k`` largest matched cosines (None: of all matched pairs).

    Cosines [..., P, M] and assignment [..., P] (-1 where unmatched) -> [...].
    """
    pairs = min(cosines.shape[-2:])
    matched = cosines.gather(-1, assignment.clamp_min(0).unsqueeze(-1)).squeeze(-1)  # [..., P]
    unmatched = assignment < 0
    if top_k is None or top_k == pairs:
        return matched.masked_fill(unmatched, 0.0).sum(-1) / pairs
    return matched.masked_fill(unmatched, -torch.inf).topk(top_k, dim=-1).values.mean(-1)
