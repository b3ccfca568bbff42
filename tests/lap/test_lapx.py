"""lwfm.lap.lapx beside the package it stands in for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lap
import numpy as np
import pytest
from numpy.typing import NDArray

from lwfm.lap import lapx

if TYPE_CHECKING:
    from collections.abc import Callable

Costs = NDArray[Any]
SHAPES = [(1, 1), (5, 5), (4, 9), (9, 4), (40, 40), (30, 60)]
NAMES = ["lapjv", "lapjvx", "lapjvxa"]


@pytest.mark.parametrize("cost_limit", [np.inf, 40.0, -1.0])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_results_equal_lapxs(name: str, shape: tuple[int, int], dtype: str, cost_limit: float) -> None:
    cost = (np.random.default_rng(sum(shape)).random(shape) * 1000).astype(dtype)
    ours, theirs = (
        getattr(module, name)(cost, extend_cost=True, cost_limit=cost_limit) for module in (lapx, lap)
    )
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6)
    assert len(ours) == len(theirs)
    for actual, expected in zip(ours[1:], theirs[1:], strict=True):
        assert actual.dtype == expected.dtype
        if len(np.unique(cost)) == cost.size:  # else there may be several
            np.testing.assert_array_equal(actual, expected)
    bare = getattr(lapx, name)(cost, True, cost_limit, return_cost=False)
    for actual, expected in zip([bare] if name == "lapjvxa" else bare, ours[1:], strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_empty_problems_assign_nothing(name: str, shape: tuple[int, int]) -> None:
    ours, theirs = (getattr(module, name)(np.empty(shape), extend_cost=True) for module in (lapx, lap))
    assert ours[0] == theirs[0] == 0.0
    for actual, expected in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("name", NAMES)
def test_infeasible_problems_cost_infinity(name: str) -> None:
    cost = np.array([[0.0, np.inf], [0.0, np.inf]])
    assert getattr(lapx, name)(cost)[0] == getattr(lap, name)(cost)[0] == np.inf


def rows_of(cost: Costs) -> tuple[int, Costs, Costs, Costs]:
    allowed = np.isfinite(cost)
    starts = np.concatenate([[0], np.cumsum(allowed.sum(axis=1))])
    return len(cost), cost[allowed], starts, np.nonzero(allowed)[1]


@pytest.mark.parametrize("share", [1.0, 0.3, 0.08])
@pytest.mark.parametrize("n", [1, 6, 50, 200])
def test_lapmod_equals_lapxs(n: int, share: float) -> None:
    rng = np.random.default_rng(n)
    cost = np.where(rng.random((n, n)) < share, rng.random((n, n)), np.inf)
    cost[np.arange(n), rng.permutation(n)] = 0.5
    total, x, y = lapx.lapmod(*rows_of(cost))
    expected = lap.lapmod(*rows_of(cost))
    assert total == pytest.approx(expected[0])
    assert x.dtype == y.dtype == np.int32
    assert cost[np.arange(n), x].sum() == pytest.approx(total)
    np.testing.assert_array_equal(x[y], np.arange(n))
    np.testing.assert_array_equal(lapx.lapmod(*rows_of(cost), return_cost=False)[0], x)


def test_lapmod_without_an_assignment_costs_infinity() -> None:
    total, x, y = lapx.lapmod(2, [1.0, 2.0], [0, 1, 2], [0, 0])
    assert total == np.inf
    assert x.tolist() == y.tolist() == [-1, -1]


REFUSED: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "rectangle": (lambda: lapx.lapjv(np.ones((2, 3))), ValueError, "pass extend_cost=True"),
    "vector": (lambda: lapx.lapjvx(np.ones(3)), ValueError, "expected a matrix"),
    "nan": (lambda: lapx.lapjvxa([[np.nan]]), ValueError, r"cost\[0, 0\] is nan"),
    "limit": (lambda: lapx.lapjv([[1]], cost_limit=np.nan), ValueError, "cost_limit"),
    "flag": (lambda: lapx.lapjv(np.ones((2, 3)), extend_cost="no"), TypeError, "extend_cost"),  # type: ignore[call-overload]
    "square": (lambda: lapx.lapjv(np.eye(3), extend_cost="yes"), TypeError, "extend_cost"),  # type: ignore[call-overload]
    "no_rows": (lambda: lapx.lapmod(0, [], [0], np.empty(0, int)), ValueError, "there must be a row"),
    "size": (lambda: lapx.lapmod(1.5, [1.0], [0, 1], [0]), TypeError, "n must be an integer"),  # type: ignore[call-overload]
    "infinite": (lambda: lapx.lapmod(1, [np.inf], [0, 1], [0]), ValueError, "leave forbidden pairs out"),
    "lengths": (lambda: lapx.lapmod(1, [1.0], [0, 1], [0, 0]), ValueError, "cc and kk must be"),
    "starts": (lambda: lapx.lapmod(2, [1.0, 2.0], [0, 3, 2], [0, 1]), ValueError, "ii must be n"),
    "range": (lambda: lapx.lapmod(1, [1.0], [0, 1], [1]), ValueError, "kk must be from 0 to 0"),
    "order": (lambda: lapx.lapmod(2, [1.0, 2.0], [0, 2, 2], [1, 0]), ValueError, "kk must ascend"),
    "floats": (lambda: lapx.lapmod(1, [1.0], [0, 1], [0.0]), TypeError, "kk must hold integers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_arguments_are_refused(name: str) -> None:
    call, error, message = REFUSED[name]
    with pytest.raises(error, match=message):
        call()
