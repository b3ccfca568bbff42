"""Weights of costs, and answers as pairs or as matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lwfm import lap

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPES = [(1, 1), (5, 5), (4, 9), (9, 4), (40, 60)]


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_weights_are_factors_and_totals_are_of_the_costs(
    shape: tuple[int, int], dtype: str, maximize: bool
) -> None:
    rng = np.random.default_rng(0)
    costs = (rng.random((6, *shape)) * 50 - 10).astype(dtype)
    weights = rng.random((6, *shape)) + 0.1
    expected, _ = lap.solve_batch(costs.astype("f8") * weights, maximize)
    cols, totals = lap.solve_batch(costs, maximize, weights=weights)
    np.testing.assert_array_equal(cols, expected)
    for cost, col, total, weight in zip(costs, cols, totals, weights, strict=True):
        rows = np.flatnonzero(col >= 0)
        assert total == pytest.approx(cost[rows, col[rows]].astype("f8").sum())
        single = lap.linear_sum_assignment(cost, maximize, weights=weight)
        np.testing.assert_array_equal(single[1], col[rows])


def test_weights_are_broadcast() -> None:
    costs = np.random.default_rng(1).random((3, 5, 6))
    weights = np.arange(1.0, 6.0)[:, None]
    np.testing.assert_array_equal(
        lap.solve_batch(costs, weights=weights)[0], lap.solve_batch(costs * weights)[0]
    )


@pytest.mark.parametrize("weight", [0.0, -2.0, 1.0])
def test_forbidden_pairs_stay_forbidden(weight: float) -> None:
    cost = np.array([[np.inf, 1.0], [1.0, 1.0]])
    assert lap.linear_sum_assignment(cost, weights=np.full((2, 2), weight))[1].tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"cost_matrix\[0, 0\] is -inf"):
        lap.linear_sum_assignment(-cost, weights=[[weight]])


def test_weighted_totals_go_where_out_says() -> None:
    costs = np.random.default_rng(2).random((4, 3, 3))
    out = np.empty((4, 3), np.int64), np.empty(4)
    cols, totals = lap.solve_batch(costs, weights=2 + costs, out=out)
    assert cols is out[0]
    assert totals is out[1]
    np.testing.assert_allclose(totals, np.take_along_axis(costs, cols[..., None], 2).sum((1, 2)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pairs_and_matrices_are_other_forms_of_the_same_answer(shape: tuple[int, int]) -> None:
    costs = np.random.default_rng(3).random((4, *shape))
    cols, totals = lap.solve_batch(costs)
    pairs, pair_totals = lap.solve_batch(costs, pairs=True)
    matrices, matrix_totals = lap.solve_batch(costs, as_matrix=True)
    np.testing.assert_array_equal(totals, pair_totals)
    np.testing.assert_array_equal(totals, matrix_totals)
    assert matrices.shape == costs.shape
    assert matrices.dtype == bool
    for cost, col, pair, matrix in zip(costs, cols, pairs, matrices, strict=True):
        rows = np.flatnonzero(col >= 0)
        assert pair.dtype == np.int64
        np.testing.assert_array_equal(pair, np.stack([rows, col[rows]], axis=1))
        np.testing.assert_array_equal(np.argwhere(matrix), pair)
        np.testing.assert_array_equal(lap.linear_sum_assignment(cost, pairs=True), pair)
        np.testing.assert_array_equal(lap.linear_sum_assignment(cost, as_matrix=True), matrix)


def test_pairs_leave_out_what_a_cost_limit_does() -> None:
    pairs, _ = lap.solve_batch([[[0.0, 9.0], [9.0, 9.0]]], cost_limit=5, pairs=True)
    assert pairs[0].tolist() == [[0, 0]]
    ragged, _ = lap.solve_batch([np.eye(2), np.eye(3)[:1]], pairs=True)
    assert [one.tolist() for one in ragged] == [[[0, 1], [1, 0]], [[0, 1]]]


EYE: Any = np.eye(2)
REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "shape": (
        lambda: lap.linear_sum_assignment(EYE, weights=np.ones((3, 2))),
        ValueError,
        "weights must have",
    ),
    "larger": (
        lambda: lap.linear_sum_assignment(EYE, weights=np.ones((1, 2, 2))),
        ValueError,
        "weights must",
    ),
    "nan": (lambda: lap.linear_sum_assignment(EYE, weights=[[np.nan]]), ValueError, "weights must be finite"),
    "infinite": (
        lambda: lap.linear_sum_assignment(EYE, weights=np.inf),
        ValueError,
        "weights must be finite",
    ),
    "complex": (lambda: lap.linear_sum_assignment(EYE, weights=[[1j]]), TypeError, "weights"),
    "overflow": (
        lambda: lap.solve_batch(1e200 * EYE[None], weights=1e200),
        ValueError,
        r"costs\[0, 0, 0\] times its weight is beyond float64",
    ),
    "ragged": (
        lambda: lap.solve_batch([EYE, np.eye(3)], weights=1.0),
        ValueError,
        "weights and as_matrix need",
    ),
    "both": (lambda: lap.linear_sum_assignment(EYE, pairs=True, as_matrix=True), ValueError, "two forms"),  # type: ignore[call-overload]
    "duals": (lambda: lap.solve_batch(EYE[None], pairs=True, return_duals=True), ValueError, "go with"),  # type: ignore[call-overload]
    "flag": (lambda: lap.linear_sum_assignment(EYE, pairs="yes"), TypeError, "pairs must be"),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_refused(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_totals_with_weights_are_summed_in_the_order_of_the_rows() -> None:
    costs = np.random.default_rng(0).random((5, 200, 200))
    np.testing.assert_array_equal(lap.solve_batch(costs, weights=1.0)[1], lap.solve_batch(costs)[1])


def test_matrices_of_ragged_batches_are_refused_before_the_work() -> None:
    with pytest.raises(ValueError, match="as_matrix need problems of one shape"):
        lap.solve_batch([np.eye(2), np.eye(3)], as_matrix=True)
