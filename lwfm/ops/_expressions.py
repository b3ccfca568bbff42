"""Arithmetic on the P x M block of every (query, support) pair, shared by the operators.

The collapsed form of the mathematics: every quantity of LWFM-SPM that depends on a pair is a function of
the raw correlations ``R = s q^T`` and of norms, so no pair of feature maps is ever expanded. Inputs are
checked by the callers, :mod:`lwfm.ops` and :mod:`lwfm.nn`.

Letters: Q queries, S support images, P support positions, M query positions, C channels.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lwfm import _ops
from lwfm.ops._implementation import bound, has_kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

COSINE_EPS = 1e-8
"""Smallest norm a cosine divides by, as in torch's ``cosine_similarity``."""
CORRELATION_EPS = 1e-6
"""Added to squared norms in the correlation of layer-wise embedding."""
MAX_PAIR_POSITIONS = _ops.max_pair_positions
"""Positions of both images for which the CUDA kernels have room."""
PAIR_BYTES = 64 * 2**20
"""Budget for the blocks of all pairs that exist at once; more queries are processed in chunks."""
RECORDED_PAIR_BYTES = 256 * 2**20
"""The same where gradients are recorded: a second chunk means that pairs are computed twice."""


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


def has_pair_kernels(raw: Tensor, *others: Tensor) -> bool:
    """Return whether kernels process blocks [..., P, M]: on CUDA only if shared memory has room for them.

    ``others`` are the further tensors of the operator, as in :func:`has_kernels`.
    """
    fits = raw.device.type != "cuda" or sum(raw.shape[-2:]) <= MAX_PAIR_POSITIONS
    return fits and has_kernels(raw, *others)


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Disable autocast on a device; meta tensors, which only have shapes, know none."""
    if device.type == "meta":
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)


def over_queries(
    function: Callable[..., tuple[Tensor, ...]],
    queries: Sequence[Tensor],
    query_bytes: int,
    others: Sequence[Tensor] = (),
    numbers: Sequence[float] = (),
) -> tuple[Tensor, ...]:
    """Call ``function`` on chunks of query images and concatenate what it returns.

    ``queries`` are tensors [Q, ...]; a chunk has as many images as fit in the budget at ``query_bytes``
    each: ``PAIR_BYTES``, or ``RECORDED_PAIR_BYTES`` where gradients are recorded. There a chunk is recomputed
    in the backward pass instead of kept, so extra memory does not grow with Q. ``others`` are further
    tensors of the caller that ``function`` reads, weights among them: the backward pass refuses them and the
    queries once they have been modified in place. ``numbers`` are further numbers that it reads. Errors name
    a query by its number among all.

    torch.compile cannot trace recomputation with symbolic sizes or numbers (``dynamic=True``, a second
    temperature): all queries are one chunk there if gradients are recorded.
    """
    recorded = torch.is_grad_enabled()
    chunk = max(1, (RECORDED_PAIR_BYTES if recorded else PAIR_BYTES) // max(1, query_bytes))
    Q = queries[0].shape[0]  # not len(), which would make torch.export fix it
    one_chunk = recorded and torch.compiler.is_compiling() and _any_symbolic(query_bytes, *numbers)
    if chunk >= Q or one_chunk:
        return function(*queries)
    parts: list[tuple[Tensor, ...]] = []
    recomputed = bound(_refusing_changes(function, (*queries, *others)))
    for begin in range(0, Q, chunk):
        pieces = [x[begin : begin + chunk] for x in queries]
        with _queries_counted_from(begin):
            if recorded:
                parts.append(checkpoint(recomputed, *pieces, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(function(*pieces))
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _queries_counted_from(begin: int) -> contextlib.AbstractContextManager[None]:
    """Correct the number of the query in the errors of a chunk, which begins with query ``begin``."""
    # Compiled operators raise their errors without this code.
    return contextlib.nullcontext() if torch.compiler.is_compiling() else _renumbered(begin)


@contextlib.contextmanager
def _renumbered(begin: int) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        message = re.sub(r"(?<=cost\[)\d+", lambda number: str(begin + int(number[0])), str(error))
        raise ValueError(message) from None


def _any_symbolic(*numbers: float) -> bool:
    """Return whether a size or another number has no value while compiling."""
    from torch.fx.experimental.symbolic_shapes import has_static_value  # imports sympy, 0.4 s

    return not all(has_static_value(number) for number in numbers)


def _refusing_changes(
    function: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor]
) -> Callable[..., tuple[Tensor, ...]]:
    """Return ``function``, which raises as torch does once one of the ``tensors`` was modified in place.

    torch compares versions of the tensors that autograd saves, but not of what is recomputed instead.
    """
    if torch.compiler.is_compiling():
        return function  # a compiled graph saves its inputs, so torch compares them itself
    tracked = [x for x in tensors if not x.is_inference()]
    versions = [x._version for x in tracked]

    def call(*arguments: Tensor) -> tuple[Tensor, ...]:
        if versions != [x._version for x in tracked]:
            raise RuntimeError(
                "features or weights needed for gradient computation have been modified by an inplace "
                "operation since they were matched: match a copy (clone()) instead"
            )
        return function(*arguments)

    return call
