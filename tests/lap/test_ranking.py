"""k_best and iter_best: all assignments of small problems in order, proofs on larger ones."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lwfm import lap
from tests.helpers.costs import FAMILIES, Costs

if TYPE_CHECKING:
    from collections.abc import Callable


def all_assignments(cost: Costs, maximize: bool = False) -> list[tuple[float, list[int]]]:
    """Return the totals and columns of all complete assignments in the order that k_best documents."""
    n, m = cost.shape
    found = []
    longer, shorter = max(n, m), min(n, m)
    for chosen in itertools.permutations(range(longer), shorter):
        cols = list(chosen)
        if n > m:
            cols = [chosen.index(i) if i in chosen else -1 for i in range(n)]
        total = 0.0
        for i, j in enumerate(cols):
            total += float(cost[i, j]) if j >= 0 else 0.0
        if np.isfinite(total):
            found.append((total, cols))
    return sorted(found, key=lambda one: (-one[0] if maximize else one[0], one[1]))


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("family", FAMILIES)
def test_small_problems_equal_all_assignments(family: str, maximize: bool) -> None:
    @settings(max_examples=120)
    @given(FAMILIES[family], st.integers(1, 150))
    def check(cost: Costs, k: int) -> None:
        if family == "forbidden" and maximize:
            cost = -cost
        expected = all_assignments(cost, maximize)
        if not expected:
            with pytest.raises(ValueError, match="infeasible"):
                lap.k_best(cost, k, maximize)
            return
        cols, totals = lap.k_best(cost, k, maximize)
        assert cols.shape == (min(k, len(expected)), len(cost))
        assert len({tuple(one) for one in cols.tolist()}) == len(cols)
        largest = float(np.abs(cost[np.isfinite(cost)].astype("f8")).max())
        wanted = [total for total, _ in expected[: len(cols)]]
        np.testing.assert_allclose(totals, wanted, rtol=0, atol=1e-14 * largest)
        assert (np.diff(totals) <= 0 if maximize else np.diff(totals) >= 0).all()
        if family in ("ties", "forbidden", "int8") and len(cols) == len(expected):
            assert cols.tolist() == [columns for _, columns in expected]

    check()


@settings(max_examples=60)
@given(FAMILIES["ties"] | FAMILIES["int64"])
def test_the_iterator_finds_every_assignment_once(cost: Costs) -> None:
    expected = all_assignments(cost)
    found = list(lap.iter_best(cost))
    assert [total for _, total in found] == [total for total, _ in expected]
    assert sorted(cols.tolist() for cols, _ in found) == sorted(cols for _, cols in expected)


def test_the_iterator_is_lazy_and_owns_its_costs() -> None:
    cost = np.random.default_rng(0).random((60, 60))
    expected = lap.k_best(cost, 20)
    ranking = lap.iter_best(cost)
    first = next(ranking)
    cost[:] = np.nan
    for (cols, total), wanted, wanted_total in zip(
        [first, *itertools.islice(ranking, 19)], *expected, strict=True
    ):
        np.testing.assert_array_equal(cols, wanted)
        assert total == wanted_total


def test_a_finished_iterator_stays_so() -> None:
    ranking = lap.iter_best(np.eye(2))
    assert len(list(ranking)) == 2
    assert list(ranking) == []


def test_an_iterator_in_use_is_refused_to_others() -> None:
    line = np.arange(1.0, 1500.0)
    ranking = lap.iter_best(np.multiply.outer(line, line), time_limit=2)
    errors: list[BaseException] = []

    def step() -> None:
        try:
            next(ranking)
        except (ValueError, TimeoutError) as error:
            errors.append(error)

    threads = [threading.Thread(target=step) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert any("in use by another thread" in str(error) for error in errors)


@pytest.mark.parametrize("shape", [(40, 40), (30, 60), (60, 30), (8, 300)], ids=str)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_the_first_is_the_optimum_and_the_next_change_little(shape: tuple[int, int], dtype: str) -> None:
    cost = (np.random.default_rng(1).random(shape) * 1000).astype(dtype)
    cols, totals = lap.k_best(cost, 50)
    assert totals[0] == pytest.approx(lap.solve_batch(cost[None])[1][0])
    assert (np.diff(totals) >= 0).all()
    assert len({tuple(one) for one in cols.tolist()}) == 50
    # The second best without the best: forbid each of its pairs in turn.
    second = np.inf
    for i, j in enumerate(cols[0]):
        if j >= 0:
            other = cost.astype("f8")
            other[i, j] = np.inf
            second = min(second, lap.solve_batch(other[None])[1][0])
    if shape[0] <= shape[1]:
        assert totals[1] == pytest.approx(second)


def test_a_batch_equals_its_problems_on_any_number_of_threads() -> None:
    costs = np.random.default_rng(2).random((30, 6, 9)).astype("f4")
    one = lap.k_best(costs, 7, n_threads=1)
    two = lap.k_best(costs, 7, n_threads=2)
    for b, cost in enumerate(costs):
        for actual, expected in zip(lap.k_best(cost, 7), (one[0][b], one[1][b]), strict=True):
            np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
def test_a_batch_is_filled_up_where_a_problem_has_fewer(maximize: bool) -> None:
    costs = np.ones((2, 3, 3))
    costs[1] = np.where(np.eye(3), 1.0, -np.inf if maximize else np.inf)
    cols, totals = lap.k_best(costs, 10, maximize)
    assert cols.shape == (2, 6, 3)
    assert cols[1].tolist() == [[0, 1, 2]] + [[-1, -1, -1]] * 5
    assert totals[1].tolist() == [3.0] + [-np.inf if maximize else np.inf] * 5


def test_strides_and_byte_orders_are_read() -> None:
    cost = np.random.default_rng(3).random((12, 10))
    expected = lap.k_best(cost, 9)
    for other in (np.asfortranarray(cost), cost[::-1, ::-1][::-1, ::-1], cost.astype(">f8"), cost.tolist()):
        np.testing.assert_array_equal(lap.k_best(other, 9)[0], expected[0])


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0)], ids=str)
def test_empty_problems_have_one_assignment(shape: tuple[int, int]) -> None:
    cols, totals = lap.k_best(np.empty(shape), 3)
    assert cols.tolist() == [[-1] * shape[0]]
    assert totals.tolist() == [0.0]


def test_an_empty_batch_is_fine() -> None:
    cols, totals = lap.k_best(np.empty((0, 3, 3)), 2)
    assert cols.shape == (0, 0, 3)
    assert totals.shape == (0, 0)


COST = np.ones((2, 2))
REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "k_zero": (lambda: lap.k_best(COST, 0), ValueError, "k must be an integer of at least 1, got 0"),
    "k_float": (lambda: lap.k_best(COST, 2.0), TypeError, "k must be an integer"),  # type: ignore[arg-type]
    "k_bool": (lambda: lap.k_best(COST, True), TypeError, "k must be an integer"),
    "vector": (lambda: lap.k_best(np.ones(3), 1), ValueError, "2-D or 3-D array"),
    "batch_iterated": (lambda: lap.iter_best(np.ones((1, 2, 2))), ValueError, "expected a matrix"),
    "maximize": (lambda: lap.k_best(COST, 1, "no"), TypeError, "maximize must be"),  # type: ignore[arg-type]
    "strings": (lambda: lap.k_best([["a"]], 1), TypeError, "real numbers"),
    "limit_zero": (lambda: lap.k_best(COST, 1, time_limit=0), ValueError, "time_limit must be"),
    "limit_text": (lambda: lap.iter_best(COST, time_limit="1"), TypeError, "time_limit"),  # type: ignore[arg-type]
    "threads": (lambda: lap.k_best(COST, 1, n_threads=0), ValueError, "n_threads"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_refused(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()


def test_bad_entries_are_named() -> None:
    costs = np.ones((3, 2, 2))
    costs[1, 0, 1] = np.nan
    with pytest.raises(ValueError, match=r"costs\[1, 0, 1\] is nan"):
        lap.k_best(costs, 2)
    with pytest.raises(ValueError, match=r"cost\[0, 1\] is nan"):
        next(lap.iter_best(costs[1]))
    costs[1] = np.inf
    with pytest.raises(ValueError, match=r"costs\[1\] uses a forbidden"):
        lap.k_best(costs, 2)
