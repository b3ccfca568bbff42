"""The bottleneck assignment; part of :mod:`lwfm.lap`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm import _lap
from lwfm.lap._arguments import as_costs_or_batch, as_flag, as_threads
from lwfm.lap._time_limit import as_time_limit, time_is_up, unknown_bounds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from lwfm.lap._arguments import Cols


def bottleneck(
    costs: ArrayLike,
    maximize: bool = False,
    n_threads: int | None = None,
    *,
    lexicographic: bool = False,
    time_limit: float | None = None,
) -> tuple[Cols, Any]:
    """Find an assignment whose largest cost is as small as possible, of one problem or each of a batch.

    Parameters
    ----------
    costs : array_like [N, M], or [B, N, M]
        Cost matrices; bool, integer or floating point. ``+inf`` forbids a pair (``-inf`` when maximizing).
    maximize : bool
        Make the smallest cost as large as possible instead.
    n_threads : int, optional
        At most this many threads share the problems of a batch; :func:`default_threads` by default. The
        answer does not depend on it.
    lexicographic : bool
        Of all such assignments, find one whose second largest cost is as small as possible too, then the
        third, and so on (when maximizing: whose second smallest is as large as possible): its costs in
        descending order come first among all. Meant for up to some hundred rows and columns, see the notes.
    time_limit : float, optional
        Seconds after which to raise :exc:`TimeLimitError`. Its ``bound``: the largest cost of no assignment
        is smaller (when maximizing: the smallest is larger).

    Returns
    -------
    cols : array [N], or [B, N]
        int64, the column of each row, -1 for a row without one.
    largest : float, or array [B]
        The largest cost of each assignment (when maximizing: the smallest), ``-inf`` (``inf``) if it has no
        pairs; float64.

    Raises
    ------
    ValueError
        ``costs`` is neither a matrix nor a batch, has an invalid entry, or allows no complete assignment;
        ``n_threads`` or ``time_limit`` is out of range.
    TypeError
        The entries are complex numbers, objects or strings; ``costs`` is sparse or has masked entries; an
        option has another type than the one named above.
    TimeLimitError
        The time limit was reached.

    Notes
    -----
    A threshold grows while augmenting paths of pairs within it are searched [1]_; costs are only compared, so
    the answer is exact (64-bit integers: if they span less than 2^53). Of several answers always the same one
    is returned.

    The refinement solves two problems for each different cost in its answer, on a copy of the costs that is
    completed to a square: time grows like the fourth power of the longer side, memory like its square. 100
    rows and columns take milliseconds, 1000 seconds.

    References
    ----------
    .. [1] R. E. Burkard, M. Dell'Amico and S. Martello, "Assignment Problems", SIAM 2009, chapter 6.

    Examples
    --------
    >>> from lwfm.lap import bottleneck
    >>> cols, largest = bottleneck([[4, 1, 3], [2, 0, 5], [3, 2, 2]])
    >>> cols.tolist(), largest
    ([1, 0, 2], 2.0)
    >>> bottleneck([[1, 9, 9], [9, 7, 8], [9, 6, 7]], lexicographic=True)[0].tolist()  # 7, 7, 1; not 8, 6, 1
    [0, 1, 2]
    """
    maximize, refine = as_flag(maximize, "maximize"), as_flag(lexicographic, "lexicographic")
    threads, limit = as_threads(n_threads), as_time_limit(time_limit)
    batch, single = as_costs_or_batch(costs, "costs")
    cols, largest = np.empty(batch.shape[:2], np.int64), np.empty(len(batch))
    bounds = unknown_bounds(len(batch), maximize)
    in_time = _lap.solve_bottlenecks(
        batch, maximize, refine, threads, "costs", single, cols, largest, limit, bounds
    )
    if not in_time:
        raise time_is_up(limit, bounds, single)
    return (cols[0], float(largest[0])) if single else (cols, largest)
