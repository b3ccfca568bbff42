"""lwfm.lap against SciPy and lapjv on generated problems, and against its own dual certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from lapjv import lapjv as reference_lapjv
from numpy.typing import NDArray

from lwfm import lap

if TYPE_CHECKING:
    from collections.abc import Callable

Costs = NDArray[Any]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12)
EPS32 = float(np.finfo(np.float32).eps)


def bounded(dtype: str, magnitude: float) -> st.SearchStrategy[Costs]:
    limit = float(np.float32(magnitude))
    floats = st.floats(-limit, limit, width=32) if dtype == "f4" else st.floats(-limit, limit)
    return hnp.arrays(dtype, SHAPES, elements=floats)


def few_values(dtype: str, values: list[float]) -> st.SearchStrategy[Costs]:
    return hnp.arrays(dtype, SHAPES, elements=st.sampled_from(values))


FAMILIES = {
    "float64": bounded("f8", 1.0),
    "float32": bounded("f4", 1.0),
    "huge": bounded("f8", 1e30),
    "huge_float32": bounded("f4", 1e30),
    "tiny": bounded("f8", 1e-30),
    "tiny_float32": bounded("f4", 1e-30),
    "ties": few_values("f8", [0.0, 0.5, 1.0, 2.0]),
    "two_values": few_values("f4", [-1.0, 1.0]),
    "nearly_tied": few_values("f8", [1.0, 1.0 + 1e-15, 1.0 - 1e-15, 1.0 + 1e-14]),
    "int64": hnp.arrays(np.int64, SHAPES, elements=st.integers(-(2**40), 2**40)),
    "int8": hnp.arrays(np.int8, SHAPES),
    "uint16": hnp.arrays(np.uint16, SHAPES),
    "bool": hnp.arrays(np.bool_, SHAPES),
}
SPARSE = few_values("f8", [np.inf, np.inf, 0.0, 1.0, 2.5])


def totals_match(cost: Costs, ours: float, best: float) -> bool:
    """The contract: within 4 n eps32 of the largest cost for float32, within float64 rounding otherwise."""
    finite = np.abs(cost[np.isfinite(cost)].astype(np.float64))
    eps = EPS32 if cost.dtype == np.float32 else 4e-16
    return bool(abs(ours - best) <= 4 * max(cost.shape) * eps * finite.max(initial=0.0))


@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("family", FAMILIES)
def test_totals_equal_scipys(family: str, maximize: bool) -> None:
    @settings(max_examples=150)
    @given(FAMILIES[family])
    def check(cost: Costs) -> None:
        best = cost[scipy.optimize.linear_sum_assignment(cost, maximize)].astype(np.float64).sum()
        row_ind, col_ind = lap.linear_sum_assignment(cost, maximize)
        assert len(row_ind) == min(cost.shape) == len(np.unique(col_ind))
        assert totals_match(cost, cost[row_ind, col_ind].astype(np.float64).sum(), best)
        cols, totals = lap.solve_batch(cost[None], maximize)
        np.testing.assert_array_equal(cols[0][row_ind], col_ind)
        assert totals_match(cost, totals[0], best)

    check()


@settings(max_examples=400)
@given(SPARSE)
def test_forbidden_pairs_are_avoided_and_infeasibility_is_found(cost: Costs) -> None:
    try:
        best = cost[scipy.optimize.linear_sum_assignment(cost)].sum()
    except ValueError:
        with pytest.raises(ValueError, match="cost matrix is infeasible"):
            lap.linear_sum_assignment(cost)
        return
    assert cost[lap.linear_sum_assignment(cost)].sum() == best


@settings(max_examples=200)
@given(hnp.arrays(np.float64, st.integers(1, 12).map(lambda n: (n, n)), elements=st.floats(0, 1)))
def test_totals_equal_lapjvs(cost: Costs) -> None:
    total = lap.lapjv(cost)[2][0]
    assert total == pytest.approx(reference_lapjv(cost, force_doubles=True)[2][0], rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("family", ["float64", "float32", "huge", "tiny", "ties", "nearly_tied", "int64"])
def test_duals_prove_optimality(family: str) -> None:
    @settings(max_examples=100)
    @given(FAMILIES[family])
    def check(cost: Costs) -> None:
        cost = cost[: min(cost.shape), : min(cost.shape)]
        row_ind, col_ind, (total, u, v) = lap.lapjv(cost)
        exact = cost.astype(np.float64)
        tolerance = 1e-14 * max(1, len(cost)) * np.abs(exact).max(initial=0.0)
        assert (u[:, None] + v - exact <= tolerance).all()
        rows = np.arange(len(cost))
        assert (np.abs(u + v[row_ind] - exact[rows, row_ind]) <= tolerance).all()
        np.testing.assert_array_equal(col_ind[row_ind], rows)
        assert abs(u.sum() + v.sum() - total) <= tolerance * max(1, len(cost))

    check()


@pytest.mark.parametrize("shape", [(150, 150), (60, 200), (200, 60), (1, 300), (300, 1)], ids=str)
@pytest.mark.parametrize(
    "family", ["uniform", "integers", "geometric", "product", "two_valued", "cosine", "sparse"]
)
def test_larger_problems_equal_scipys(family: str, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(sum(shape))
    n, m = shape
    a, b = rng.random((n, 8)), rng.random((m, 8))
    families: dict[str, Callable[[], Costs]] = {
        "uniform": lambda: rng.random(shape),
        "integers": lambda: rng.integers(0, 10, shape),
        "geometric": lambda: np.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1]),
        "product": lambda: np.outer(np.arange(n), np.arange(m)),
        "two_valued": lambda: rng.integers(0, 2, shape) * 1e12,
        "cosine": lambda: (1 - np.corrcoef(a, b)[:n, n:]).astype(np.float32),
        "sparse": lambda: np.where(rng.random(shape) < 0.7, np.inf, rng.random(shape)),
    }
    cost = families[family]()
    if family == "sparse":  # a diagonal of allowed pairs keeps it feasible
        k = np.arange(min(shape))
        cost[k, k] = 1.0
    best = cost[scipy.optimize.linear_sum_assignment(cost)].astype(np.float64).sum()
    assert totals_match(cost, lap.solve_batch(cost[None])[1][0], best)
