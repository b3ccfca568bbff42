"""Exact linear assignment on NumPy arrays: single problems and batches, without torch.

Given a cost for every pair of a row and a column, choose pairs so that each row of the shorter side
gets a column of its own and the total cost is smallest. All functions keep one contract:

* exact: float64 input is solved in float64, float32 input with float64 sums and dual variables;
* integers are shifted by their smallest entry before they are read as float64, so the answer is exact as
  long as the entries of one problem *span* less than 2^53 (they may be larger); a wider span is rounded to
  53 bits;
* ``+inf`` forbids a pair (``-inf`` when maximising); NaN and the other infinity are errors, and so is a
  problem that the forbidden pairs leave without a complete assignment;
* ties are broken the same way for every number of threads; a constant matrix gives the identity;
* no thresholds: costs of 1e-30 and of 1e+30 work alike.

The algorithm is that of Jonker and Volgenant [1]_ in its rectangular form [2]_.

References
----------
.. [1] R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
   assignment problems", Computing 38 (1987), 325-340.
.. [2] D. F. Crouse, "On implementing 2D rectangular assignment algorithms", IEEE Transactions on Aerospace
   and Electronic Systems 52 (2016), 1679-1696.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from lwfm import _lap

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["default_threads", "lapjv", "linear_sum_assignment", "simd_level", "solve_batch"]


def simd_level() -> str:
    """Return the name of the widest vector code that this build uses on this processor.

    Examples
    --------
    >>> from lwfm.lap import simd_level
    >>> simd_level() in ("portable", "avx2", "avx512")
    True
    """
    return _lap.simd_level()


def default_threads() -> int:
    """Return how many threads a batch is shared among by default: the processors this process may use.

    Examples
    --------
    >>> from lwfm.lap import default_threads
    >>> default_threads() >= 1
    True
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _as_costs(costs: ArrayLike, ndim: int, name: str) -> NDArray[Any]:
    """Return ``costs`` as an array that the solver reads: real, native byte order, ``ndim`` dimensions."""
    array = np.asarray(costs)
    if array.ndim != ndim:
        what = "a matrix" if ndim == 2 else "a batch of matrices"
        raise ValueError(f"expected {what} ({ndim}-D array), got a {array.ndim}-D array as {name}")
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"Cannot cast array data of {name} from {array.dtype!r} to dtype('float64') without loss: "
            "costs must be real numbers (bool, integers of up to 64 bits, float16, float32 or float64)"
        )
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if any(stride % array.itemsize for stride in array.strides) or not array.flags.aligned:
        return np.ascontiguousarray(array) if array.flags.aligned else array.copy()
    return array


def linear_sum_assignment(
    cost_matrix: ArrayLike, maximize: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Solve one linear assignment problem; drops in for ``scipy.optimize.linear_sum_assignment``.

    Parameters
    ----------
    cost_matrix : array_like [N, M]
        Cost of pairing row ``i`` with column ``j``: bool, integer or floating point. ``+inf`` forbids a pair
        (``-inf`` when maximising).
    maximize : bool
        Maximise the total instead of minimising it.

    Returns
    -------
    row_ind, col_ind : array [min(N, M)], array [min(N, M)]
        int64, ``row_ind`` sorted; row ``row_ind[k]`` is paired with column ``col_ind[k]``. The total is
        ``cost_matrix[row_ind, col_ind].sum()``.

    Raises
    ------
    ValueError
        ``cost_matrix`` is not two-dimensional, has a NaN or an infinity of the wrong sign (the message
        names the entry), or is infeasible.
    TypeError
        The entries are complex numbers, objects or strings.

    Examples
    --------
    >>> import numpy as np
    >>> from lwfm.lap import linear_sum_assignment
    >>> cost = np.array([[4, 1, 3], [2, 0, 5], [3, 2, 2]])
    >>> row_ind, col_ind = linear_sum_assignment(cost)
    >>> col_ind.tolist(), int(cost[row_ind, col_ind].sum())
    ([1, 0, 2], 5)
    """
    cost = _as_costs(cost_matrix, 2, "cost_matrix")
    cols, _, _, _ = _lap.solve(cost[np.newaxis], bool(maximize), 1, "cost_matrix", True, False)
    row_ind = np.flatnonzero(cols[0] >= 0).astype(np.int64, copy=False)
    return row_ind, cols[0][row_ind]


def lapjv(
    cost: ArrayLike, verbose: object = 0, force_doubles: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[float, NDArray[np.float64], NDArray[np.float64]]]:
    """Solve one square problem, with dual variables; drops in for ``lapjv.lapjv``.

    Parameters
    ----------
    cost : array_like [N, N]
        Cost of pairing row ``i`` with column ``j``. ``+inf`` forbids a pair.
    verbose : object
        Accepted for compatibility; nothing is printed.
    force_doubles : bool
        Read the costs as float64. The answer is the same without it: sums and duals are float64 always, and
        float64 and integer input is never rounded to float32.

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
        ``cost`` is not a square matrix, has a NaN or ``-inf``, or is infeasible.
    TypeError
        The entries are complex numbers, objects or strings.

    Examples
    --------
    >>> from lwfm.lap import lapjv
    >>> row_ind, col_ind, (total, u, v) = lapjv([[4, 1, 3], [2, 0, 5], [3, 2, 2]])
    >>> row_ind.tolist(), col_ind.tolist(), total, float(u.sum() + v.sum())
    ([1, 0, 2], [1, 0, 2], 5.0, 5.0)
    """
    del verbose
    array = _as_costs(cost, 2, "cost")
    if array.shape[0] != array.shape[1]:
        raise ValueError(
            f"cost must be a square matrix, got shape {array.shape}; linear_sum_assignment takes rectangles"
        )
    if force_doubles:
        array = array.astype(np.float64)
    cols, totals, u, v = _lap.solve(array[np.newaxis], False, 1, "cost", True, True)
    row_ind = cols[0]
    col_ind = np.empty_like(row_ind)
    col_ind[row_ind] = np.arange(len(row_ind))
    u, v = cast("NDArray[np.float64]", u), cast("NDArray[np.float64]", v)
    return row_ind, col_ind, (float(totals[0]), u[0], v[0])


def solve_batch(
    costs: ArrayLike, maximize: bool = False, n_threads: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Solve a batch of linear assignment problems of one shape, in parallel.

    Parameters
    ----------
    costs : array_like [B, N, M]
        ``B`` cost matrices; bool, integer or floating point, of any strides. A float32 or float64 array whose
        longer side is the contiguous one is not copied. ``+inf`` forbids a pair (``-inf`` when maximising).
    maximize : bool
        Maximise the totals instead of minimising them.
    n_threads : int, optional
        At most this many threads, the calling one among them; by default :func:`default_threads`. The answer
        does not depend on it.

    Returns
    -------
    cols : array [B, N]
        int64, the column of each row; -1 for a row without one (if ``N > M``).
    totals : array [B]
        float64, the total of each problem, summed in float64 in the order of the rows.

    Raises
    ------
    ValueError
        ``costs`` is not three-dimensional, ``n_threads`` is below 1, or a problem has an invalid entry or
        is infeasible; the message names the first such problem by its batch index.
    TypeError
        The entries are complex numbers, objects or strings.

    Examples
    --------
    >>> import numpy as np
    >>> from lwfm.lap import solve_batch
    >>> costs = np.array([[[4, 1, 9], [2, 0, 6]], [[1, 2, 3], [1, 9, 9]]])
    >>> cols, totals = solve_batch(costs)
    >>> cols.tolist(), totals.tolist()
    ([[1, 0], [1, 0]], [3.0, 3.0])
    """
    threads = default_threads() if n_threads is None else int(n_threads)
    if threads < 1:
        raise ValueError(f"n_threads must be at least 1, got {n_threads}")
    array = _as_costs(costs, 3, "costs")
    cols, totals, _, _ = _lap.solve(array, bool(maximize), threads, "costs", False, False)
    return cols, totals
