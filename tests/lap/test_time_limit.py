"""Time limits: calls end soon after, and say what is known by then."""

from __future__ import annotations

import copy
import pickle
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import scipy.sparse

from lwfm import lap
from tests.helpers.interruption import product

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT, PATIENCE = 0.2, 3.0  # seconds; without a limit the calls take far longer than both
N = 3000
LARGE = product(N)
BEST = float((np.arange(1.0, N + 1) * np.arange(N, 0.0, -1)).sum())
SINGLE: dict[str, Callable[[], object]] = {
    "linear_sum_assignment": lambda: lap.linear_sum_assignment(LARGE, time_limit=LIMIT),
    "transposed_integers": lambda: lap.linear_sum_assignment(LARGE.T.astype("i8"), time_limit=LIMIT),
    "k_best": lambda: lap.k_best(LARGE, 3, time_limit=LIMIT),
    "iter_best": lambda: next(lap.iter_best(LARGE, time_limit=LIMIT)),
    "lapjv": lambda: lap.lapjv(LARGE, time_limit=LIMIT),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_call_ends_soon_and_knows_a_lower_bound(name: str) -> None:
    begin = time.monotonic()
    with pytest.raises(lap.TimeLimitError, match=r"time limit of 0\.2 s") as caught:
        SINGLE[name]()
    assert time.monotonic() - begin < PATIENCE  # of which copies take some
    assert isinstance(caught.value, TimeoutError)
    assert (
        (0 if name != "transposed_integers" else -np.inf) <= caught.value.bound <= BEST
    )  # that one is copied


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("shape", ["square", "wide", "tall"])
@pytest.mark.parametrize("kind", ["float64", "int64", "huge"])
def test_sparse_problems_know_a_bound(maximize: bool, shape: str, kind: str) -> None:
    costs = product(300).astype("f8")
    costs = {"square": costs, "wide": costs[:200], "tall": costs[:, :200]}[shape]
    scale = 1e290 if kind == "huge" else 1.0
    costs = costs.astype("i8") + 2**60 if kind == "int64" else costs * scale
    costs = -costs if maximize else costs
    sparse = scipy.sparse.csr_array(costs)
    rows, columns = lap.solve_sparse(sparse, maximize)
    best = float(costs[rows, columns].sum(dtype=np.float64))
    with pytest.raises(lap.TimeLimitError, match="time limit") as caught:
        lap.solve_sparse(sparse, maximize, time_limit=1e-3)
    bound = float(caught.value.bound)
    assert np.isfinite(bound)
    slack = 1e-12 * abs(best)
    assert (bound >= best - slack) if maximize else (bound <= best + slack)
    cheapest = float(costs.max() if maximize else costs.min()) * min(costs.shape)
    assert (bound < cheapest) if maximize else (bound > cheapest)  # more than the entries alone prove


def test_an_upper_bound_when_maximizing() -> None:
    with pytest.raises(lap.TimeLimitError) as caught:
        lap.linear_sum_assignment(-LARGE, maximize=True, time_limit=LIMIT)
    assert -BEST <= caught.value.bound < 0


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_batch_tells_solved_problems_from_others(n_threads: int) -> None:
    easy = 2 - np.eye(N, dtype=LARGE.dtype)
    costs = np.stack([easy, LARGE, LARGE])
    with pytest.raises(lap.TimeLimitError) as caught:
        lap.solve_batch(costs, n_threads=n_threads, time_limit=1.0)
    first, second, third = np.asarray(caught.value.bound)
    assert first == N
    assert second <= BEST
    assert third <= BEST


def test_the_bound_with_a_cost_limit_counts_the_unmatched() -> None:
    with pytest.raises(lap.TimeLimitError) as caught:
        lap.solve_batch(LARGE[None], cost_limit=1e7, time_limit=LIMIT)
    (bound,) = np.asarray(caught.value.bound)
    assert bound <= BEST  # all pairs, none unmatched


def test_ragged_batches_have_bounds_too() -> None:
    with pytest.raises(lap.TimeLimitError) as caught:
        lap.solve_batch([np.eye(2), LARGE], n_threads=1, time_limit=LIMIT)
    first, second = np.asarray(caught.value.bound)
    assert first == 0.0
    assert second <= BEST


def test_the_bottleneck_bound_is_a_lower_bound() -> None:
    cost = np.random.default_rng(1).random((700, 700))
    with pytest.raises(lap.TimeLimitError) as caught:
        lap.bottleneck(cost, lexicographic=True, time_limit=LIMIT)
    assert caught.value.bound <= lap.bottleneck(cost)[1]
    with pytest.raises(lap.TimeLimitError) as later:
        lap.k_best(cost, 10**6, time_limit=LIMIT)
    assert lap.k_best(cost, 1)[1][0] <= later.value.bound


def test_an_iterator_continues_after_its_limit() -> None:
    cost = np.random.default_rng(2).random((400, 400))
    expected = lap.k_best(cost, 15)[1]
    ranking = lap.iter_best(cost, time_limit=1e-9)
    totals: list[float] = []
    tries = 0
    while len(totals) < 15:
        try:
            totals.append(next(ranking)[1])
        except lap.TimeLimitError:
            tries += 1
            if tries > 20:  # steps that never end in time
                ranking._time_limit = None  # type: ignore[attr-defined]
    np.testing.assert_array_equal(totals, expected)
    assert tries > 0


@pytest.mark.parametrize("time_limit", [None, np.inf, 1e300, 60, np.float32(60)])
def test_what_ends_in_time_is_not_touched(time_limit: float | None) -> None:
    cost = np.random.default_rng(3).random((50, 50))
    expected = lap.linear_sum_assignment(cost)
    np.testing.assert_array_equal(lap.linear_sum_assignment(cost, time_limit=time_limit), expected)


@pytest.mark.parametrize(
    ("time_limit", "error"),
    [
        (0, ValueError),
        (-1.0, ValueError),
        (np.nan, ValueError),
        ("1", TypeError),
        (True, TypeError),
        ([], TypeError),
    ],
    ids=str,
)
def test_other_limits_are_refused(time_limit: float, error: type[Exception]) -> None:
    calls: list[Callable[[], object]] = [
        lambda: lap.linear_sum_assignment(np.eye(2), time_limit=time_limit),
        lambda: lap.solve_batch(np.eye(2)[None], time_limit=time_limit),
        lambda: lap.bottleneck(np.eye(2), time_limit=time_limit),
        lambda: lap.k_best(np.eye(2), 1, time_limit=time_limit),
        lambda: lap.lapjv(np.eye(2), time_limit=time_limit),
        lambda: lap.solve_sparse(scipy.sparse.csr_array(np.eye(2)), time_limit=time_limit),
    ]
    for call in calls:
        with pytest.raises(error, match="time_limit must be a positive number of seconds"):
            call()


@pytest.mark.parametrize("bound", [1.5, np.array([1.0, np.inf])], ids=["one", "batch"])
def test_the_error_can_be_copied_and_sent_to_another_process(bound: float) -> None:
    error = lap.TimeLimitError("too late", bound)
    for same in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert str(same) == "too late"
        np.testing.assert_array_equal(same.bound, bound)
