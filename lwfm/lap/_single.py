"""Single linear assignment problems on NumPy arrays; part of :mod:`lwfm.lap`."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from lwfm import _lap
from lwfm.lap._arguments import as_costs, as_flag
from lwfm.lap._forms import as_form, matrices_of, pairs_of, weighted
from lwfm.lap._time_limit import as_time_limit, time_is_up, unknown_bounds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lwfm.lap._arguments import Cols, Reals


def simd_level() -> str:
    """Return the name of the widest vector code that this build uses on this processor.

    Examples
    --------
    >>> from lwfm.lap import simd_level
    >>> simd_level() in ("portable", "avx2", "avx512")
    True
    """
    return _lap.simd_level()


@dataclasses.dataclass(frozen=True)
class Request:
    """Options and output arrays of one call of the solver, checked."""

    maximize: bool = False
    cost_limit: float = math.inf
    threads: int = 1
    duals: bool = False
    warm_v: Reals | None = None
    warm_columns: Cols | None = None
    out: tuple[Cols, Reals] | None = None
    name: str = "costs"
    single: bool = False
    time_limit: float | None = None


def solve(array: NDArray[Any], request: Request) -> tuple[Cols, Reals, Reals | None, Reals | None]:
    """Solve costs [B, N, M] from ``as_costs``; return cols [B, N], totals [B], u [B, N], v [B, M].

    Raises TimeLimitError if that takes too long.
    """
    count, rows, columns = array.shape
    cols, totals = request.out or (np.empty((count, rows), np.int64), np.empty(count))
    u = np.empty((count, rows)) if request.duals else None
    v = np.empty((count, columns)) if request.duals else None
    limit = request.time_limit
    bounds = None if limit is None else unknown_bounds(count, request.maximize)
    in_time = _lap.solve(
        array,
        request.maximize,
        request.cost_limit,
        request.threads,
        request.name,
        request.single,
        cols,
        totals,
        u,
        v,
        request.warm_v,
        request.warm_columns,
        limit,
        bounds,
    )
    if bounds is not None and not in_time:
        raise time_is_up(limit, bounds, request.single)
    return cols, totals, u, v


@overload
def linear_sum_assignment(
    cost_matrix: ArrayLike,
    maximize: bool = False,
    *,
    weights: ArrayLike | None = None,
    pairs: Literal[False] = False,
    as_matrix: Literal[False] = False,
    time_limit: float | None = None,
) -> tuple[Cols, Cols]: ...
@overload
def linear_sum_assignment(
    cost_matrix: ArrayLike,
    maximize: bool = False,
    *,
    weights: ArrayLike | None = None,
    pairs: Literal[True],
    as_matrix: Literal[False] = False,
    time_limit: float | None = None,
) -> Cols: ...
@overload
def linear_sum_assignment(
    cost_matrix: ArrayLike,
    maximize: bool = False,
    *,
    weights: ArrayLike | None = None,
    pairs: Literal[False] = False,
    as_matrix: Literal[True],
    time_limit: float | None = None,
) -> NDArray[np.bool_]: ...


def linear_sum_assignment(
    cost_matrix: ArrayLike,
    maximize: bool = False,
    *,
    weights: ArrayLike | None = None,
    pairs: bool = False,
    as_matrix: bool = False,
    time_limit: float | None = None,
) -> tuple[Cols, Cols] | Cols | NDArray[np.bool_]:
    """Solve one linear assignment problem, as ``scipy.optimize.linear_sum_assignment`` does.

    Parameters
    ----------
    cost_matrix : array_like [N, M]
        Cost of pairing row ``i`` with column ``j``: bool, integer or floating point. ``+inf`` forbids a pair
        (``-inf`` when maximizing).
    maximize : bool
        Maximize the total instead of minimizing it.
    weights : array_like [N, M], optional
        Finite factors of the costs, or an array that is broadcast to them, as ``[N, 1]`` for the rows: what
        is minimized is the total of the products, in float64. Forbidden pairs stay forbidden.
    pairs : bool
        Return one array of pairs.
    as_matrix : bool
        Return a matrix that is True at the pairs.
    time_limit : float, optional
        Seconds after which to raise :exc:`TimeLimitError`, whose ``bound`` is a lower bound on the total (of
        the products, with weights), or an upper one when maximizing.

    Returns
    -------
    row_ind, col_ind : array [min(N, M)], array [min(N, M)]
        int64, ``row_ind`` sorted; row ``row_ind[k]`` is paired with column ``col_ind[k]``. The total is
        ``cost_matrix[row_ind, col_ind].sum()``.
    pairs : array [min(N, M), 2]
        With ``pairs``, instead: int64, row and column of each pair.
    matrix : array [N, M]
        With ``as_matrix``, instead: bool.

    Raises
    ------
    ValueError
        ``cost_matrix`` is not two-dimensional, has a NaN or an infinity of the wrong sign (the message
        names the entry), or is infeasible; ``weights`` does not fit or is not finite; ``pairs`` and
        ``as_matrix`` are both True.
    TypeError
        The entries are complex numbers, objects or strings; ``cost_matrix`` is sparse or has masked entries;
        an option has another type than the one named above.
    TimeLimitError
        The time limit was reached.

    Examples
    --------
    >>> import numpy as np
    >>> from lwfm.lap import linear_sum_assignment
    >>> cost = np.array([[4, 1, 3], [2, 0, 5], [3, 2, 2]])
    >>> row_ind, col_ind = linear_sum_assignment(cost)
    >>> col_ind.tolist(), int(cost[row_ind, col_ind].sum())
    ([1, 0, 2], 5)
    >>> linear_sum_assignment(cost, pairs=True).tolist()
    [[0, 1], [1, 0], [2, 2]]
    >>> linear_sum_assignment(cost, weights=[[1], [5], [1]])[1].tolist()  # the second row counts most
    [0, 1, 2]
    """
    form = as_form(pairs, as_matrix)
    request = Request(
        as_flag(maximize, "maximize"), name="cost_matrix", single=True, time_limit=as_time_limit(time_limit)
    )
    cost = weighted(as_costs(cost_matrix, 2, "cost_matrix"), weights, "cost_matrix")
    cols, _, _, _ = solve(cost[np.newaxis], request)
    if form == "pairs":
        return pairs_of(cols[0])
    if form == "matrix":
        return matrices_of(cols[0], cost.shape[1])
    row_ind = np.flatnonzero(cols[0] >= 0).astype(np.int64, copy=False)
    return row_ind, cols[0][row_ind]


def lapjv(
    cost: ArrayLike, verbose: object = 0, force_doubles: object = False, *, time_limit: float | None = None
) -> tuple[Cols, Cols, tuple[float, Reals, Reals]]:
    """Solve one square problem, with dual variables, as ``lapjv.lapjv`` does.

    Parameters
    ----------
    cost : array_like [N, N]
        Cost of pairing row ``i`` with column ``j``. ``+inf`` forbids a pair.
    verbose, force_doubles : object
        Accepted for compatibility, without effect: nothing is printed; sums and duals are always float64, and
        float64 and integer input is never rounded to float32.
    time_limit : float, optional
        Seconds after which to raise :exc:`TimeLimitError`, whose ``bound`` is a lower bound on the total.

    Returns
    -------
    row_ind : array [N]
        int64, the column of each row.
    col_ind : array [N]
        int64, the row of each column.
    (total, u, v) : float, array [N], array [N]
        The smallest total, and the dual variables of rows and columns, float64:
        ``u[i] + v[j] <= cost[i, j]``, with equality on the assigned pairs, up to rounding. They prove that
        the assignment is optimal, and ``u.sum() + v.sum()`` is the total.

    Raises
    ------
    ValueError
        ``cost`` is not a square matrix, has a NaN or ``-inf``, or is infeasible; ``time_limit`` is out of
        range.
    TypeError
        The entries are complex numbers, objects or strings; ``cost`` is sparse or has masked entries.
    TimeLimitError
        The time limit was reached.

    Examples
    --------
    >>> from lwfm.lap import lapjv
    >>> row_ind, col_ind, (total, u, v) = lapjv([[4, 1, 3], [2, 0, 5], [3, 2, 2]])
    >>> row_ind.tolist(), col_ind.tolist(), total, float(u.sum() + v.sum())
    ([1, 0, 2], [1, 0, 2], 5.0, 5.0)
    """
    del verbose, force_doubles
    array = as_costs(cost, 2, "cost")
    if array.shape[0] != array.shape[1]:
        raise ValueError(
            f"cost must be a square matrix, got shape {array.shape}; linear_sum_assignment takes rectangles"
        )
    request = Request(duals=True, name="cost", single=True, time_limit=as_time_limit(time_limit))
    cols, totals, u, v = solve(array[np.newaxis], request)
    row_ind = cols[0]
    col_ind = np.empty_like(row_ind)
    col_ind[row_ind] = np.arange(len(row_ind))
    assert u is not None and v is not None  # noqa: S101, PT018 - asked for above
    return row_ind, col_ind, (float(totals[0]), u[0], v[0])
