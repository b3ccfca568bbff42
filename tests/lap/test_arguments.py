"""Arguments of lwfm.lap: each is read for what it is, or refused by a message that names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from lwfm import lap
from lwfm.lap._arguments import as_threads

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

COSTS = np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
BEST = [1, 0, 2]
DENSE: dict[str, Callable[[Any], Any]] = {
    "linear_sum_assignment": lambda costs: lap.linear_sum_assignment(costs)[1],
    "lapjv": lambda costs: lap.lapjv(costs)[0],
    "solve_batch": lambda costs: lap.solve_batch(costs[None])[0][0],
}


@pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", ">i2", ">i4", ">i8", ">u2", ">u4", ">u8"])
@pytest.mark.parametrize("solve", DENSE)
def test_foreign_byte_orders_are_read(solve: str, dtype: str) -> None:
    np.testing.assert_array_equal(DENSE[solve](COSTS.astype(dtype)), BEST)


@pytest.mark.parametrize("dtype", [">f2", "f2", ">f8", ">i4", ">i8", ">u8", "f4", "i1", "?"])
def test_the_sparse_solver_reads_the_same_dtypes(dtype: str) -> None:
    values = COSTS.astype(dtype)
    stored = (values.ravel(), np.tile([0, 1, 2], 3), np.array([0, 3, 6, 9]))
    row_ind, col_ind = lap.solve_sparse(csr_array(stored, shape=(3, 3)))
    expected = lap.linear_sum_assignment(values)
    assert COSTS.astype(dtype)[row_ind, col_ind].sum() == values[expected].sum()


@pytest.mark.parametrize("solve", DENSE)
def test_masked_entries_are_refused(solve: str) -> None:
    masked = np.ma.masked_less(COSTS, 1.0)
    with pytest.raises(TypeError, match=r"masked array.*filled"):
        DENSE[solve](masked)
    np.testing.assert_array_equal(DENSE[solve](np.ma.masked_less(COSTS, -9.0)), BEST)  # nothing is masked


def test_masked_matrices_in_a_list_are_named() -> None:
    with pytest.raises(TypeError, match=r"costs\[1\] is a masked array"):
        lap.solve_batch([COSTS, np.ma.masked_less(COSTS, 1.0)])


@pytest.mark.parametrize("solve", DENSE)
def test_sparse_matrices_are_sent_to_their_solver(solve: str) -> None:
    call = {"linear_sum_assignment": lap.linear_sum_assignment, "lapjv": lap.lapjv}.get(
        solve, lap.solve_batch
    )
    with pytest.raises(TypeError, match="pass it to solve_sparse"):
        call(csr_array(COSTS))  # type: ignore[operator]


@pytest.mark.parametrize("n_threads", [1.5, "2", True, np.float64(2), [2]], ids=repr)
def test_thread_counts_of_other_types_are_refused(n_threads: Any) -> None:
    with pytest.raises(TypeError, match="n_threads must be at least 1, an integer, or None"):
        lap.solve_batch(COSTS[None], n_threads=n_threads)


@pytest.mark.parametrize("n_threads", [10**6, 2**70, np.int64(2**62)])
def test_no_more_threads_than_processors_are_started(n_threads: Any) -> None:
    assert as_threads(n_threads) == lap.default_threads()
    np.testing.assert_array_equal(lap.solve_batch(np.stack([COSTS] * 9), n_threads=n_threads)[0], [BEST] * 9)


@pytest.mark.parametrize("maximize", ["no", None, 2, 0.0, [True], np.array([False])], ids=repr)
def test_maximize_is_true_or_false(maximize: Any) -> None:
    calls: list[Callable[[], object]] = [
        lambda: lap.linear_sum_assignment(COSTS, maximize),
        lambda: lap.solve_batch(COSTS[None], maximize),
        lambda: lap.solve_sparse(csr_array(COSTS), maximize),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="maximize must be True or False, got"):
            call()


@pytest.mark.parametrize("maximize", [True, np.True_, 1, np.int8(1)], ids=repr)
def test_truths_of_numpy_and_numbers_count(maximize: Any) -> None:
    np.testing.assert_array_equal(lap.linear_sum_assignment(COSTS, maximize)[1], [0, 2, 1])


@pytest.mark.parametrize(
    ("warm", "error", "message"),
    [
        pytest.param(np.ones((1, 3), bool), TypeError, "warm must hold column duals", id="bool"),
        pytest.param(np.ones((1, 3), complex), TypeError, "warm must hold column duals", id="complex"),
        pytest.param([["a", "b", "c"]], TypeError, "warm must hold column duals", id="strings"),
        pytest.param(np.full((1, 3), 2**64 - 1, np.uint64), ValueError, "columns from 0 to 2", id="uint64"),
        pytest.param([[1, 2, 0], [1]], ValueError, "warm is not an array of numbers", id="ragged"),
        pytest.param(np.ma.masked_less(np.ones((1, 3)), 2), TypeError, "warm is a masked array", id="masked"),
    ],
)
def test_warm_starts_of_other_types_are_refused(warm: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lap.solve_batch(COSTS[None], warm=warm)


@pytest.mark.parametrize("limit", ["5", True, 1j, 10**400], ids=["string", "bool", "complex", "huge"])
def test_cost_limits_are_numbers(limit: Any) -> None:
    with pytest.raises(TypeError, match="cost_limit must be a number"):
        lap.solve_batch(COSTS[None], cost_limit=limit)


@pytest.mark.parametrize(
    "out", [3, np.empty((2, 3)), (np.empty((1, 3), np.int64),)], ids=["number", "array", "one"]
)
def test_out_is_a_pair_of_arrays(out: Any) -> None:
    with pytest.raises(ValueError, match="out must be a pair of arrays"):
        lap.solve_batch(COSTS[None], out=out)


def test_a_list_of_matrices_is_converted_once() -> None:
    conversions = 0

    class Matrix:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            nonlocal conversions
            conversions += 1
            return np.array(COSTS, dtype)

    matrices: Any = [Matrix(), Matrix()]
    np.asarray(matrices)
    needed, conversions = conversions, 0
    lap.solve_batch(matrices)
    assert conversions == needed > 0


def test_nested_lists_may_be_ragged() -> None:
    cols, totals = lap.solve_batch([[[1, 2], [3, 5]], [[3, 1, 2]]])
    assert [c.tolist() for c in cols] == [[1, 0], [1]]
    np.testing.assert_array_equal(totals, [5.0, 1.0])


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        pytest.param([], r"empty sequence.*pass np\.empty\(\(0, N, M\)\)", id="empty"),
        pytest.param([[[1, 2], [3]], [[1, 2], [3, 4]]], r"costs\[0\] is not a matrix", id="ragged_rows"),
        pytest.param([[[1, 2], [3, 4]], [1, 2]], r"1-D array as costs\[1\]", id="one_vector"),
    ],
)
def test_lists_that_hold_no_matrices_are_explained(costs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lap.solve_batch(costs)


def test_rows_of_different_lengths_are_explained() -> None:
    for solve in (lap.linear_sum_assignment, lap.lapjv):
        with pytest.raises(ValueError, match=r"cost(_matrix)? is not a matrix of numbers"):
            solve([[1, 2], [3]])


@pytest.mark.parametrize("force_doubles", [False, True])
@pytest.mark.parametrize("offset", [2**60, -(2**62)])
def test_large_integers_are_exact_in_lapjv(offset: int, force_doubles: bool) -> None:
    costs = offset + np.array([[1, 0], [0, 3]])
    assert lap.lapjv(costs, force_doubles=force_doubles)[0].tolist() == [1, 0]


@pytest.mark.parametrize("turned", [False, True], ids=["as_is", "transposed"])
@pytest.mark.parametrize(
    ("dtype", "offset"), [("i8", 2**60), ("i8", -(2**63)), ("u8", 2**64 - 4), ("u8", 2**63 - 2)]
)
def test_large_integers_are_exact_in_sparse_matrices(dtype: str, offset: int, turned: bool) -> None:
    small = np.array([[1, 0, 2], [0, 3, 3]])
    entries = [np.array(offset + int(entry), dtype) for entry in small.ravel()]
    costs = csr_array((np.array(entries, dtype), (np.repeat([0, 1], 3), np.tile([0, 1, 2], 2))), shape=(2, 3))
    costs = costs.T.tocsr() if turned else costs
    for maximize in (False, True):
        found = lap.solve_sparse(costs, maximize)
        dense = small.T if turned else small
        assert dense[found].sum() == (5 if maximize else 0)


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize(("dtype", "base"), [("i8", 2**60), ("i8", -(2**60)), ("u8", 2**63)])
def test_large_integers_are_exact_beside_a_cost_limit(dtype: str, base: int, maximize: bool) -> None:
    sign = -1 if maximize else 1
    small = sign * np.array([[-1, -2, -3], [-2, 5, 5], [-3, 5, 5]])
    costs: NDArray[Any] = np.array([[base + int(c) for c in row] for row in small], dtype)
    cols, _ = lap.solve_batch(costs[None], maximize, cost_limit=float(base))
    expected, _ = lap.solve_batch(small[None].astype(float), maximize, cost_limit=0.0)
    np.testing.assert_array_equal(cols, expected)
    assert (cols >= 0).sum() == 2


def test_a_row_that_no_memory_holds_is_a_memory_error() -> None:
    endless = np.broadcast_to(np.float32(1), (1, 2**59))
    with pytest.raises(MemoryError):
        lap.linear_sum_assignment(endless)
