"""Linear assignment over few allowed pairs; part of :mod:`lwfm.lap`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from lwfm import _lap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Cols: TypeAlias = NDArray[np.int64]

# Larger magnitudes could overflow sums; scaling by a power of two is exact.
_LARGEST, _SHRINK = 2.0**900, 2.0**-200


class SparseMatrix(Protocol):
    """Any sparse array or matrix of SciPy."""

    def tocsr(self) -> Any:
        """Return the same in compressed rows."""


def solve_sparse(costs: SparseMatrix, maximize: bool = False) -> tuple[Cols, Cols]:
    """Solve a linear assignment problem in which most pairs are forbidden.

    Parameters
    ----------
    costs : sparse array or matrix of SciPy [N, M]
        Only the stored entries are allowed pairs; a stored zero is a pair that costs nothing, and a stored
        ``+inf`` (``-inf`` when maximizing) forbids one. Entries are read as float64.
    maximize : bool
        Maximize the total instead of minimizing it.

    Returns
    -------
    row_ind, col_ind : array [min(N, M)], array [min(N, M)]
        int64, ``row_ind`` sorted, as :func:`scipy.sparse.csgraph.min_weight_full_bipartite_matching` returns
        them (which, unlike this function, takes a stored zero for a missing pair).

    Raises
    ------
    ValueError
        An entry is NaN or an infinity of the wrong sign (the message names it), or there is no complete
        assignment.
    TypeError
        ``costs`` is not sparse, or its entries are not real numbers.

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
    csr = costs.tocsr()
    if csr.dtype.kind not in "biuf":
        raise TypeError(f"costs must be real numbers, got {csr.dtype}")
    if not csr.has_canonical_format:
        csr = csr.copy()
        csr.sum_duplicates()
    transposed = csr.shape[0] > csr.shape[1]
    wide = csr.T.tocsr() if transposed else csr
    start, column, value = _allowed_pairs(wide, maximize, transposed)
    answer = _lap.solve_sparse(wide.shape[1], start, column, value)
    if answer is None:
        raise ValueError("cost matrix is infeasible: no complete assignment uses allowed pairs only")
    longer, shorter = answer, np.arange(wide.shape[0])
    if not transposed:
        return shorter, longer
    order = np.argsort(longer)
    return longer[order], shorter[order]


def _allowed_pairs(csr: Any, maximize: bool, transposed: bool) -> tuple[Cols, Cols, NDArray[np.float64]]:
    """Return row starts, columns and costs to minimize of the pairs that are not forbidden."""
    value = csr.data.astype(np.float64) * (-1.0 if maximize else 1.0)
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
    before = np.concatenate([[0], np.cumsum(allowed)])
    return before[csr.indptr].astype(np.int64), csr.indices[allowed].astype(np.int64), value[allowed]
