"""lwfm.lap: the documented behavior of its functions, and of the two that they drop in for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.optimize
from lapjv import lapjv as reference_lapjv

from lwfm import lap

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import DTypeLike, NDArray

INF = np.inf

# Each: cost, and the entries that an optimal assignment uses, row by row.
SMALL_PROBLEMS: dict[str, tuple[list[list[float]], list[float]]] = {
    "square": ([[400, 150, 400], [400, 450, 600], [300, 225, 300]], [150, 400, 300]),
    "wide": ([[400, 150, 400, 1], [400, 450, 600, 2], [300, 225, 300, 3]], [150, 2, 300]),
    "ties": ([[10, 10, 8], [9, 8, 1], [9, 7, 4]], [10, 1, 7]),
    "ties_wide": ([[10, 10, 8, 11], [9, 8, 1, 1], [9, 7, 4, 10]], [10, 1, 4]),
    "one_allowed_pair_each": ([[10, INF, INF], [INF, INF, 1], [INF, 7, INF]], [10, 1, 7]),
    "forbidden_pairs": ([[11, 8, INF], [7, INF, 2], [INF, 6, 5]], [11, 2, 6]),
    "one_entry": ([[3.5]], [3.5]),
    "negative": ([[-1.0, -9.0], [-9.0, -1.0]], [-9.0, -9.0]),
    "one_row": ([[5, 2, 2, 7]], [2]),
}


@pytest.mark.parametrize("turned", [False, True], ids=["as_is", "transposed"])
@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("name", SMALL_PROBLEMS)
def test_small_problems_have_the_known_optimum(name: str, maximize: bool, turned: bool) -> None:
    entries, expected = SMALL_PROBLEMS[name]
    cost = np.array(entries) * (-1 if maximize else 1)
    if turned:
        cost = cost.T
    row_ind, col_ind = lap.linear_sum_assignment(cost, maximize=maximize)
    np.testing.assert_array_equal(row_ind, np.sort(row_ind))
    total = cost[row_ind, col_ind].sum()
    assert total == (-1 if maximize else 1) * sum(expected)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)], ids=str)
def test_empty_matrices_have_empty_assignments(shape: tuple[int, int]) -> None:
    row_ind, col_ind = lap.linear_sum_assignment(np.empty(shape))
    assert row_ind.shape == col_ind.shape == (0,)
    assert row_ind.dtype == col_ind.dtype == np.int64


@pytest.mark.parametrize("wrap", [np.ndarray.tolist, np.asfortranarray, lambda a: a.astype(">f8")])
def test_any_array_like_is_accepted(wrap: Callable[[NDArray[Any]], Any]) -> None:
    cost = np.array([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]])
    np.testing.assert_array_equal(lap.linear_sum_assignment(wrap(cost))[1], [1, 0, 2])


@pytest.mark.parametrize("dtype", ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])
def test_every_real_dtype_is_solved(dtype: str) -> None:
    cost = (~np.eye(4, dtype=bool)[[2, 0, 3, 1]]).astype(dtype)
    np.testing.assert_array_equal(lap.linear_sum_assignment(cost)[1], [2, 0, 3, 1])
    cols, totals = lap.solve_batch(np.stack([cost, cost]))
    np.testing.assert_array_equal(cols, [[2, 0, 3, 1]] * 2)
    np.testing.assert_array_equal(totals, [0.0, 0.0])


def test_large_unsigned_integers_are_exact() -> None:
    base = np.uint64(2**64 - 4)
    cost = base + np.array([[1, 0], [0, 3]], dtype=np.uint64)
    np.testing.assert_array_equal(lap.linear_sum_assignment(cost)[1], [1, 0])
    np.testing.assert_array_equal(lap.linear_sum_assignment(cost, maximize=True)[1], [0, 1])


@pytest.mark.parametrize("dtype", [np.complex128, object, str, "M8[s]", np.longdouble])
def test_entries_that_are_not_real_numbers_are_a_type_error(dtype: DTypeLike) -> None:
    cost = np.eye(3, dtype=np.int64).astype(dtype)
    for solve in (lap.linear_sum_assignment, lap.lapjv, lambda c: lap.solve_batch(c[None])):
        with pytest.raises(TypeError, match="Cannot cast array data"):
            solve(cost)


@pytest.mark.parametrize("ndim", [0, 1, 3])
def test_wrong_rank_is_named(ndim: int) -> None:
    with pytest.raises(ValueError, match=rf"expected a matrix \(2-D array\), got a {ndim}-D array"):
        lap.linear_sum_assignment(np.ones((2,) * ndim))
    with pytest.raises(ValueError, match="expected a batch of matrices"):
        lap.solve_batch(np.ones((2, 2)))


@pytest.mark.parametrize(("bad", "text"), [(np.nan, "nan"), (-INF, "-inf")], ids=["nan", "-inf"])
def test_invalid_entries_are_named_by_index(bad: float, text: str) -> None:
    cost = np.ones((3, 4))
    cost[2, 1] = bad
    expected = rf"matrix contains invalid numeric entries: {{}}\[{{}}2, 1\] is {text}"
    with pytest.raises(ValueError, match=expected.format("cost_matrix", "")):
        lap.linear_sum_assignment(cost)
    with pytest.raises(ValueError, match=expected.format("costs", "5, ")):
        lap.solve_batch(np.stack([np.ones((3, 4))] * 5 + [cost] * 2))


def test_maximizing_swaps_the_roles_of_the_infinities() -> None:
    cost = np.array([[-INF, 1.0], [2.0, 5.0]])
    np.testing.assert_array_equal(lap.linear_sum_assignment(cost, maximize=True)[1], [1, 0])
    with pytest.raises(ValueError, match=r"cost_matrix\[0, 0\] is inf"):
        lap.linear_sum_assignment(-cost, maximize=True)


@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (5, 3)], ids=str)
def test_infeasible_problems_are_named_by_batch_index(shape: tuple[int, int]) -> None:
    cost = np.ones(shape)
    short = int(np.argmin(shape))
    cost[(0, slice(None)) if short == 0 else (slice(None), 0)] = INF
    with pytest.raises(ValueError, match=r"cost matrix is infeasible: .* cost_matrix uses a forbidden"):
        lap.linear_sum_assignment(cost)
    with pytest.raises(ValueError, match=r"infeasible: .* costs\[3\]"):
        lap.solve_batch(np.stack([np.ones(shape)] * 3 + [cost]))


def test_infeasibility_that_only_the_search_can_see() -> None:
    cost = np.full((4, 4), INF)  # three rows share two columns, no row or column is empty
    cost[:3, :2] = 1.0
    cost[3] = 1.0
    with pytest.raises(ValueError, match="infeasible"):
        lap.linear_sum_assignment(cost)


@pytest.mark.parametrize("shape", [(1, 1), (6, 6), (4, 9), (9, 4), (40, 40)], ids=str)
@pytest.mark.parametrize("value", [0, 1, -2.5, 1e-30, 1e30, 1e308])
def test_constant_matrix_gives_identity(shape: tuple[int, int], value: float) -> None:
    row_ind, col_ind = lap.linear_sum_assignment(np.full(shape, value))
    np.testing.assert_array_equal(row_ind, np.arange(min(shape)))
    np.testing.assert_array_equal(col_ind, np.arange(min(shape)))


def test_float64_costs_near_the_largest_do_not_overflow() -> None:
    cost = np.array([[1.7e308, -1.7e308], [1.6e308, 1.7e308]])
    np.testing.assert_array_equal(lap.linear_sum_assignment(cost)[1], [1, 0])
    np.testing.assert_array_equal(lap.linear_sum_assignment(cost, maximize=True)[1], [0, 1])


def test_batch_returns_minus_one_for_rows_left_over() -> None:
    costs = np.random.default_rng(0).random((7, 5, 3))
    cols, totals = lap.solve_batch(costs)
    assert cols.shape == (7, 5)
    assert cols.dtype == np.int64
    assert totals.dtype == np.float64
    np.testing.assert_array_equal((cols == -1).sum(axis=1), 2)
    for cost, col, total in zip(costs, cols, totals, strict=True):
        rows = np.flatnonzero(col >= 0)
        assert cost[rows, col[rows]].sum() == pytest.approx(total)
        assert cost[scipy.optimize.linear_sum_assignment(cost)].sum() == pytest.approx(total)


@pytest.mark.parametrize("shape", [(0, 3, 3), (4, 0, 3), (4, 3, 0), (0, 0, 0)], ids=str)
def test_empty_batches(shape: tuple[int, int, int]) -> None:
    cols, totals = lap.solve_batch(np.empty(shape))
    assert cols.shape == shape[:2]
    np.testing.assert_array_equal(cols, -1)
    np.testing.assert_array_equal(totals, np.zeros(shape[0]))


@pytest.mark.parametrize("n_threads", [1, 2, 3, 16])
def test_answers_do_not_depend_on_the_number_of_threads(n_threads: int) -> None:
    costs = np.random.default_rng(1).integers(0, 4, (3000, 6, 8))
    expected = lap.solve_batch(costs, n_threads=1)
    actual = lap.solve_batch(costs, n_threads=n_threads)
    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])


@pytest.mark.parametrize("n_threads", [0, -1])
def test_thread_counts_below_one_are_refused(n_threads: int) -> None:
    with pytest.raises(ValueError, match="n_threads must be at least 1"):
        lap.solve_batch(np.ones((2, 2, 2)), n_threads=n_threads)


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda a: a[::-1, :, :], id="reversed"),
        pytest.param(lambda a: a[:, ::2, 1::3], id="strided"),
        pytest.param(lambda a: a.transpose(0, 2, 1), id="transposed"),
        pytest.param(lambda a: a.transpose(2, 1, 0), id="batch_last"),
        pytest.param(lambda a: np.broadcast_to(a[0], (3, *a.shape[1:])), id="broadcast"),
        pytest.param(lambda a: np.asfortranarray(a), id="fortran"),
    ],
)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_any_strides_give_the_same_answer(view: Callable[[NDArray[Any]], NDArray[Any]], dtype: str) -> None:
    costs = (np.random.default_rng(2).random((6, 7, 9)) * 50).astype(dtype)
    cols, totals = lap.solve_batch(view(costs))
    expected = lap.solve_batch(np.ascontiguousarray(view(costs)))
    np.testing.assert_array_equal(cols, expected[0])
    np.testing.assert_array_equal(totals, expected[1])


def test_unaligned_and_odd_strides_are_copied() -> None:
    packed = np.zeros((2, 3, 3), dtype=np.dtype([("flag", "i1"), ("cost", "f8")]))
    packed["cost"] = np.random.default_rng(3).random((2, 3, 3))
    expected = lap.solve_batch(packed["cost"].copy())
    np.testing.assert_array_equal(lap.solve_batch(packed["cost"])[0], expected[0])


@pytest.mark.parametrize("n", [1, 2, 9, 60])
def test_lapjv_agrees_with_the_package_of_that_name(n: int) -> None:
    cost = np.random.default_rng(n).random((n, n))
    row_ind, col_ind, (total, u, v) = lap.lapjv(cost)
    expected_rows, expected_cols, (expected_total, _, _) = reference_lapjv(cost, force_doubles=True)
    np.testing.assert_array_equal(row_ind, expected_rows)
    np.testing.assert_array_equal(col_ind, expected_cols)
    assert total == pytest.approx(expected_total, rel=1e-6)
    assert u.sum() + v.sum() == pytest.approx(total)
    assert (u[:, None] + v <= cost + 1e-12).all()


def test_lapjv_takes_the_options_of_that_package(capfd: pytest.CaptureFixture[str]) -> None:
    cost = np.array([[1, 2], [2, 1]], dtype=np.float32)
    for answer in (lap.lapjv(cost, True), lap.lapjv(cost, verbose=1, force_doubles=True)):
        np.testing.assert_array_equal(answer[0], [0, 1])
        assert answer[2][0] == 2.0
    assert capfd.readouterr().out == ""
    with pytest.raises(ValueError, match="square"):
        lap.lapjv(np.ones((2, 3)))


def test_float64_is_never_solved_in_float32() -> None:
    cost = np.array([[1.0, 1.0 + 1e-12], [1.0 + 1e-12, 1.0 + 3e-12]])
    np.testing.assert_array_equal(lap.lapjv(cost)[0], [1, 0])
    np.testing.assert_array_equal(lap.solve_batch(cost[None])[0], [[1, 0]])


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_one_large_problem_is_the_same_on_several_threads(dtype: str) -> None:
    costs = (1e6 * np.random.default_rng(3).random((1, 1300, 3000))).astype(dtype)
    alone = lap.solve_batch(costs, n_threads=1, return_duals=True)
    for _ in range(3):
        for expected, actual in zip(
            alone, lap.solve_batch(costs, n_threads=2, return_duals=True), strict=True
        ):
            np.testing.assert_array_equal(actual, expected)


def test_a_few_ragged_large_problems_are_the_same_on_several_threads() -> None:
    rng = np.random.default_rng(4)
    costs: list[NDArray[Any]] = [rng.random((20, 30)), rng.random((2600, 700), dtype=np.float32)]
    alone_cols, alone_totals = lap.solve_batch(costs, n_threads=1)
    cols, totals = lap.solve_batch(costs, n_threads=4)
    np.testing.assert_array_equal(totals, alone_totals)
    for expected, actual in zip(alone_cols, cols, strict=True):
        np.testing.assert_array_equal(actual, expected)
