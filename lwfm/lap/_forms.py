"""Weights of costs and forms of answers; part of :mod:`lwfm.lap`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm.lap._arguments import as_array, as_flag, as_real

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from lwfm.lap._arguments import Cols, Reals


def weighted(costs: NDArray[Any], weights: ArrayLike | None, name: str) -> NDArray[Any]:
    """Return the products of costs and weights in float64; forbidden pairs stay so, whatever their weight."""
    if weights is None:
        return costs
    factors = as_real(as_array(weights, "weights", "an array"), "weights")
    try:
        factors = np.broadcast_to(factors, costs.shape)
    except ValueError:
        raise ValueError(
            f"weights must have the shape of {name}, {costs.shape}, or one that is broadcast to it, "
            f"got {factors.shape}"
        ) from None
    if not np.isfinite(factors).all():
        raise ValueError("weights must be finite; a pair is forbidden by its cost")
    exact = costs.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        products = np.where(np.isfinite(exact), exact * factors, exact)
    overflowing = np.argwhere(np.isinf(products) & np.isfinite(exact))
    if overflowing.size:
        where = ", ".join(map(str, overflowing[0]))
        raise ValueError(f"{name}[{where}] times its weight is beyond float64")
    return products


def totals_of(costs: NDArray[Any], cols: Cols) -> Reals:
    """Return the totals [B] of columns [B, N] in costs [B, N, M], summed in float64 in the order of rows."""
    if costs.size == 0:
        return np.zeros(len(costs))
    chosen = np.take_along_axis(costs, np.maximum(cols, 0)[..., np.newaxis], axis=2)[..., 0]
    # In the order of the rows, as the solver sums; sum() would add pairs of pairs.
    return np.add.accumulate(np.where(cols >= 0, chosen, 0).astype(np.float64), axis=1)[:, -1].copy()


def as_form(pairs: bool, as_matrix: bool) -> str:
    """Return in which form an answer is wanted: columns, pairs or matrix."""
    pairs, as_matrix = as_flag(pairs, "pairs"), as_flag(as_matrix, "as_matrix")
    if pairs and as_matrix:
        raise ValueError("pairs and as_matrix are two forms of the answer: ask for one of them")
    return "pairs" if pairs else "matrix" if as_matrix else "columns"


def pairs_of(cols: Cols) -> Cols:
    """Return the pairs [K, 2] of one assignment [N]: row and column, by row."""
    rows = np.flatnonzero(cols >= 0).astype(np.int64, copy=False)
    return np.stack([rows, cols[rows]], axis=1)


def matrices_of(cols: Cols, columns: int) -> NDArray[np.bool_]:
    """Return assignments [B, N] as matrices [B, N, M] that are True at the pairs."""
    return np.asarray(cols[..., np.newaxis] == np.arange(columns))
