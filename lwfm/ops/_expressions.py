"""Arithmetic on the P x M block of every (query, support) pair, shared by the operators.

The collapsed form of the mathematics: every quantity of LWFM-SPM that depends on a pair is a function of
the raw correlations ``R = s q^T`` and of norms, so no pair of feature maps is ever expanded. Inputs are
checked by the callers, :mod:`lwfm.ops` and :mod:`lwfm.nn`.

Letters: Q queries, S support images, P support positions, M query positions, C channels.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor

from lwfm import _ops
from lwfm.ops._implementation import has_kernels

COSINE_EPS = 1e-8
"""Smallest norm a cosine divides by, as in torch's ``cosine_similarity``."""
CORRELATION_EPS = 1e-6
"""Added to squared norms in the correlation of layer-wise embedding."""
MAX_PAIR_POSITIONS = _ops.max_pair_positions
"""Positions of both images for which the CUDA kernels have room."""


def compute_dtype(x: Tensor) -> Tensor:
    """Return x in float64 if it is, else in float32: sums over C channels need the mantissa."""
    return x if x.dtype == torch.float64 else x.float()


def raw_correlation(support: Tensor, query: Tensor) -> Tensor:
    """Multiply all positions: support [S, P, C], query [Q, M, C] -> R [Q, S, P, M].

    The result is a strided view of one matrix product.
    """
    (S, P, C), (Q, M, _) = support.shape, query.shape
    product = query.reshape(Q * M, C) @ support.reshape(S * P, C).T  # [Q M, S P]
    return product.view(Q, M, S, P).permute(0, 2, 3, 1)


def inverse_root(square: Tensor) -> Tensor:
    """Compute ``1 / max(|x|, eps)`` from the squared norms |x|^2; 0 for a zero vector, NaN for an overflow.

    The zero makes the cosine of a zero vector 0 *and* keeps 1 / eps out of its gradient.
    """
    root = square.clamp_min(COSINE_EPS**2).rsqrt().masked_fill(square <= 0, 0.0)
    return _nan_of_overflow(root, square)


def squared_norms(x: Tensor) -> Tensor:
    """Compute ``|x|^2`` along the last dimension of x [..., C] -> [...]."""
    square: Tensor = torch.linalg.vecdot(x, x)
    return square


def correlation_scale(squares: Tensor) -> Tensor:
    """Compute ``1 / sqrt(|x|^2 + eps)`` from the squared norms |x|^2; NaN for an overflow."""
    return _nan_of_overflow((squares + CORRELATION_EPS).rsqrt(), squares)


def _nan_of_overflow(scale: Tensor, squares: Tensor) -> Tensor:
    """Return NaN where a squared norm is infinite: 1 / inf would make a correlation of 0 of it."""
    return scale.masked_fill(squares == torch.inf, torch.nan)


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
    """Compute the cosines of the positions of paired images: support [B, P, C], query [B, M, C]."""
    scales = [inverse_root(squared_norms(x)) for x in (support, query)]
    return ScaledBlocks(support @ query.transpose(1, 2), *scales)


def cosine_blocks(support: Tensor, query: Tensor) -> ScaledBlocks:
    """Compute the cosines of the positions of all pairs: support [S, P, C], query [Q, M, C]."""
    scales = [inverse_root(squared_norms(x)) for x in (support, query)]
    return pair_blocks(raw_correlation(support, query), *scales)


def has_pair_kernels(P: int, M: int, *tensors: Tensor, operator: str) -> bool:
    """Return whether kernels process blocks [P, M]: on CUDA only if shared memory has room for them.

    ``tensors`` are those of the operator, as in :func:`has_kernels`.
    """
    fits = tensors[0].device.type != "cuda" or P + M <= MAX_PAIR_POSITIONS
    return fits and has_kernels(*tensors, operator=operator)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Disable autocast on a device, where it is enabled; meta tensors, which only have shapes, know none."""
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
