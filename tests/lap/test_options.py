"""What solve_batch offers beyond a batch: cost limits, duals, warm starts, ragged batches, out."""

from __future__ import annotations

import multiprocessing
from typing import Any

import lap as lapx
import numpy as np
import pytest
from numpy.typing import NDArray

from lwfm.lap import solve_batch

Costs = NDArray[Any]
SHAPES = [(1, 1), (5, 5), (4, 9), (9, 4), (40, 40), (30, 60), (60, 30)]


def random_costs(shape: tuple[int, ...], dtype: str = "f8", seed: int = 0) -> Costs:
    return (np.random.default_rng(seed).random(shape) * 100).astype(dtype)


def dual_total(u: Costs, v: Costs, cols: Costs, limit: float | None) -> float:
    """The lower bound that duals prove, after the price of unmatched rows and columns."""
    unmatched = 0 if limit is None else (cols < 0).sum() + len(v) - (cols >= 0).sum()
    return float(u.sum() + v.sum() - unmatched * (limit or 0.0) / 2)


@pytest.mark.parametrize("limit", [None, 30.0, -5.0], ids=["unlimited", "limit", "negative_limit"])
@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
def test_duals_prove_every_answer(
    shape: tuple[int, int], dtype: str, maximize: bool, limit: float | None
) -> None:
    costs = random_costs((5, *shape), dtype) - 40
    cols, totals, us, vs = solve_batch(costs, maximize, return_duals=True, cost_limit=limit)
    sign = -1.0 if maximize else 1.0
    for cost, col, total, u, v in zip(costs.astype(np.float64), cols, totals, us, vs, strict=True):
        tolerance = 1e-11
        assert (sign * (u[:, None] + v - cost) <= tolerance).all()
        rows = np.flatnonzero(col >= 0)
        np.testing.assert_allclose(u[rows] + v[col[rows]], cost[rows, col[rows]], atol=tolerance)
        free = (np.flatnonzero(col < 0), np.setdiff1d(np.arange(shape[1]), col))
        for dual, unmatched, may_be_free in (
            (u, free[0], shape[0] > shape[1]),
            (v, free[1], shape[1] > shape[0]),
        ):
            price = 0.0 if limit is None else limit / 2
            if may_be_free or limit is not None:
                assert (sign * dual <= sign * price + tolerance).all()
            np.testing.assert_allclose(dual[unmatched], price, atol=tolerance)
        assert dual_total(u, v, col, limit) == pytest.approx(total)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("limit", [0.0, 10.0, 50.0, 1e9, -3.0])
def test_cost_limit_means_what_it_means_in_lapx(shape: tuple[int, int], limit: float) -> None:
    costs = random_costs((6, *shape), seed=3)
    expected, rows, _ = lapx.lapjvr_batch(costs, cost_limit=limit)
    cols, totals = solve_batch(costs, cost_limit=limit)
    np.testing.assert_array_equal((cols >= 0).sum(axis=1), [len(r) for r in rows])
    np.testing.assert_allclose(totals, expected, rtol=1e-12, atol=1e-12)


def test_cost_limit_makes_every_problem_feasible() -> None:
    costs = np.full((2, 3, 3), np.inf)
    costs[1, 0, 2] = 1.0
    cols, totals = solve_batch(costs, cost_limit=1.5)
    np.testing.assert_array_equal(cols, [[-1, -1, -1], [2, -1, -1]])
    np.testing.assert_array_equal(totals, [0.0, 1.0])
    costs[0, 1, 1] = np.nan
    with pytest.raises(ValueError, match=r"costs\[0, 1, 1\] is nan"):
        solve_batch(costs, cost_limit=1.0)


@pytest.mark.parametrize("limit", [np.nan, -np.inf])
def test_unusable_cost_limits_are_refused(limit: float) -> None:
    with pytest.raises(ValueError, match="cost_limit must be"):
        solve_batch(np.ones((1, 2, 2)), cost_limit=limit)


def test_cost_limit_does_not_overflow() -> None:
    costs = np.array([[[-1.7e308, 1.7e308], [1.7e308, 1.6e308]]])
    np.testing.assert_array_equal(solve_batch(costs, cost_limit=1.65e308)[0], [[0, 1]])
    np.testing.assert_array_equal(solve_batch(costs, cost_limit=1.5e308)[0], [[0, -1]])


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("n", [5, 60, 150])
def test_warm_starts_change_the_time_only(n: int, maximize: bool) -> None:
    costs = random_costs((3, n, n))
    cols, _, _, v = solve_batch(costs, maximize, return_duals=True)
    for guess in (v, v * 0, -1e6 * v, random_costs(v.shape, seed=8)):
        np.testing.assert_array_equal(solve_batch(costs, maximize, warm=guess)[0], cols)
    changed = costs + 0.01 * random_costs(costs.shape, seed=9)
    warm = solve_batch(changed, maximize, warm=v)
    np.testing.assert_array_equal(warm[0], solve_batch(changed, maximize)[0])


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i8"])
@pytest.mark.parametrize("n", [5, 60, 300])
def test_any_earlier_assignment_leads_to_a_certified_answer(n: int, dtype: str, maximize: bool) -> None:
    rng = np.random.default_rng(n)
    costs = random_costs((2, n, n), dtype)
    expected = solve_batch(costs, maximize)[1]
    best = solve_batch(costs, maximize)[0]
    swapped = best.copy()
    swapped[:, [0, 2]] = swapped[:, [2, 0]]
    some = np.where(rng.random(best.shape) < 0.5, best, -1)
    shuffled = rng.permuted(best, axis=1)
    for guess in (best, swapped, some, shuffled, best * 0, best * 0 - 1, best.astype(np.int32)):
        cols, totals, u, v = solve_batch(costs, maximize, warm=guess, return_duals=True)
        assert (np.sort(cols, axis=1) == np.arange(n)).all()
        np.testing.assert_allclose(totals, expected, rtol=1e-12)
        np.testing.assert_allclose(u.sum(axis=1) + v.sum(axis=1), totals, rtol=1e-11)
        sign = -1.0 if maximize else 1.0
        assert (sign * (u[:, :, None] + v[:, None, :] - costs) <= 1e-10).all()


def test_earlier_assignments_through_forbidden_pairs_are_no_hint() -> None:
    costs = random_costs((1, 300, 300))
    best, total = solve_batch(costs)
    costs[0, np.arange(0, 300, 3), best[0, ::3]] = np.inf
    np.testing.assert_array_equal(solve_batch(costs, warm=best)[0], solve_batch(costs)[0])
    assert solve_batch(costs, warm=best)[1] > total
    costs[0, 7] = np.inf
    with pytest.raises(ValueError, match="infeasible"):
        solve_batch(costs, warm=best)


def test_warm_starts_are_checked() -> None:
    with pytest.raises(ValueError, match=r"warm must hold columns of shape \(2, 3\)"):
        solve_batch(np.ones((2, 3, 4)), warm=np.zeros((2, 4), int))
    for bad in (-2, 3):
        with pytest.raises(ValueError, match="columns from 0 to 2"):
            solve_batch(np.ones((1, 3, 3)), warm=np.full((1, 3), bad))
    with pytest.raises(ValueError, match=r"warm must hold column duals of shape \(2, 4\)"):
        solve_batch(np.ones((2, 3, 4)), warm=np.ones((2, 3)))
    with pytest.raises(ValueError, match="warm must be finite"):
        solve_batch(np.ones((1, 3, 3)), warm=np.full((1, 3), np.nan))


def test_ragged_batches_equal_single_problems() -> None:
    rng = np.random.default_rng(4)
    costs = [
        random_costs((int(rng.integers(0, 45)), int(rng.integers(0, 45))), d) for d in ("f4", "f8", "i2") * 20
    ]
    for n_threads in (1, 3):
        cols, totals = solve_batch(costs, n_threads=n_threads)
        for cost, col, total in zip(costs, cols, totals, strict=True):
            expected = solve_batch(cost[None])
            np.testing.assert_array_equal(col, expected[0][0])
            assert total == expected[1][0]


def test_ragged_batches_name_the_bad_problem() -> None:
    costs = [np.ones((2, 3)), np.ones((3, 3)), np.full((2, 2), np.nan)]
    with pytest.raises(ValueError, match=r"costs\[2, 0, 0\] is nan"):
        solve_batch(costs)
    with pytest.raises(ValueError, match=r"got a 1-D array as costs\[1\]"):
        solve_batch([np.ones((2, 3)), np.ones(3)])
    with pytest.raises(ValueError, match="need problems of one shape"):
        solve_batch(costs, return_duals=True)


def test_out_receives_the_answer() -> None:
    costs = random_costs((4, 6, 7))
    out = (np.empty((4, 6), np.int64), np.empty(4))
    cols, totals = solve_batch(costs, out=out)
    assert cols is out[0]
    assert totals is out[1]
    np.testing.assert_array_equal(cols, solve_batch(costs)[0])


@pytest.mark.parametrize(
    "out",
    [
        pytest.param((np.empty((4, 6), np.int32), np.empty(4)), id="dtype"),
        pytest.param((np.empty((4, 7), np.int64), np.empty(4)), id="shape"),
        pytest.param((np.empty((6, 4), np.int64).T, np.empty(4)), id="order"),
        pytest.param((np.empty((4, 6), np.int64), np.empty(8)[::2]), id="strided_totals"),
    ],
)
def test_unusable_out_arrays_are_refused(out: tuple[Costs, Costs]) -> None:
    with pytest.raises(ValueError, match="must be a writeable C-contiguous"):
        solve_batch(random_costs((4, 6, 7)), out=out)


def solve_in_worker(seed: int) -> list[list[int]]:
    cols: list[list[int]] = solve_batch(random_costs((4000, 9, 9), seed=seed), n_threads=2)[0].tolist()
    return cols


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_have_threads_of_their_own(method: str) -> None:
    expected = [solve_in_worker(seed) for seed in range(2)]  # the parent's pool exists before the fork
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map_async(solve_in_worker, range(2)).get(timeout=120) == expected
