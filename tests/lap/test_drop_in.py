"""lwfm.lap in the place of SciPy's and lapjv's functions: their own test cases and documented behavior."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from lapjv import lapjv as reference_lapjv
from scipy.spatial.distance import cdist

from lwfm import lap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

SCIPY_SUITE = "scipy.optimize.tests.test_linear_assignment"  # SciPy's wheels bring their tests


def scipy_cases() -> Iterator[Any]:
    """Every test of SciPy's suite with each of its parameters: (function, keyword arguments)."""
    for name, function in vars(import_module(SCIPY_SUITE)).items():
        if not name.startswith("test_"):
            continue
        marks = [mark for mark in getattr(function, "pytestmark", []) if mark.name == "parametrize"]
        if not marks:
            yield pytest.param(function, {}, id=name)
            continue
        names, values = marks[0].args
        for number, value in enumerate(values):
            arguments = dict(zip(names.split(","), value, strict=True))
            yield pytest.param(function, arguments, id=f"{name}-{number}")


SCIPY_CASES = list(scipy_cases())  # once: SciPy keeps some parameters in an iterator


@pytest.mark.parametrize(("function", "arguments"), SCIPY_CASES)
def test_scipys_own_tests_hold(
    function: Callable[..., None], arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = import_module(SCIPY_SUITE)
    monkeypatch.setattr(suite, "linear_sum_assignment", lap.linear_sum_assignment)
    monkeypatch.setattr(suite, "min_weight_full_bipartite_matching", lap.solve_sparse)
    function(**arguments)


def test_scipys_suite_is_found_whole() -> None:
    cases = [case.id for case in SCIPY_CASES]
    assert "test_linear_sum_assignment_small_inputs-1" in cases
    assert len(cases) > 15


def points_to_grid(size: int) -> NDArray[np.float64]:
    """Squared distances from random points to the points of a grid, up to 100 000: lapjv's use."""
    side = np.linspace(0, 1, round(size**0.5))
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    cost = cdist(np.random.default_rng(777).random((size, 2)), grid, "sqeuclidean")
    return np.asarray(cost * (100_000 / cost.max()))


@pytest.mark.parametrize("size", [100, 400])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_lapjv_lays_points_out_on_a_grid_as_that_package_does(dtype: str, size: int) -> None:
    cost = points_to_grid(size).astype(dtype)
    row_ind, col_ind, (total, _, _) = lap.lapjv(cost)
    expected_rows, expected_cols, _ = reference_lapjv(cost, force_doubles=True)
    best = cost[np.arange(size), expected_rows].sum(dtype=np.float64)
    assert total == pytest.approx(best, rel=1e-6)
    if size == 100:  # among more points, distances tie
        np.testing.assert_array_equal(row_ind, expected_rows)
        np.testing.assert_array_equal(col_ind, expected_cols)
    np.testing.assert_array_equal(np.sort(col_ind), np.arange(size))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
@pytest.mark.parametrize("force_doubles", [False, True])
def test_lapjv_returns_what_that_package_returns(force_doubles: bool, dtype: str) -> None:
    cost = np.array([[4, 1, 3], [2, 0, 5], [3, 2, 2]], dtype=dtype)
    row_ind, col_ind, (total, u, v) = lap.lapjv(cost, verbose=False, force_doubles=force_doubles)
    theirs = reference_lapjv(cost, verbose=False, force_doubles=force_doubles)
    np.testing.assert_array_equal(row_ind, theirs[0])
    np.testing.assert_array_equal(col_ind, theirs[1])
    assert (row_ind.dtype.kind, col_ind.dtype.kind) == ("i", "i")
    assert type(total) is type(theirs[2][0])
    assert total == theirs[2][0]
    assert (u.shape, v.shape) == (theirs[2][1].shape, theirs[2][2].shape)
    assert u.dtype == v.dtype == np.float64  # not rounded to float32, whatever the costs


@pytest.mark.parametrize("bad", [np.ones((2, 3)), np.ones(3), np.ones((2, 2, 2))], ids=["2x3", "1-D", "3-D"])
def test_lapjv_refuses_what_that_package_refuses(bad: NDArray[np.float64]) -> None:
    for solve in (lap.lapjv, reference_lapjv):
        with pytest.raises(ValueError, match=r"square|expected a matrix"):
            solve(bad)


def test_lapjv_solves_rectangles_the_way_its_readme_advises() -> None:
    a, b = 3, 5
    pairs = np.random.default_rng(1).random((a, b))
    square = np.full((a + b, a + b), 1e3)  # far more than any pair costs
    square[:a, a:], square[a:, :a] = pairs, pairs.T
    row_ind, _, _ = lap.lapjv(square)
    np.testing.assert_array_equal(row_ind[:a] - a, lap.linear_sum_assignment(pairs)[1])
