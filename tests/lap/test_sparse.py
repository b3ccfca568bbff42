"""lwfm.lap.solve_sparse against SciPy's sparse and our dense solver."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from lwfm.lap import linear_sum_assignment, solve_sparse


def random_problem(shape: tuple[int, int], density: float, seed: int, *, integers: bool) -> csr_array:
    rng = np.random.default_rng(seed)
    costs = rng.integers(1, 20, shape) if integers else rng.random(shape) + 0.1
    return csr_array(np.where(rng.random(shape) < density, costs, 0).astype(np.float64))


@pytest.mark.parametrize("integers", [False, True], ids=["reals", "integers"])
@pytest.mark.parametrize("maximize", [False, True], ids=["minimize", "maximize"])
@pytest.mark.parametrize("shape", [(1, 1), (6, 6), (50, 50), (20, 60), (60, 20), (150, 150)], ids=str)
@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_agrees_with_scipy(shape: tuple[int, int], density: float, maximize: bool, integers: bool) -> None:
    for seed in range(5):
        costs = random_problem(shape, density, seed, integers=integers)
        try:
            expected = costs[min_weight_full_bipartite_matching(costs, maximize)].sum()
        except ValueError:
            with pytest.raises(ValueError, match="cost matrix is infeasible"):
                solve_sparse(costs, maximize)
            continue
        row_ind, col_ind = solve_sparse(costs, maximize)
        np.testing.assert_array_equal(row_ind, np.sort(row_ind))
        assert len(row_ind) == min(shape) == len(np.unique(col_ind))
        assert (costs[row_ind, col_ind] != 0).all()
        assert costs[row_ind, col_ind].sum() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)], ids=str)
def test_empty_problems(shape: tuple[int, int]) -> None:
    row_ind, col_ind = solve_sparse(csr_array(shape, dtype=np.float64))
    assert row_ind.shape == col_ind.shape == (0,)


def test_stored_zeros_are_pairs_and_stored_infinities_are_not() -> None:
    costs = csr_array((np.array([0.0, np.inf, 1.0, 7.0]), ([0, 0, 1, 1], [0, 1, 0, 1])), shape=(2, 2))
    np.testing.assert_array_equal(solve_sparse(costs)[1], [0, 1])


def test_duplicates_are_summed_as_scipy_does() -> None:
    costs = coo_array(([1.0, 5.0, 2.0, 2.0, 3.0], ([0, 0, 0, 1, 1], [0, 0, 1, 0, 1])), shape=(2, 2))
    np.testing.assert_array_equal(solve_sparse(costs)[1], [1, 0])


@pytest.mark.parametrize("shape", [(3, 4), (4, 3)], ids=str)
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_invalid_entries_are_named(shape: tuple[int, int], bad: float) -> None:
    dense = np.ones(shape)
    dense[2, 1] = bad
    with pytest.raises(ValueError, match=rf"costs\[2, 1\] is {bad}"):
        solve_sparse(csr_array(dense))


def test_only_sparse_real_matrices_are_taken() -> None:
    with pytest.raises(TypeError, match="sparse"):
        solve_sparse(np.ones((2, 2)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="real"):
        solve_sparse(csr_array(np.eye(2, dtype=complex)))


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1e30, 1e306])
def test_scales_do_not_matter(scale: float) -> None:
    costs = random_problem((40, 40), 0.4, 1, integers=False)
    dense = np.where(costs.toarray() == 0, np.inf, costs.toarray())
    expected = linear_sum_assignment(dense)[1]
    np.testing.assert_array_equal(solve_sparse(costs * scale)[1], expected)
