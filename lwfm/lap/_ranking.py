"""The best assignments of a matrix of costs, one after another; part of :mod:`lwfm.lap`."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm import _lap
from lwfm.lap._arguments import as_costs, as_costs_or_batch, as_flag, as_threads
from lwfm.lap._time_limit import TimeLimitError, as_time_limit, time_is_up, unknown_bounds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lwfm.lap._arguments import Cols, Reals


def k_best(
    costs: ArrayLike,
    k: int,
    maximize: bool = False,
    n_threads: int | None = None,
    *,
    time_limit: float | None = None,
) -> tuple[Cols, Reals]:
    """Find the ``k`` best assignments of one problem, or of each problem of a batch.

    Parameters
    ----------
    costs : array_like [N, M], or [B, N, M]
        Cost matrices; bool, integer or floating point. ``+inf`` forbids a pair (``-inf`` when maximizing).
    k : int
        How many assignments to find, at least 1.
    maximize : bool
        Find the assignments of the largest totals instead of the smallest.
    n_threads : int, optional
        At most this many threads share the problems of a batch; :func:`default_threads` by default. The
        answer does not depend on it.
    time_limit : float, optional
        Seconds after which to raise :exc:`TimeLimitError`. Its ``bound``: no assignment that was not found by
        then costs less (earns more, when maximizing).

    Returns
    -------
    cols : array [K, N], or [B, K, N]
        int64, the column of each row, -1 for a row without one. ``K`` is ``k``, or less where there are fewer
        assignments; of a batch, the largest number found for one of its problems.
    totals : array [K], or [B, K]
        float64, non-decreasing (non-increasing, when maximizing). Totals of integers are summed exactly and
        rounded once; others are summed in float64 in the order of the rows. Where a problem of a batch has
        fewer than ``K`` assignments, the last columns are -1 and the last totals ``inf`` (``-inf``).

    Raises
    ------
    ValueError
        ``costs`` is neither a matrix nor a batch, has an invalid entry, or allows no complete assignment;
        ``k``, ``n_threads`` or ``time_limit`` is out of range.
    TypeError
        The entries are complex numbers, objects or strings; ``costs`` is sparse or has masked entries; an
        option has another type than the one named above.
    TimeLimitError
        The time limit was reached.

    See Also
    --------
    iter_best : One after another, as many as wanted.

    Notes
    -----
    Murty's partition [1]_ as improved by Miller, Stone and Cox [2]_: each further assignment takes a few
    shortest paths from the duals of one found before. Assignments of equal totals are ordered by their
    columns, row by row. Which of them are left out at the end is the same for every number of threads. Float
    totals that differ by rounding only may be taken in either order.

    Memory is needed for ``N + M`` numbers and up to ``N`` bounds per assignment found.

    References
    ----------
    .. [1] K. G. Murty, "An algorithm for ranking all the assignments in order of increasing cost", Operations
       Research 16 (1968), 682-687.
    .. [2] M. L. Miller, H. S. Stone and I. J. Cox, "Optimizing Murty's ranked assignment method", IEEE
       Transactions on Aerospace and Electronic Systems 33 (1997), 851-862.

    Examples
    --------
    >>> from lwfm.lap import k_best
    >>> cols, totals = k_best([[4, 1, 3], [2, 0, 5], [3, 2, 2]], k=3)
    >>> cols.tolist(), totals.tolist()
    ([[1, 0, 2], [0, 1, 2], [2, 1, 0]], [5.0, 6.0, 6.0])
    """
    maximize, threads, limit = as_flag(maximize, "maximize"), as_threads(n_threads), as_time_limit(time_limit)
    count = _as_count(k)
    batch, single = as_costs_or_batch(costs, "costs")
    bounds = unknown_bounds(len(batch), maximize)
    found = _lap.k_best(batch, count, maximize, threads, "costs", single, limit, bounds)
    if found is None:
        raise time_is_up(limit, bounds, single)
    cols, totals = found
    return (cols[0], totals[0]) if single else (cols, totals)


def iter_best(
    cost: ArrayLike, maximize: bool = False, *, time_limit: float | None = None
) -> Iterator[tuple[Cols, float]]:
    """Return an iterator over all assignments of one problem, the best first.

    Parameters
    ----------
    cost : array_like [N, M]
        Cost matrix; bool, integer or floating point. ``+inf`` forbids a pair (``-inf`` when maximizing). It
        is copied.
    maximize : bool
        Begin with the largest total instead of the smallest.
    time_limit : float, optional
        Seconds that one step may take. After a :exc:`TimeLimitError`, whose ``bound`` is as for
        :func:`k_best`, the iterator may be asked again.

    Returns
    -------
    iterator of (array [N], float)
        The column of each row, int64, -1 for a row without one, and the total. Totals are non-decreasing
        (non-increasing, when maximizing) up to rounding, and exactly so for integers. The assignments are
        those of :func:`k_best`, but of equal totals those come first that are found first, which is the same
        in every run.

    Raises
    ------
    ValueError
        ``cost`` is not a matrix; ``time_limit`` is out of range. The first step raises it if there is an
        invalid entry or no complete assignment.
    TypeError
        As :func:`k_best` does.

    Examples
    --------
    >>> from lwfm.lap import iter_best
    >>> for cols, total in iter_best([[4, 1, 3], [2, 0, 5], [3, 2, 2]]):
    ...     if total > 5:  # stop when it is clear enough
    ...         break
    ...     print(cols.tolist(), total)
    [1, 0, 2] 5.0
    """
    maximize, limit = as_flag(maximize, "maximize"), as_time_limit(time_limit)
    return _Ranking(as_costs(cost, 2, "cost").copy(), maximize, limit)


class _Ranking(Iterator[tuple["Cols", float]]):
    """The iterator of iter_best; one thread at a time may use it."""

    def __init__(self, cost: Any, maximize: bool, time_limit: float | None) -> None:
        self._rows = cost.shape[0]
        self._ranker: _lap.Ranker | None = _lap.Ranker(cost[np.newaxis], maximize, "cost")
        self._time_limit = time_limit
        self._in_use = threading.Lock()

    def __next__(self) -> tuple[Cols, float]:
        if not self._in_use.acquire(blocking=False):
            raise ValueError("this iterator is in use by another thread or by the call that was interrupted")
        try:
            return self._step()
        finally:
            self._in_use.release()

    def _step(self) -> tuple[Cols, float]:
        if self._ranker is None:
            raise StopIteration
        cols = np.empty(self._rows, np.int64)
        outcome = self._ranker.next(cols, self._time_limit)
        if outcome == _lap.TIME_IS_UP:
            raise TimeLimitError(
                f"the time limit of {self._time_limit} s was reached before the next assignment was found",
                self._ranker.bound(),
            )
        if outcome == _lap.NO_MORE:
            self._ranker = None
            raise StopIteration
        return cols, self._ranker.total(cols)


def _as_count(k: int) -> int:
    """Return how many assignments to find."""
    needed = f"k must be an integer of at least 1, got {k!r}"
    if isinstance(k, bool) or not hasattr(k, "__index__"):
        raise TypeError(needed)
    count = operator.index(k)
    if count < 1:
        raise ValueError(needed)
    return min(count, np.iinfo(np.int64).max)
