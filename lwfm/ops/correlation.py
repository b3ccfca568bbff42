"""All (query, support) pairs of one layer in one operator, for inference.

``lwfm::correlation`` multiplies the positions of all images, weighs them (LWE), assigns them and compares
the matched ones (SPM). On CUDA it is one kernel, and no tensor of S x Q x P x P or S x Q x C numbers is ever
written; elsewhere it calls the other operators in turn. It cannot be differentiated.

Letters: Q queries, S support images, P support positions, M query positions, C and D channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from lwfm import _ops
from lwfm.ops._expressions import (
    compute_dtype,
    correlation_scale,
    inverse_root,
    pair_blocks,
    raw_correlation,
    squared_norms,
)
from lwfm.ops._implementation import has_kernels
from lwfm.ops._register import refusal
from lwfm.ops.embedding_weights import embedding_weights
from lwfm.ops.feature_matching import feature_matching

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ASSIGNED_POSITIONS = _ops.max_assigned_positions
"""Positions of an image that one warp assigns."""
ONE_KERNEL_PRODUCTS = 2**19
"""Inner products of all pairs up to which one kernel is faster; beyond, matrix units are."""


class PairTerms(NamedTuple):
    """Weights and matches of all pairs of one layer; float64 for float64 features, else float32."""

    a: Tensor
    """[Q, S, P]: LWE weights of the support positions."""
    b: Tensor
    """[Q, S, M]: LWE weights of the query positions."""
    similarity: Tensor
    """[Q, S]: mean of the ``top_k`` largest cosines of matched positions; empty without matching."""
    assignment: Tensor
    """[Q, S, P] int64: the query position of each support position, -1 for none; empty without matching."""


def is_one_kernel(support: Tensor, query: Tensor, others: Sequence[Tensor] = ()) -> bool:
    """Return whether :func:`correlate` is one kernel for these features: faster, and without gradients.

    ``others`` are further tensors that a gradient might be recorded for.
    """
    recorded = torch.is_grad_enabled() and any(x.requires_grad for x in (support, query, *others))
    (S, P, _), (Q, M, _) = support.shape, query.shape
    fits = max(P, M) <= MAX_ASSIGNED_POSITIONS and S * P * Q * M <= ONE_KERNEL_PRODUCTS
    return support.device.type == "cuda" and has_kernels(support, query, *others) and fits and not recorded


def correlate(
    support: Tensor,
    query: Tensor,
    *,
    support_compared: Tensor | None = None,
    query_compared: Tensor | None = None,
    temperature: float,
    top_k: int | None = None,
    matching: bool = True,
) -> PairTerms:
    """Correlate, weigh and match every support image with every query of one layer.

    Parameters
    ----------
    support, query : Tensor
        [S, P, C] and [Q, M, C], P and M 1 to 32, of any strides; float16, bfloat16, float32 or float64.
    support_compared, query_compared : Tensor, optional
        [S, P, D] and [Q, M, D]: what matched positions are compared by. Default: ``support``, ``query``.
    temperature : float
        Softens the softmax of the LWE weights.
    top_k : int or None
        How many matched pairs are averaged; None for all.
    matching : bool
        Whether to assign and compare; without, only the weights are computed.

    Returns
    -------
    PairTerms
        A pair with NaN features has NaN weights and similarity; on CUDA nothing waits for the device to
        find one, so its assignment is -1 there and no error is raised.

    Raises
    ------
    ValueError
        For a wrong shape, dtype, device or ``top_k``; on the CPU also for NaN features, naming the pair.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops.correlation import correlate
    >>> support, query = torch.rand(5, 9, 16), torch.rand(3, 9, 16)
    >>> terms = correlate(support, query, temperature=5.0, top_k=1)
    >>> terms.a.shape, terms.similarity.shape
    (torch.Size([3, 5, 9]), torch.Size([3, 5]))
    """
    compared = (
        support if support_compared is None else support_compared,
        query if query_compared is None else query_compared,
    )
    pairs = min(support.shape[1], query.shape[1])
    count = 0 if not matching else pairs if top_k is None else top_k
    return PairTerms(*torch.ops.lwfm.correlation.default(support, query, *compared, temperature, count))


def _correlation_in_steps(
    support: Tensor,
    query: Tensor,
    support_compared: Tensor,
    query_compared: Tensor,
    temperature: float,
    top_k: int,
) -> tuple[Tensor, ...]:
    support, query = compute_dtype(support), compute_dtype(query)
    raw = raw_correlation(support, query)
    squares = squared_norms(support), squared_norms(query)
    weights = embedding_weights(pair_blocks(raw, *map(correlation_scale, squares)), temperature)
    if top_k == 0:
        return *weights, raw.new_empty(0), raw.new_empty(0, dtype=torch.int64)
    cosines = pair_blocks(raw, *map(inverse_root, squares))
    compared = compute_dtype(support_compared), compute_dtype(query_compared)
    return *weights, *feature_matching(cosines, *compared, top_k)


def _fake(
    support: Tensor,
    query: Tensor,
    _support_compared: Tensor,
    _query_compared: Tensor,
    _temperature: float,
    top_k: int,
) -> tuple[Tensor, ...]:
    (S, P, _), (Q, M, _) = support.shape, query.shape
    dtype = torch.float64 if support.dtype == torch.float64 else torch.float32
    shapes = [(Q, S, P), (Q, S, M), (Q, S) if top_k else (0,)]
    assignment = support.new_empty((Q, S, P) if top_k else (0,), dtype=torch.int64)
    return *(support.new_empty(shape, dtype=dtype) for shape in shapes), assignment


_NO_GRADIENT = (
    "lwfm::correlation is for inference and cannot be differentiated; lwfm.ops.layer_wise_embedding and "
    "lwfm.ops.semantic_pixel_matching can"
)
torch.library.impl("lwfm::correlation", "CPU")(_correlation_in_steps)
torch.library.register_fake("lwfm::correlation", _fake)
torch.library.register_autograd("lwfm::correlation", refusal(_NO_GRADIENT))
