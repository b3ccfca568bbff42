"""lwfm bench assignment: times are reported only for solvers that agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
import pytest

from lwfm.bench import bench_assignment
from lwfm.bench import solvers as solver_benchmark
from lwfm.bench.command import Family
from lwfm.bench.solvers import Peer, check_agreement, installed_peers, make_costs
from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("family", get_args(Family))
def test_families_are_finite_float32_and_seeded(family: Family) -> None:
    costs = make_costs(family, 3, 6)
    assert costs.shape == (3, 6, 6)
    assert costs.dtype == np.float32
    assert np.isfinite(costs).all()
    np.testing.assert_array_equal(costs, make_costs(family, 3, 6))


def test_a_solver_that_disagrees_is_not_timed() -> None:
    wrong = Peer("numpy", True, lambda costs, _threads: costs[:, 0].sum(axis=-1))
    with pytest.raises(RuntimeError, match=r"wrong and lwfm disagree by .* nothing was timed"):
        check_agreement("wrong", wrong, make_costs("uniform", 4, 5), 1)


def test_table_and_figure_have_a_line_for_each_solver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(solver_benchmark, "batch_size", lambda _n: 4)
    result = bench_assignment(sizes=(3, 40), family="uniform", seconds=0.0, out=tmp_path / "times.png")
    assert set(result.times) == set(installed_peers(1))
    assert {"lwfm", "SciPy", "lapjv"} <= set(result.times)
    assert all(time > 0 for times in result.times.values() for time in times.values())
    assert set(result.skipped) == set(solver_benchmark.PEERS) - set(result.times)
    assert len(str(result).splitlines()) == 4 + len(result.skipped)
    assert (tmp_path / "times.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("sizes", "threads"),
    [((), 1), ((0,), 1), ((3,), 0), ((3,), 10_000)],
    ids=["no-size", "size-0", "no-thread", "too-many-threads"],
)
def test_options_out_of_range_are_refused(sizes: tuple[int, ...], threads: int) -> None:
    with pytest.raises(UserError, match="must be"):
        bench_assignment(sizes=sizes, threads=threads)
