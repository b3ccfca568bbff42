"""Checks of the arguments that the functions of :mod:`lwfm.lap` share."""

from __future__ import annotations

import math
import operator
import os
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Cols: TypeAlias = NDArray[np.int64]
    Reals: TypeAlias = NDArray[np.float64]


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


def refuse_masked(array: object, name: str) -> None:
    """Raise a TypeError for a masked array: NumPy would drop its mask without a word."""
    if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
        raise TypeError(
            f"{name} is a masked array, and masks are not read: pass {name}.filled(value), where inf forbids "
            "the masked pairs (-inf when maximizing)"
        )


def as_array(values: ArrayLike, name: str, what: str) -> NDArray[Any]:
    """Return ``values`` as an array, or raise an error that names it and says that it should be ``what``."""
    if hasattr(values, "tocsr"):
        raise TypeError(
            f"{name} is sparse where {what} is expected: pass it to solve_sparse, or pass {name}.toarray()"
        )
    refuse_masked(values, name)
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is not {what} of numbers: {error}") from error


def as_real(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return an array of numbers in a dtype and byte order that the solver reads: float16 as float32."""
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"Cannot cast array data of {name} from {array.dtype!r} to dtype('float64') without loss: "
            f"{name} must be real numbers (bool, integers of up to 64 bits, float16, float32 or float64)"
        )
    if array.dtype.kind == "f" and array.dtype.itemsize == 2:
        return array.astype(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def as_costs(costs: ArrayLike, ndim: int, name: str) -> NDArray[Any]:
    """Return ``costs`` as an array that the solver reads: real, native byte order, ``ndim`` dimensions."""
    what = "a matrix" if ndim == 2 else "a batch of matrices"
    array = as_array(costs, name, what)
    if array.ndim != ndim:
        raise ValueError(f"expected {what} ({ndim}-D array), got a {array.ndim}-D array as {name}")
    return _as_readable(array, name)


def as_costs_or_batch(costs: ArrayLike, name: str) -> tuple[NDArray[Any], bool]:
    """Return costs [B, N, M] that the solver reads, and whether ``costs`` is a single matrix."""
    array = as_array(costs, name, "a matrix or a batch of matrices")
    if array.ndim not in (2, 3):
        raise ValueError(
            f"expected a matrix or a batch of matrices (2-D or 3-D array), "
            f"got a {array.ndim}-D array as {name}"
        )
    readable = _as_readable(array, name)
    return (readable[np.newaxis], True) if array.ndim == 2 else (readable, False)


def _as_readable(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return costs in a dtype, byte order and alignment that the solver reads."""
    array = as_real(array, name)
    if any(stride % array.itemsize for stride in array.strides) or not array.flags.aligned:
        return np.ascontiguousarray(array) if array.flags.aligned else array.copy()
    return array


def as_flag(value: object, name: str) -> bool:
    """Return an option that is True or False, or as a number 1 or 0."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, (int, np.integer)) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {value!r}")


def as_threads(n_threads: int | None) -> int:
    """Return the number of threads to use: at most one per processor."""
    if n_threads is None:
        return default_threads()
    needed = f"n_threads must be at least 1, an integer, or None for all processors, got {n_threads!r}"
    if isinstance(n_threads, bool) or not hasattr(n_threads, "__index__"):
        raise TypeError(needed)
    threads = operator.index(n_threads)
    if threads < 1:
        raise ValueError(needed)
    return 1 if threads == 1 else min(threads, default_threads())


def as_limit(cost_limit: float | None) -> float:
    """Return the cost limit, inf for none."""
    if cost_limit is None:
        return math.inf
    try:
        if isinstance(cost_limit, (str, bytes, bool)):
            raise TypeError  # noqa: TRY301 - as float does for other types
        limit = float(cost_limit)
    except (TypeError, OverflowError):
        raise TypeError(
            f"cost_limit must be a number that float64 can hold, or None for no limit, got {cost_limit!r}"
        ) from None
    if math.isnan(limit) or limit == -math.inf:
        raise ValueError(f"cost_limit must be a finite number, or None or inf for no limit, got {cost_limit}")
    return limit


def as_out(out: tuple[Cols, Reals] | None, shape: tuple[int, ...]) -> tuple[Cols, Reals] | None:
    """Return ``out`` if the solver can write to it."""
    if out is None:
        return None
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise ValueError("out must be a pair of arrays: (cols, totals)")
    wanted = (("cols", np.int64, shape[:2]), ("totals", np.float64, shape[:1]))
    for array, (name, dtype, size) in zip(out, wanted, strict=True):
        fits = isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == size
        if not fits or not array.flags.c_contiguous or not array.flags.writeable:
            raise ValueError(
                f"out: {name} must be a writeable C-contiguous {np.dtype(dtype)} array of shape {size}"
            )
    return out[0], out[1]


def as_warm(warm: ArrayLike | None, shape: tuple[int, ...]) -> tuple[Reals | None, Cols | None]:
    """Return the column duals or the columns of each row to start from, whichever ``warm`` holds."""
    if warm is None:
        return None, None
    array = as_array(warm, "warm", "an array")
    if array.dtype.kind in "iu":
        if array.shape != shape[:2]:
            raise ValueError(f"warm must hold columns of shape {shape[:2]} [B, N], got {array.shape}")
        if array.size and (int(array.min()) < -1 or int(array.max()) >= shape[2]):
            raise ValueError(f"warm must hold columns from 0 to {shape[2] - 1}, or -1 for none")
        return None, np.ascontiguousarray(array, dtype=np.int64)
    if array.dtype.kind != "f":
        raise TypeError(
            f"warm must hold column duals (floats) or the columns of an answer (integers), got {array.dtype}"
        )
    if array.shape != (shape[0], shape[2]):
        raise ValueError(
            f"warm must hold column duals of shape {(shape[0], shape[2])} [B, M], got {array.shape}"
        )
    duals = np.ascontiguousarray(array, dtype=np.float64)
    if not np.isfinite(duals).all():
        raise ValueError("warm must be finite")
    return duals, None
