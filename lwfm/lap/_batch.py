"""Batches of linear assignment problems on NumPy arrays; part of :mod:`lwfm.lap`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np

from lwfm import _lap
from lwfm.lap._single import Request, as_costs, default_threads, solve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Cols: TypeAlias = NDArray[np.int64]
    Reals: TypeAlias = NDArray[np.float64]


def _is_ragged(costs: object) -> bool:
    """Whether ``costs`` is a sequence of matrices that do not stack into one array."""
    if not isinstance(costs, (list, tuple)) or not all(isinstance(cost, np.ndarray) for cost in costs):
        return False
    return len({(cost.shape, cost.dtype) for cost in costs}) > 1


def _limit(cost_limit: float | None) -> float:
    limit = math.inf if cost_limit is None else float(cost_limit)
    if math.isnan(limit) or limit == -math.inf:
        raise ValueError(f"cost_limit must be a finite number, or None or inf for no limit, got {cost_limit}")
    return limit


def _threads(n_threads: int | None) -> int:
    threads = default_threads() if n_threads is None else int(n_threads)
    if threads < 1:
        raise ValueError(f"n_threads must be at least 1, got {n_threads}")
    return threads


def _checked_out(out: tuple[Cols, Reals] | None, shape: tuple[int, ...]) -> tuple[Cols, Reals] | None:
    """Return ``out`` if it can be written to as it is."""
    if out is None:
        return None
    if len(out) != 2:
        raise ValueError("out must be a pair of arrays: (cols, totals)")
    wanted = (("cols", np.int64, shape[:2]), ("totals", np.float64, shape[:1]))
    for array, (name, dtype, size) in zip(out, wanted, strict=True):
        fits = isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == size
        if not fits or not array.flags.c_contiguous or not array.flags.writeable:
            raise ValueError(
                f"out: {name} must be a writeable C-contiguous {np.dtype(dtype)} array of shape {size}"
            )
    return out


def _checked_warm(warm: ArrayLike | None, shape: tuple[int, ...]) -> tuple[Reals | None, Cols | None]:
    """Return the column duals or the columns of each row to start from, whichever ``warm`` holds."""
    if warm is None:
        return None, None
    if np.asarray(warm).dtype.kind in "iu":
        columns = np.ascontiguousarray(warm, dtype=np.int64)
        if columns.shape != shape[:2]:
            raise ValueError(f"warm must hold columns of shape {shape[:2]} [B, N], got {columns.shape}")
        if columns.size and (columns.min() < -1 or columns.max() >= shape[2]):
            raise ValueError(f"warm must hold columns from 0 to {shape[2] - 1}, or -1 for none")
        return None, columns
    duals = np.ascontiguousarray(warm, dtype=np.float64)
    if duals.shape != (shape[0], shape[2]):
        raise ValueError(
            f"warm must hold column duals of shape {(shape[0], shape[2])} [B, M], got {duals.shape}"
        )
    if not np.isfinite(duals).all():
        raise ValueError("warm must be finite")
    return duals, None


@overload
def solve_batch(
    costs: ArrayLike,
    maximize: bool = False,
    n_threads: int | None = None,
    *,
    cost_limit: float | None = None,
    return_duals: Literal[False] = False,
    warm: ArrayLike | None = None,
    out: tuple[Cols, Reals] | None = None,
) -> tuple[Cols, Reals]: ...
@overload
def solve_batch(
    costs: ArrayLike,
    maximize: bool = False,
    n_threads: int | None = None,
    *,
    cost_limit: float | None = None,
    return_duals: Literal[True],
    warm: ArrayLike | None = None,
    out: tuple[Cols, Reals] | None = None,
) -> tuple[Cols, Reals, Reals, Reals]: ...
@overload
def solve_batch(
    costs: Sequence[NDArray[Any]],
    maximize: bool = False,
    n_threads: int | None = None,
    *,
    cost_limit: float | None = None,
    return_duals: Literal[False] = False,
    warm: None = None,
    out: None = None,
) -> tuple[list[Cols], Reals]: ...


def solve_batch(
    costs: ArrayLike | Sequence[NDArray[Any]],
    maximize: bool = False,
    n_threads: int | None = None,
    *,
    cost_limit: float | None = None,
    return_duals: bool = False,
    warm: ArrayLike | None = None,
    out: tuple[Cols, Reals] | None = None,
) -> tuple[Cols, Reals] | tuple[list[Cols], Reals] | tuple[Cols, Reals, Reals, Reals]:
    """Solve a batch of linear assignment problems in parallel.

    Parameters
    ----------
    costs : array_like [B, N, M], or sequence of arrays [N_b, M_b]
        Cost matrices; bool, integer or floating point, of any strides. A float32 or float64 array whose
        longer side is the contiguous one is not copied. ``+inf`` forbids a pair (``-inf`` when maximizing).
        A list of arrays of different shapes or dtypes is a ragged batch.
    maximize : bool
        Maximize the totals instead of minimizing them.
    n_threads : int, optional
        At most this many threads, the calling one among them; by default :func:`default_threads`. The answer
        does not depend on it. They share the problems of a batch; of fewer problems than threads, each with
        2560 columns or more (of its longer side), they share one after another. Else a batch of one starts
        no thread.
    cost_limit : float, optional
        Make a pair only if it pays: each row and column left unmatched costs half the limit (earns half of
        it, when maximizing), optimized jointly with the pairs, so no pair that costs the limit or more is
        made. The totals are those of the pairs alone. Such a problem is never infeasible.
    return_duals : bool
        Also return the dual variables. Not for ragged batches.
    warm : array_like [B, M] of floats, or [B, N] of integers, optional
        What to start from, for costs that change slowly: the column duals ``v`` (floats), or the assignment
        ``cols`` (integers), of similar problems solved before. Duals serve better where they are at hand.
        Any finite numbers and any columns give a right answer, good ones sooner. A hint: it is used for
        square problems without a cost limit of more than 32 columns (duals) or 255 (assignments).
    out : (array [B, N] int64, array [B] float64), optional
        Where to write ``cols`` and ``totals``. After an error their contents are undefined.

    Returns
    -------
    cols : array [B, N], or list of arrays [N_b]
        int64, the column of each row; -1 for a row without one.
    totals : array [B]
        float64, the total of each problem, summed in float64 in the order of the rows.
    u, v : array [B, N], array [B, M]
        With ``return_duals``: float64, ``u[b, i] + v[b, j] <= costs[b, i, j]`` (``>=`` when maximizing), with
        equality on the pairs, up to rounding. Duals of the longer side are at most 0 (at least, when
        maximizing) and 0 where unmatched. With a cost limit, duals of both sides are at most half of it (at
        least), and equal it where unmatched. The sum of all duals (with a limit: less half of it for every
        unmatched row and column) is the total, which proves that it is optimal.

    Raises
    ------
    ValueError
        Wrong rank, an option out of range, an invalid entry or an infeasible problem; the message names the
        first such problem by its batch index.
    TypeError
        The entries are complex numbers, objects or strings.

    Examples
    --------
    >>> import numpy as np
    >>> from lwfm.lap import solve_batch
    >>> costs = np.array([[[4, 1, 9], [2, 0, 6]], [[1, 2, 3], [2, 9, 9]]])
    >>> cols, totals = solve_batch(costs)
    >>> cols.tolist(), totals.tolist()
    ([[1, 0], [1, 0]], [3.0, 4.0])
    >>> solve_batch(costs, cost_limit=2)[0].tolist()  # only pairs that cost less than 2
    [[-1, 1], [0, -1]]
    >>> [c.tolist() for c in solve_batch([np.eye(2), np.eye(3)[:1]])[0]]
    [[1, 0], [1]]
    """
    threads, limit = _threads(n_threads), _limit(cost_limit)
    if _is_ragged(costs):
        if return_duals or warm is not None or out is not None:
            raise ValueError("return_duals, warm and out need problems of one shape and dtype")
        arrays = [as_costs(cost, 2, f"costs[{b}]") for b, cost in enumerate(costs)]  # type: ignore[arg-type]
        columns = [np.empty(len(array), np.int64) for array in arrays]
        ragged_totals = np.empty(len(arrays))
        _lap.solve_ragged(arrays, bool(maximize), limit, threads, "costs", columns, ragged_totals)
        return columns, ragged_totals
    array = as_costs(costs, 3, "costs")
    warm_v, warm_columns = _checked_warm(warm, array.shape)
    request = Request(
        maximize,
        limit,
        threads,
        return_duals,
        warm_v=warm_v,
        warm_columns=warm_columns,
        out=_checked_out(out, array.shape),
    )
    cols, totals, u, v = solve(array, request)
    return (cols, totals) if u is None or v is None else (cols, totals, u, v)
