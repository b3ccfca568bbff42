"""Batches of linear assignment problems on NumPy arrays; part of :mod:`lwfm.lap`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast, overload

import numpy as np

from lwfm import _lap
from lwfm.lap._arguments import as_costs, as_flag, as_limit, as_out, as_threads, as_warm, refuse_masked
from lwfm.lap._forms import as_form, matrices_of, pairs_of, totals_of, weighted
from lwfm.lap._single import Request, solve
from lwfm.lap._time_limit import as_time_limit, time_is_up, unknown_bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from lwfm.lap._arguments import Cols, Reals


def _stacked(costs: object) -> object:
    """Return the matrices of a sequence as one array, or as a list if they do not stack; else ``costs``."""
    if not isinstance(costs, (list, tuple)):
        return costs
    if not costs:
        raise ValueError(
            "costs is an empty sequence, which has no shape: pass np.empty((0, N, M)) for an empty batch"
        )
    for b, cost in enumerate(costs):
        refuse_masked(cost, f"costs[{b}]")
    are_arrays = all(isinstance(cost, np.ndarray) for cost in costs)
    if are_arrays and len({(cost.shape, cost.dtype) for cost in costs}) > 1:
        return list(costs)
    try:
        return np.asarray(costs)
    except ValueError:
        return list(costs)


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
    weights: ArrayLike | None = None,
    pairs: Literal[False] = False,
    as_matrix: Literal[False] = False,
    time_limit: float | None = None,
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
    weights: ArrayLike | None = None,
    pairs: Literal[False] = False,
    as_matrix: Literal[False] = False,
    time_limit: float | None = None,
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
    weights: None = None,
    pairs: Literal[False] = False,
    as_matrix: Literal[False] = False,
    time_limit: float | None = None,
) -> tuple[list[Cols], Reals]: ...
@overload
def solve_batch(
    costs: ArrayLike,
    maximize: bool = False,
    n_threads: int | None = None,
    *,
    cost_limit: float | None = None,
    return_duals: Literal[False] = False,
    warm: ArrayLike | None = None,
    out: None = None,
    weights: ArrayLike | None = None,
    pairs: Literal[True],
    as_matrix: Literal[False] = False,
    time_limit: float | None = None,
) -> tuple[list[Cols], Reals]: ...
@overload
def solve_batch(
    costs: ArrayLike,
    maximize: bool = False,
    n_threads: int | None = None,
    *,
    cost_limit: float | None = None,
    return_duals: Literal[False] = False,
    warm: ArrayLike | None = None,
    out: None = None,
    weights: ArrayLike | None = None,
    pairs: Literal[False] = False,
    as_matrix: Literal[True],
    time_limit: float | None = None,
) -> tuple[NDArray[np.bool_], Reals]: ...


def solve_batch(
    costs: ArrayLike | Sequence[NDArray[Any]],
    maximize: bool = False,
    n_threads: int | None = None,
    *,
    cost_limit: float | None = None,
    return_duals: bool = False,
    warm: ArrayLike | None = None,
    out: tuple[Cols, Reals] | None = None,
    weights: ArrayLike | None = None,
    pairs: bool = False,
    as_matrix: bool = False,
    time_limit: float | None = None,
) -> (
    tuple[Cols, Reals]
    | tuple[list[Cols], Reals]
    | tuple[NDArray[np.bool_], Reals]
    | tuple[Cols, Reals, Reals, Reals]
):
    """Solve a batch of linear assignment problems in parallel.

    Parameters
    ----------
    costs : array_like [B, N, M], or sequence of arrays [N_b, M_b]
        Cost matrices; bool, integer or floating point, of any strides. A float32 or float64 array whose
        longer side is the contiguous one is not copied. ``+inf`` forbids a pair (``-inf`` when maximizing).
        A list of matrices of different shapes or dtypes is a ragged batch.
    maximize : bool
        Maximize the totals instead of minimizing them.
    n_threads : int, optional
        At most this many threads, the calling one among them, and at most :func:`default_threads`, which is
        the default. The answer does not depend on it. They share the problems of a batch; of fewer problems
        than threads, each with 2560 columns or more (of its longer side), they share one after another. Else
        a batch of one starts no thread.
    cost_limit : float, optional
        Make a pair only if it pays: each row and column left unmatched costs half the limit (earns half of
        it, when maximizing), optimized jointly with the pairs, so no pair that costs the limit or more is
        made. The totals are those of the pairs alone. Such a problem is never infeasible. What counts is by
        how much entries differ from the limit, a float64: for integers exact below 2^53; of a limit far above
        all costs, it loses their last digits.
    return_duals : bool
        Also return the dual variables. Not for ragged batches.
    warm : array_like [B, M] of floats, or [B, N] of integers, optional
        Where to start, for costs that change slowly: the column duals ``v`` (floats), or the assignment
        ``cols`` (integers), of similar problems solved before. Duals serve better where they are at hand.
        Any finite numbers and any columns give a right answer, good ones sooner. A hint: it is used for
        square problems without a cost limit of more than 32 columns (duals) or 255 (assignments).
    out : (array [B, N] int64, array [B] float64), optional
        Where to write ``cols`` and ``totals``. After an error their contents are undefined.
    weights : array_like [B, N, M], optional
        Finite factors of the costs, or an array that is broadcast to them: what is minimized is the total of
        the products, in float64, and what the cost limit and the duals are about. The totals returned are
        those of the costs. Forbidden pairs stay forbidden. Not for ragged batches.
    pairs, as_matrix : bool
        Return the pairs of each problem, or matrices that are True at the pairs, in place of ``cols``;
        without duals and ``out``.
    time_limit : float, optional
        Seconds after which to raise :exc:`TimeLimitError`, whose ``bound`` [B] holds what is known about each
        problem: a lower bound (when maximizing: an upper one) on its total (with weights: of the products;
        with a cost limit: and half of it for every unmatched row and column).

    Returns
    -------
    cols : array [B, N], or list of arrays [N_b]
        int64, the column of each row; -1 for a row without one.
    pairs : list of arrays [K_b, 2]
        With ``pairs``, instead: int64, row and column of each pair, by row.
    matrices : array [B, N, M]
        With ``as_matrix``, instead: bool. Not for ragged batches.
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
        Wrong rank, an empty list, an option out of range, an invalid entry or an infeasible problem; the
        message names the first such problem by its batch index.
    TypeError
        The entries are complex numbers, objects or strings; ``costs`` is sparse or has masked entries; an
        option has another type than the one named above.
    TimeLimitError
        The time limit was reached.

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
    maximize, return_duals = as_flag(maximize, "maximize"), as_flag(return_duals, "return_duals")
    threads, limit, seconds = as_threads(n_threads), as_limit(cost_limit), as_time_limit(time_limit)
    form = as_form(pairs, as_matrix)
    if form != "columns" and (return_duals or out is not None):
        raise ValueError("return_duals and out go with columns, not with pairs or matrices")
    stacked = _stacked(costs)
    if isinstance(stacked, list):
        if return_duals or any(each is not None for each in (warm, out, weights)) or form == "matrix":
            raise ValueError(
                "return_duals, warm, out, weights and as_matrix need problems of one shape and dtype"
            )
        arrays = [as_costs(cost, 2, f"costs[{b}]") for b, cost in enumerate(stacked)]
        ragged = _solve_ragged(arrays, Request(maximize, limit, threads, time_limit=seconds))
        if form == "pairs":
            return [pairs_of(cols) for cols in ragged[0]], ragged[1]
        return ragged
    array = as_costs(cast("ArrayLike", stacked), 3, "costs")
    warm_v, warm_columns = as_warm(warm, array.shape)
    request = Request(
        maximize,
        limit,
        threads,
        return_duals,
        warm_v=warm_v,
        warm_columns=warm_columns,
        out=as_out(out, array.shape),
        time_limit=seconds,
    )
    cols, totals, u, v = solve(weighted(array, weights, "costs"), request)
    if weights is not None:
        totals[:] = totals_of(array, cols)
    if form == "pairs":
        return [pairs_of(one) for one in cols], totals
    if form == "matrix":
        return matrices_of(cols, array.shape[2]), totals
    return (cols, totals) if u is None or v is None else (cols, totals, u, v)


def _solve_ragged(arrays: list[NDArray[Any]], request: Request) -> tuple[list[Cols], Reals]:
    """Solve matrices of different shapes and dtypes."""
    columns = [np.empty(len(array), np.int64) for array in arrays]
    totals = np.empty(len(arrays))
    limit = request.time_limit
    bounds = None if limit is None else unknown_bounds(len(arrays), request.maximize)
    in_time = _lap.solve_ragged(
        arrays,
        request.maximize,
        request.cost_limit,
        request.threads,
        "costs",
        columns,
        totals,
        limit,
        bounds,
    )
    if bounds is not None and not in_time:
        raise time_is_up(limit, bounds, single=False)
    return columns, totals
