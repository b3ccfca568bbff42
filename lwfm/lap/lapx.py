"""The functions of ``lapx`` (and ``lap``) by the same names, with the same arguments and results.

Import them in place of those, ``from lwfm.lap import lapx as lap``. What is different: integers are solved
exactly, NaN and ``-inf`` are errors, of several optimal assignments another one may be found, and where
forbidden (infinite) pairs leave no complete assignment, the total is ``inf`` and nothing is assigned. A
``time_limit`` is an argument of the other functions of :mod:`lwfm.lap`.
"""

from __future__ import annotations

import math
import operator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from lwfm.lap._arguments import as_array, as_costs, as_flag, as_limit, as_real
from lwfm.lap._single import Request, solve
from lwfm.lap._sparse import allowed_pairs

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import ArrayLike, NDArray

    from lwfm.lap._arguments import Cols

    Indices: TypeAlias = NDArray[np.int32]

__all__ = ["lapjv", "lapjvx", "lapjvxa", "lapmod"]


def _solve(cost: ArrayLike, extend_cost: object, cost_limit: float) -> tuple[float, Cols, int]:
    """Return the total, the column of each row, -1 for none, and the number of columns."""
    array = as_costs(cost, 2, "cost")
    limit, extend = as_limit(cost_limit), as_flag(extend_cost, "extend_cost")
    if array.shape[0] != array.shape[1] and not extend and math.isinf(limit):
        raise ValueError(
            f"cost must be square, got shape {array.shape}: pass extend_cost=True or a cost_limit to allow "
            "rectangles"
        )
    try:
        cols, totals, _, _ = solve(array[np.newaxis], Request(cost_limit=limit, name="cost", single=True))
    except ValueError as error:
        if "infeasible" not in str(error):  # the word of core/assignment/error_message.h
            raise
        return math.inf, np.full(len(array), -1), array.shape[1]
    return float(totals[0]), cols[0], array.shape[1]


def _inverse(cols: Cols, columns: int) -> Indices:
    """Return the row of each column, -1 for none."""
    rows = np.flatnonzero(cols >= 0)
    inverse = np.full(columns, -1, np.int32)
    inverse[cols[rows]] = rows
    return inverse


def _pairs(cols: Cols, columns: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return rows and columns of the pairs, in the order of the shorter side."""
    if len(cols) <= columns:
        rows = np.flatnonzero(cols >= 0).astype(np.int64, copy=False)
        return rows, cols[rows].astype(np.int32)
    inverse = _inverse(cols, columns)
    chosen = np.flatnonzero(inverse >= 0).astype(np.int64, copy=False)
    return inverse[chosen], chosen


@overload
def lapjv(
    cost: ArrayLike,
    extend_cost: bool = False,
    cost_limit: float = math.inf,
    return_cost: Literal[True] = True,
) -> tuple[float, Indices, Indices]: ...
@overload
def lapjv(
    cost: ArrayLike, extend_cost: bool = False, cost_limit: float = math.inf, *, return_cost: Literal[False]
) -> tuple[Indices, Indices]: ...


def lapjv(
    cost: ArrayLike, extend_cost: bool = False, cost_limit: float = math.inf, return_cost: bool = True
) -> tuple[float, Indices, Indices] | tuple[Indices, Indices]:
    """Solve one problem, as ``lap.lapjv`` does.

    Parameters
    ----------
    cost : array_like [N, M]
        Cost of pairing row ``i`` with column ``j``; ``+inf`` forbids a pair.
    extend_cost : bool
        Allow rectangles: the longer side stays partly unassigned.
    cost_limit : float
        Make a pair only if it costs less than this pays, optimized jointly: each row and column left
        unmatched costs half of it. Rectangles are then allowed.
    return_cost : bool
        Return the total first.

    Returns
    -------
    total : float
        The total of the pairs; ``inf`` if there is no complete assignment.
    x : array [N]
        int32, the column of each row, -1 for none.
    y : array [M]
        int32, the row of each column, -1 for none.

    Raises
    ------
    ValueError
        ``cost`` is not a matrix, or a rectangle that was not allowed, or has a NaN or ``-inf``; the limit is
        NaN.
    TypeError
        ``cost`` is not numbers, or is sparse or masked; an option has another type than the one named above.

    Examples
    --------
    >>> from lwfm.lap import lapx
    >>> total, x, y = lapx.lapjv([[4, 1, 3], [2, 0, 5]], extend_cost=True)
    >>> total, x.tolist(), y.tolist()
    (3.0, [1, 0], [1, 0, -1])
    >>> lapx.lapjv([[4, 1, 3], [2, 0, 5]], cost_limit=1.5, return_cost=False)[0].tolist()
    [-1, 1]
    """
    with_cost = as_flag(return_cost, "return_cost")
    total, cols, columns = _solve(cost, extend_cost, cost_limit)
    x, y = cols.astype(np.int32), _inverse(cols, columns)
    return (total, x, y) if with_cost else (x, y)


@overload
def lapjvx(
    cost: ArrayLike,
    extend_cost: bool = False,
    cost_limit: float = math.inf,
    return_cost: Literal[True] = True,
) -> tuple[float, NDArray[Any], NDArray[Any]]: ...
@overload
def lapjvx(
    cost: ArrayLike, extend_cost: bool = False, cost_limit: float = math.inf, *, return_cost: Literal[False]
) -> tuple[NDArray[Any], NDArray[Any]]: ...


def lapjvx(
    cost: ArrayLike, extend_cost: bool = False, cost_limit: float = math.inf, return_cost: bool = True
) -> tuple[float, NDArray[Any], NDArray[Any]] | tuple[NDArray[Any], NDArray[Any]]:
    """Solve one problem, as ``lap.lapjvx`` does: :func:`lapjv` with the answer in SciPy's form.

    Parameters
    ----------
    cost, extend_cost, cost_limit, return_cost
        As for :func:`lapjv`.

    Returns
    -------
    total : float
        As of :func:`lapjv`.
    rows, columns : array [K], array [K]
        The rows that have a column, in order, int64, and their columns, int32. If there are more rows than
        columns, in the order of the columns: then these are int64 and the rows int32.

    Raises
    ------
    ValueError, TypeError
        As :func:`lapjv` does.

    Examples
    --------
    >>> from lwfm.lap import lapx
    >>> total, rows, columns = lapx.lapjvx([[4, 1, 3], [2, 0, 5]], extend_cost=True)
    >>> total, rows.tolist(), columns.tolist()
    (3.0, [0, 1], [1, 0])
    """
    with_cost = as_flag(return_cost, "return_cost")
    total, cols, columns = _solve(cost, extend_cost, cost_limit)
    rows, chosen = _pairs(cols, columns)
    return (total, rows, chosen) if with_cost else (rows, chosen)


@overload
def lapjvxa(
    cost: ArrayLike,
    extend_cost: bool = False,
    cost_limit: float = math.inf,
    return_cost: Literal[True] = True,
) -> tuple[float, Indices]: ...
@overload
def lapjvxa(
    cost: ArrayLike, extend_cost: bool = False, cost_limit: float = math.inf, *, return_cost: Literal[False]
) -> Indices: ...


def lapjvxa(
    cost: ArrayLike, extend_cost: bool = False, cost_limit: float = math.inf, return_cost: bool = True
) -> tuple[float, Indices] | Indices:
    """Solve one problem, as ``lap.lapjvxa`` does: :func:`lapjv` with the answer as pairs.

    Parameters
    ----------
    cost, extend_cost, cost_limit, return_cost
        As for :func:`lapjv`.

    Returns
    -------
    total : float
        As of :func:`lapjv`.
    pairs : array [K, 2]
        int32, row and column of each pair, in the order of :func:`lapjvx`.

    Raises
    ------
    ValueError, TypeError
        As :func:`lapjv` does.

    Examples
    --------
    >>> from lwfm.lap import lapx
    >>> lapx.lapjvxa([[4, 1, 3], [2, 0, 5]], extend_cost=True, return_cost=False).tolist()
    [[0, 1], [1, 0]]
    """
    with_cost = as_flag(return_cost, "return_cost")
    total, cols, columns = _solve(cost, extend_cost, cost_limit)
    pairs = np.stack(_pairs(cols, columns), axis=1).astype(np.int32)
    return (total, pairs) if with_cost else pairs


@overload
def lapmod(
    n: int,
    cc: ArrayLike,
    ii: ArrayLike,
    kk: ArrayLike,
    fast: object = True,
    return_cost: Literal[True] = True,
    fp_version: object = None,
) -> tuple[float, Indices, Indices]: ...
@overload
def lapmod(
    n: int,
    cc: ArrayLike,
    ii: ArrayLike,
    kk: ArrayLike,
    fast: object = True,
    *,
    return_cost: Literal[False],
    fp_version: object = None,
) -> tuple[Indices, Indices]: ...


def lapmod(
    n: int,
    cc: ArrayLike,
    ii: ArrayLike,
    kk: ArrayLike,
    fast: object = True,
    return_cost: bool = True,
    fp_version: object = None,
) -> tuple[float, Indices, Indices] | tuple[Indices, Indices]:
    """Solve one square problem whose allowed pairs are stored by rows, as ``lap.lapmod`` does.

    Parameters
    ----------
    n : int
        Rows and columns, at least 1.
    cc : array_like [E]
        Finite costs of the allowed pairs, row by row, at least one.
    ii : array_like [n + 1]
        Where rows begin in ``cc``: ``ii[0]`` is 0 and ``ii[n]`` is ``E``.
    kk : array_like [E]
        The column of each pair, ascending within a row.
    fast, fp_version : object
        Accepted for compatibility, without effect.
    return_cost : bool
        Return the total first.

    Returns
    -------
    total : float
        The total of the pairs; ``inf`` if there is no complete assignment.
    x, y : array [n], array [n]
        int32, the column of each row and the row of each column, -1 without a complete assignment.

    Raises
    ------
    ValueError
        An array does not fit the others, ``kk`` is out of range or not ascending, or a cost is not finite.
    TypeError
        ``cc`` is not real numbers, ``ii`` or ``kk`` not integers, ``n`` not an integer.

    See Also
    --------
    lwfm.lap.solve_sparse : The same for SciPy's sparse matrices, rectangles too.

    Examples
    --------
    >>> from lwfm.lap import lapx
    >>> total, x, y = lapx.lapmod(2, cc=[4.0, 1.0, 2.0], ii=[0, 2, 3], kk=[0, 1, 0])
    >>> total, x.tolist(), y.tolist()
    (3.0, [1, 0], [1, 0])
    """
    del fast, fp_version
    with_cost = as_flag(return_cost, "return_cost")
    size, costs, starts, columns = _checked_rows(n, cc, ii, kk)
    pairs = SimpleNamespace(data=costs, indptr=starts, indices=columns)
    answer = allowed_pairs(pairs, maximize=False, transposed=False).solve(size, None)
    if answer is None:
        total, cols = math.inf, np.full(size, -1)
    else:
        rows = np.arange(size)
        place = np.searchsorted(np.repeat(rows, np.diff(starts)) * size + columns, rows * size + answer)
        total, cols = float(costs[place].astype(np.float64).sum()), answer
    x, y = cols.astype(np.int32), _inverse(cols, size)
    return (total, x, y) if with_cost else (x, y)


def _checked_rows(
    n: int, cc: ArrayLike, ii: ArrayLike, kk: ArrayLike
) -> tuple[int, NDArray[Any], Cols, Cols]:
    """Return the arguments of lapmod as what they should be, or raise an error that names the wrong one."""
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n must be an integer, got {n!r}")
    size = operator.index(n)
    costs = as_real(as_array(cc, "cc", "an array"), "cc")
    starts, columns = as_array(ii, "ii", "an array"), as_array(kk, "kk", "an array")
    for name, array in (("ii", starts), ("kk", columns)):
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must hold integers, got {array.dtype}")
    starts, columns = starts.astype(np.int64), columns.astype(np.int64)
    if size < 1 or costs.size == 0:
        raise ValueError(f"there must be a row and an allowed pair, got n={n} and {costs.size} costs")
    if costs.ndim != 1 or columns.shape != costs.shape:
        raise ValueError(
            f"cc and kk must be vectors of one length, got shapes {costs.shape} and {columns.shape}"
        )
    if (
        starts.shape != (size + 1,)
        or starts[0] != 0
        or starts[-1] != costs.size
        or (np.diff(starts) < 0).any()
    ):
        raise ValueError(f"ii must be n + 1 = {size + 1} numbers that ascend from 0 to {costs.size}")
    if not ((columns >= 0) & (columns < size)).all():
        raise ValueError(f"kk must be from 0 to {size - 1}")
    if not (np.diff(np.repeat(np.arange(size), np.diff(starts)) * size + columns) > 0).all():
        raise ValueError("kk must ascend within each row")
    if not np.isfinite(costs).all():
        raise ValueError("cc must be finite: leave forbidden pairs out")
    return size, costs, starts, columns
