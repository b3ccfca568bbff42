"""bottleneck against SciPy's maximum matching within a threshold, and against all small assignments."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from lwfm import lap
from tests.helpers.costs import FAMILIES, SHAPES, Costs

if TYPE_CHECKING:
    from collections.abc import Callable

ANY = FAMILIES | {
    "any_magnitude": hnp.arrays("f8", SHAPES, elements=st.floats(allow_nan=False, allow_infinity=False))
}


def sorted_costs(cost: Costs, cols: Any, maximize: bool) -> list[float]:
    """Return the chosen costs from the worst to the best."""
    chosen = [float(cost[i, j]) for i, j in enumerate(cols) if j >= 0]
    return sorted(chosen, reverse=not maximize)


def best_of_all(cost: Costs, maximize: bool) -> list[float] | None:
    """Return the best costs, from the worst to the best, among all assignments; None if there are none."""
    wide = cost.T if len(cost) > cost.shape[1] else cost
    found = [
        sorted_costs(wide, cols, maximize) for cols in itertools.permutations(range(wide.shape[1]), len(wide))
    ]
    allowed = [costs for costs in found if np.isfinite(costs).all()]
    if not allowed:
        return None
    return max(allowed) if maximize else min(allowed)


def smallest_threshold(cost: Costs) -> float:
    """Return the smallest cost within which all of the shorter side can be matched, by bisection."""
    values = np.unique(cost)

    def is_enough(k: int) -> bool:
        matching = maximum_bipartite_matching(csr_array(cost <= values[k]))
        return bool((matching >= 0).sum() == min(cost.shape))

    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return float(values[low])


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("family", ANY)
def test_small_problems_equal_the_best_of_all(family: str, maximize: bool) -> None:
    @settings(max_examples=120)
    @given(ANY[family])
    def check(cost: Costs) -> None:
        if family == "forbidden" and maximize:
            cost = -cost
        expected = best_of_all(cost, maximize)
        for lexicographic in (False, True):
            if expected is None:
                with pytest.raises(ValueError, match="infeasible"):
                    lap.bottleneck(cost, maximize, lexicographic=lexicographic)
                continue
            cols, value = lap.bottleneck(cost, maximize, lexicographic=lexicographic)
            assert (cols >= 0).sum() == min(cost.shape) == len(np.unique(cols[cols >= 0]))
            costs = sorted_costs(cost, cols, maximize)
            assert value == costs[0] == expected[0]
            if lexicographic:
                assert costs == expected

    check()


@pytest.mark.parametrize("shape", [(80, 80), (50, 120), (120, 50), (300, 300)], ids=str)
@pytest.mark.parametrize("family", ["uniform", "integers", "two_valued", "geometric", "product", "cosine"])
def test_larger_problems_equal_scipys_matching(family: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    n, m = shape
    a, b = rng.random((n, 8)), rng.random((m, 8))
    families: dict[str, Callable[[], Costs]] = {
        "uniform": lambda: rng.random(shape),
        "integers": lambda: rng.integers(0, 50, shape),
        "two_valued": lambda: rng.integers(0, 2, shape) * 1e12,
        "geometric": lambda: np.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1]),
        "product": lambda: np.outer(np.arange(n), np.arange(m)),
        "cosine": lambda: (1 - np.corrcoef(a, b)[:n, n:]).astype(np.float32),
    }
    cost = families[family]()
    cols, largest = lap.bottleneck(cost)
    assert (cols >= 0).sum() == min(shape) == len(np.unique(cols[cols >= 0]))
    assert largest == sorted_costs(cost, cols, False)[0] == smallest_threshold(cost)
    assert lap.bottleneck(-cost.astype("f8"), maximize=True)[1] == -largest


def test_the_refinement_is_not_worse_and_keeps_the_bottleneck() -> None:
    cost = np.random.default_rng(5).integers(0, 30, (90, 90))
    plain, refined = (lap.bottleneck(cost, lexicographic=refine)[0] for refine in (False, True))
    assert sorted_costs(cost, refined, False) <= sorted_costs(cost, plain, False)
    assert lap.bottleneck(cost, lexicographic=True)[1] == lap.bottleneck(cost)[1]


def test_a_batch_equals_its_problems_on_any_number_of_threads() -> None:
    costs = np.random.default_rng(2).random((300, 7, 9)).astype("f4")
    one, two = (lap.bottleneck(costs, n_threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])
    for cost, cols, largest in zip(costs, *one, strict=True):
        single = lap.bottleneck(cost)
        np.testing.assert_array_equal(single[0], cols)
        assert single[1] == largest


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (4, 0)], ids=str)
def test_empty_problems_have_no_largest_cost(shape: tuple[int, int], maximize: bool) -> None:
    cols, largest = lap.bottleneck(np.empty(shape), maximize)
    assert cols.tolist() == [-1] * shape[0]
    assert largest == (np.inf if maximize else -np.inf)


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "vector": (lambda: lap.bottleneck(np.ones(3)), ValueError, "2-D or 3-D array"),
    "nan": (lambda: lap.bottleneck([[1, np.nan]]), ValueError, r"costs\[0, 1\] is nan"),
    "nan_of_a_batch": (lambda: lap.bottleneck([[[1.0]], [[np.nan]]]), ValueError, r"costs\[1, 0, 0\] is nan"),
    "infinity": (lambda: lap.bottleneck([[-np.inf]]), ValueError, r"costs\[0, 0\] is -inf"),
    "refine": (lambda: lap.bottleneck([[1]], lexicographic=2), TypeError, "lexicographic"),  # type: ignore[arg-type]
    "limit": (lambda: lap.bottleneck([[1]], time_limit=-1), ValueError, "time_limit must be a positive"),
    "masked": (lambda: lap.bottleneck(np.ma.masked_less(np.eye(2), 1)), TypeError, "masked"),
    "sparse": (lambda: lap.bottleneck(csr_array(np.eye(2))), TypeError, "sparse"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_refused(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
