"""lwfm.lap.solve_sparse against SciPy's sparse and our dense solver."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import bsr_array, coo_array, csc_array, csr_array
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


def damaged(form: Any, **arrays: Any) -> Any:
    """Return a 3 x 3 matrix of ones on the diagonal with some of its arrays replaced."""
    costs = form(np.eye(3))
    for name, array in arrays.items():
        setattr(costs, name, np.array(array))
    return costs


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        pytest.param(
            damaged(csr_array, indices=[0, 5_000_000, 9]), r"costs.indices\[1\] is 5000000", id="far"
        ),
        pytest.param(
            damaged(csr_array, indices=[0, 1, 3]), r"from 0 to 2, but costs.indices\[2\] is 3", id="end"
        ),
        pytest.param(damaged(csr_array, indices=[0, 1, -7]), r"costs.indices\[2\] is -7", id="negative"),
        pytest.param(damaged(csr_array, indices=[0, 1, 2**40]), r"is 1099511627776", id="64_bits"),
        pytest.param(
            damaged(csr_array, indices=[0, 1]), r"indptr must end at 2, .*indptr\[3\] is 3", id="few"
        ),
        pytest.param(damaged(csr_array, indices=[0, 1, 2, 2]), r"one length, got 4 and 3", id="many"),
        pytest.param(damaged(csr_array, data=[1.0]), r"one length, got 3 and 1", id="data"),
        pytest.param(damaged(csr_array, indices=[[0, 1, 2]]), r"indptr must end at 1", id="indices_2d"),
        pytest.param(
            damaged(csr_array, indptr=[0, 1, 2]), r"indptr must have shape \(4,\)", id="indptr_short"
        ),
        pytest.param(damaged(csr_array, indptr=[0, 1, 2, 3, 3]), r"indptr must have shape", id="indptr_long"),
        pytest.param(damaged(csr_array, indptr=[0, 3, 2, 3]), r"indptr\[2\] is 2 after 3", id="decreasing"),
        pytest.param(damaged(csr_array, indptr=[1, 1, 2, 3]), r"indptr\[0\] is 1", id="indptr_start"),
        pytest.param(damaged(csr_array, indptr=[0, 1, 2, 2**62]), r"indptr\[3\] is 4611", id="indptr_end"),
        pytest.param(damaged(csc_array, indices=[0, 8, 2]), r"costs.indices\[1\] is 8", id="csc"),
        pytest.param(damaged(csc_array, indptr=[0, 3, 2, 3]), r"indptr\[2\] is 2 after 3", id="csc_indptr"),
        pytest.param(damaged(bsr_array, indices=[0, 8, 2]), r"costs.indices\[1\] is 8", id="bsr"),
        pytest.param(damaged(coo_array, row=[0, -1, 2]), r"costs.row\[1\] is -1", id="coo_row"),
        pytest.param(damaged(coo_array, col=[0, 1, 30]), r"costs.col\[2\] is 30", id="coo_col"),
        pytest.param(
            coo_array([1.0, 2.0]), r"two-dimensional, got a sparse array of shape \(2,\)", id="vector"
        ),
    ],
)
def test_damaged_structure_is_named(costs: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_sparse(costs)


@pytest.mark.parametrize("name", ["indices", "indptr"])
def test_indices_are_integers(name: str) -> None:
    with pytest.raises(TypeError, match=f"costs.{name} must hold integers, got float64"):
        solve_sparse(damaged(csr_array, **{name: [0.0, 1.0, 2.0, 3.0]}))


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)], ids=str)
@pytest.mark.parametrize("index", [3, 7, 10**9, -1])
def test_indices_beyond_a_rectangle_are_named(shape: tuple[int, int], index: int) -> None:
    starts = np.arange(shape[0] + 1)
    indices = np.array([0] * (shape[0] - 1) + [index])
    costs = csr_array((np.ones(shape[0]), indices, starts), shape=shape)
    with pytest.raises(ValueError, match=rf"costs.indices\[{shape[0] - 1}\] is {index}"):
        solve_sparse(costs)


def test_flags_that_are_out_of_date_do_not_matter() -> None:
    stored = (np.array([1.0, 5.0, 2.0, 2.0, 3.0]), np.array([0, 0, 1, 0, 1]), np.array([0, 3, 5]))
    costs = csr_array(stored, shape=(2, 2))
    costs.has_canonical_format = True
    np.testing.assert_array_equal(solve_sparse(costs)[1], [1, 0])
    np.testing.assert_array_equal(costs.indices, [0, 0, 1, 0, 1])  # as they were


ENTRIES = st.lists(st.integers(-3, 6), max_size=6)


@settings(max_examples=400)
@given(
    ENTRIES,
    ENTRIES,
    ENTRIES,
    st.tuples(st.integers(0, 4), st.integers(0, 4)),
    st.sampled_from(["i4", "i8", "u2"]),
)
def test_any_arrays_are_solved_or_refused(
    starts: list[int], indices: list[int], data: list[int], shape: tuple[int, int], dtype: str
) -> None:
    costs = csr_array(shape)
    costs.indptr, costs.indices = (np.array(x).astype(dtype) for x in (starts, indices))
    costs.data = np.array(data, dtype=np.float64)
    try:
        row_ind, col_ind = solve_sparse(costs)
    except ValueError as error:
        assert str(error).startswith(("costs.", "cost matrix is infeasible"))  # noqa: PT017
        return
    assert len(row_ind) == min(shape) == len(np.unique(col_ind))
