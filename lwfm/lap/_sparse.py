"""Linear assignment on sparse matrices of costs; part of :mod:`lwfm.lap`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from lwfm import _lap
from lwfm.lap._arguments import as_flag, as_real
from lwfm.lap._time_limit import as_time_limit, time_is_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lwfm.lap._arguments import Cols, Reals

# Larger magnitudes could overflow sums; scaling by a power of two is exact.
_LARGEST, _SHRINK = 2.0**900, 2.0**-200


class SparseMatrix(Protocol):
    """Any sparse array or matrix of SciPy."""

    def tocsr(self) -> Any:
        """Return the same in compressed rows."""


def solve_sparse(
    costs: SparseMatrix, maximize: bool = False, *, time_limit: float | None = None
) -> tuple[Cols, Cols]:
    """Solve a linear assignment problem in which most pairs are forbidden.

    Parameters
    ----------
    costs : sparse array or matrix of SciPy [N, M]
        Only the stored entries are allowed pairs; a stored zero is a pair that costs nothing, and a stored
        ``+inf`` (``-inf`` when maximizing) forbids one. Duplicates are summed in their dtype, as SciPy does.
        The stored arrays are checked before they are read; ``costs`` is not changed.
    maximize : bool
        Maximize the total instead of minimizing it.
    time_limit : float, optional
        Seconds after which to raise :exc:`TimeLimitError`, whose ``bound`` is a lower bound on the total, or
        an upper one when maximizing.

    Returns
    -------
    row_ind, col_ind : array [min(N, M)], array [min(N, M)]
        int64, ``row_ind`` sorted, as :func:`scipy.sparse.csgraph.min_weight_full_bipartite_matching` returns
        them (which, unlike this function, takes a stored zero for a missing pair).

    Raises
    ------
    ValueError
        ``costs`` is not two-dimensional; an index is out of range or the stored arrays do not fit one another
        (the message names the first such entry); an entry is NaN or an infinity of the wrong sign (the
        message names it); there is no complete assignment; or ``time_limit`` is out of range.
    TypeError
        ``costs`` is not sparse, its entries are not real numbers or its indices not integers, or
        ``maximize`` is neither True nor False.
    TimeLimitError
        The time limit was reached.

    Notes
    -----
    Shortest augmenting paths with a heap [1]_: time grows with the stored entries, not with ``N * M``.

    References
    ----------
    .. [1] R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
       assignment problems", Computing 38 (1987), 325-340.

    Examples
    --------
    >>> from scipy.sparse import csr_array
    >>> from lwfm.lap import solve_sparse
    >>> costs = csr_array(([3.0, 1.0, 2.0, 5.0], ([0, 0, 1, 2], [0, 1, 1, 2])), shape=(3, 3))
    >>> row_ind, col_ind = solve_sparse(costs)
    >>> row_ind.tolist(), col_ind.tolist()
    ([0, 1, 2], [0, 1, 2])
    """
    if not hasattr(costs, "tocsr"):
        raise TypeError(f"costs must be a sparse array or matrix of SciPy, got {type(costs).__name__}")
    maximize, limit = as_flag(maximize, "maximize"), as_time_limit(time_limit)
    csr = _canonical(costs)
    transposed = csr.shape[0] > csr.shape[1]
    wide = csr.T.tocsr() if transposed else csr
    allowed = allowed_pairs(wide, maximize, transposed)
    answer = allowed.solve(wide.shape[1], limit)
    if answer is None:
        raise ValueError("cost matrix is infeasible: no complete assignment uses allowed pairs only")
    longer, shorter = answer, np.arange(wide.shape[0])
    if not transposed:
        return shorter, longer
    order = np.argsort(longer)
    return longer[order], shorter[order]


def _canonical(costs: Any) -> Any:
    """Return the costs in compressed rows: a checked copy with native dtypes, sorted, without duplicates."""
    if len(costs.shape) != 2:
        raise ValueError(f"costs must be two-dimensional, got a sparse array of shape {costs.shape}")
    _check_structure(costs)
    if costs.format == "coo" and not costs.data.dtype.isnative:
        costs = costs.astype(costs.data.dtype.newbyteorder("="))
    rows = costs.tocsr()
    values = as_real(np.array(rows.data), "costs")
    # A copy: its owner may change the original after the check, and its flags may be out of date.
    csr = type(rows)((values, np.array(rows.indices), np.array(rows.indptr)), shape=rows.shape)
    _check_structure(csr)
    csr.sum_duplicates()
    return csr


def _check_structure(costs: Any) -> None:
    """Raise an error that names the first index of a sparse matrix that is out of range.

    SciPy's constructors do not check them all, and neither does the compiled code that converts matrices.
    """
    rows, columns = costs.shape
    if costs.format == "coo":
        stored = {"row": rows, "col": columns}
    elif costs.format in ("csr", "csc", "bsr"):
        high, wide = getattr(costs, "blocksize", (1, 1))
        lines, length = (columns, rows) if costs.format == "csc" else (rows // high, columns // wide)
        _check_starts(np.asarray(costs.indptr), lines, len(costs.indices))
        stored = {"indices": length}
    else:
        stored = {}
    for name, size in stored.items():
        indices = np.asarray(getattr(costs, name))
        _check_range(indices, size, f"costs.{name}")
        if len(indices) != len(costs.data):
            raise ValueError(
                f"costs.{name} and costs.data must have one length, got {len(indices)} and {len(costs.data)}"
            )


def _check_starts(starts: NDArray[Any], lines: int, stored: int) -> None:
    """Raise an error unless ``indptr`` divides the stored entries among the rows (columns in csc)."""
    if starts.dtype.kind not in "iu":
        raise TypeError(f"costs.indptr must hold integers, got {starts.dtype}")
    if starts.shape != (lines + 1,):
        raise ValueError(f"costs.indptr must have shape {(lines + 1,)}, got {starts.shape}")
    if starts[0] != 0:
        raise ValueError(f"costs.indptr must start with 0, but costs.indptr[0] is {starts[0]}")
    falls = np.flatnonzero(starts[1:] < starts[:-1])
    if falls.size:
        k = int(falls[0]) + 1
        raise ValueError(
            f"costs.indptr must not decrease, but costs.indptr[{k}] is {starts[k]} after {starts[k - 1]}"
        )
    if starts[-1] > stored:
        raise ValueError(
            f"costs.indptr must end at {stored}, the number of stored entries, or before, "
            f"but costs.indptr[{lines}] is {starts[-1]}"
        )


def _check_range(indices: NDArray[Any], size: int, name: str) -> None:
    """Raise an error that names the first of ``indices`` that is not from 0 to ``size - 1``."""
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {indices.dtype}")
    if indices.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {indices.shape}")
    bad = np.flatnonzero((indices < 0) | (indices >= size))
    if bad.size:
        k = int(bad[0])
        raise ValueError(f"{name} must be from 0 to {size - 1}, but {name}[{k}] is {indices[k]}")


class AllowedPairs(NamedTuple):
    """The pairs that are not forbidden, in compressed rows, as the solver takes them."""

    start: Cols
    column: Cols
    value: Reals
    """To minimize: ``(cost - shift) * factor``."""
    shift: int
    factor: float

    def solve(self, columns: int, time_limit: float | None) -> Cols | None:
        """Return the column of each row, None if there is no complete assignment; TimeLimitError."""
        answer = _lap.solve_sparse(columns, self.start, self.column, self.value, time_limit)
        if isinstance(answer, float):
            bound = answer / self.factor + self.shift * (len(self.start) - 1)
            raise time_is_up(time_limit, np.array([bound]), single=True)
        return answer


def allowed_pairs(csr: Any, maximize: bool, transposed: bool) -> AllowedPairs:
    """Return the pairs of a matrix that are not forbidden."""
    value, shift = _as_float64(csr.data)
    factor = -1.0 if maximize else 1.0
    value = value * factor
    allowed = value != np.inf
    invalid = np.flatnonzero(~(value > -np.inf))
    if invalid.size:
        k = int(invalid[0])
        where = (int(np.searchsorted(csr.indptr, k, side="right")) - 1, int(csr.indices[k]))
        row, column = where[::-1] if transposed else where
        raise ValueError(f"matrix contains invalid numeric entries: costs[{row}, {column}] is {csr.data[k]}")
    largest = np.abs(value[allowed]).max(initial=0.0)
    if largest > _LARGEST:
        value *= _SHRINK
        factor *= _SHRINK
    before = np.concatenate([[0], np.cumsum(allowed)])
    start, column = before[csr.indptr].astype(np.int64), csr.indices[allowed].astype(np.int64)
    return AllowedPairs(start, column, value[allowed], shift, factor)


def _as_float64(entries: NDArray[Any]) -> tuple[Reals, int]:
    """Return entries as float64, and what was subtracted.

    64-bit integers lose the smallest, so that they are exact if they span less than 2^53. All complete
    assignments have the same number of pairs, so the shift does not change the optimum.
    """
    shift = 0
    if entries.dtype.kind in "iu" and entries.dtype.itemsize == 8 and entries.size:
        bits = entries.view(np.uint64)  # unsigned differences are exact whatever the span
        smallest = np.argmin(entries)
        shift, entries = int(entries[smallest]), bits - bits[smallest]
    return entries.astype(np.float64, copy=False), shift
