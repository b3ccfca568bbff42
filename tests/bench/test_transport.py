"""lwfm bench transport: times are reported only for solvers that agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
import torch

from lwfm.bench import bench_transport
from lwfm.bench import transport as transport_benchmark
from lwfm.bench.command import Weights
from lwfm.bench.transport import check_agreement, installed_solvers, make_problems
from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("weights", get_args(Weights))
def test_problems_are_balanced_and_seeded(weights: Weights) -> None:
    problems = make_problems(weights, 3, 6)
    assert problems.cost.shape == (3, 6, 6)
    for side in problems[1:]:
        assert (side > 0).all()
        torch.testing.assert_close(side.sum(-1), torch.ones(3, dtype=torch.float64))
    assert all(torch.equal(a, b) for a, b in zip(problems, make_problems(weights, 3, 6), strict=True))


def test_a_solver_that_disagrees_is_not_timed() -> None:
    problems = make_problems("uniform", 4, 5)
    with pytest.raises(RuntimeError, match=r"wrong and lwfm disagree by .* nothing was timed"):
        check_agreement("wrong", lambda p: p.row_weights[:, :, None] * p.column_weights[:, None], problems)


def test_table_and_figure_have_a_line_for_each_solver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_benchmark, "batch_size", lambda _n: 4)
    before = torch.get_num_threads()
    result = bench_transport(sizes=(3, 40), seconds=0.0, out=tmp_path / "times.png")
    assert torch.get_num_threads() == before
    assert set(result.times) == set(installed_solvers())
    assert all(time > 0 for times in result.times.values() for time in times.values())
    lines = str(result).splitlines()
    assert lines[0].startswith(
        "microseconds per problem, cosine costs, cross_reference weights, float64, 1 thr"
    )
    assert len(lines) == 4
    assert (tmp_path / "times.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("sizes", "threads"), [((), 1), ((0,), 1), ((3,), 0)], ids=["no-size", "size-0", "no-thread"]
)
def test_options_out_of_range_are_refused(sizes: tuple[int, ...], threads: int) -> None:
    with pytest.raises(UserError, match="must be"):
        bench_transport(sizes=sizes, threads=threads)
