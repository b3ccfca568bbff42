"""The benchmarks on tensors of a device: what disagrees, fails or is missing is named and not timed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from benchmarks.speed.head_forms import CUDA_FORMS, EXPRESSIONS
from lwfm.bench import bench_matching, solvers_cuda
from lwfm.bench.head import measure
from lwfm.bench.head_cases import CASES, FORMS, Form
from lwfm.bench.solver_table import OURS, Problems
from lwfm.bench.solvers_cuda import DeviceSolver, make_solved_costs, time_solvers_on
from lwfm.cli import main
from lwfm.ops import linear_assignment

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers_cuda, "batch_size", lambda _n: 4)
    monkeypatch.setattr(solvers_cuda, "large_batch", lambda _n: 9)


def out_of_memory(costs: Tensor) -> Tensor:
    raise torch.OutOfMemoryError("tried to allocate\n2 GiB")


def test_copies_are_other_problems_with_the_same_totals(device: torch.device) -> None:
    problems = make_solved_costs("uniform", Problems(20, 50), device)
    assert problems.costs.shape == (50, 20, 20)
    assert problems.costs.device.type == device.type
    assert len({tuple(cost) for cost in problems.costs.flatten(1).tolist()}) == 50
    problems.check(OURS, linear_assignment)


def test_table_names_what_is_left_out(
    device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {
        "worst": DeviceSolver("numpy", lambda costs: linear_assignment(costs, maximize=True)),
        "repeats": DeviceSolver("numpy", lambda costs: costs.argmin(-1)),
        "large": DeviceSolver("numpy", out_of_memory),
        "nowhere": DeviceSolver("no_such_solver", out_of_memory),
    }
    solvers = {**solvers_cuda.SOLVERS, **others}
    monkeypatch.setattr(solvers_cuda, "SOLVERS", solvers)
    result = time_solvers_on(device, sizes=(5, 40), seconds=0.0)
    assert result.batches == [Problems(5, 4), Problems(5, 9), Problems(40, 4), Problems(40, 9)]
    for name in (OURS, "lwfm, host", "SciPy, host"):
        assert all(result.times[name][problems] > 0 for problems in result.batches)
    text = str(result)
    assert "worst on 5 x 4: RuntimeError: worst and the CPU disagree by" in text
    assert "repeats on 5 x 9: RuntimeError" in text
    assert "large on 40 x 9: out of memory" in text
    assert "nowhere: the package no_such_solver is not installed" in text
    assert f"torch {torch.__version__}" in text
    result.figure().savefig(tmp_path / "times.png")
    assert (tmp_path / "times.png").stat().st_size > 10_000


def test_our_own_failure_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = DeviceSolver("lwfm", lambda costs: costs.argmin(-1))
    monkeypatch.setattr(solvers_cuda, "SOLVERS", {OURS: wrong})
    with pytest.raises(RuntimeError, match=r"lwfm and the CPU disagree by"):
        time_solvers_on(torch.device("cpu"), sizes=(30,))


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize("subject", ["assignment", "matching"])
def test_no_gpu_is_an_error_of_the_user(subject: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", subject, "--device", "cuda"]) == 2
    assert "--device cuda was asked for, but torch finds no CUDA device" in capsys.readouterr().err


class Wrong(nn.Module):
    def forward(self, support: Tensor, _labels: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        return torch.rand(75, 5) * query.mean(), torch.rand(75, 64) * support.mean()


def test_forms_on_other_products_agree_and_wrong_ones_are_left_out() -> None:
    forms: dict[str, Form] = {
        **FORMS,
        **EXPRESSIONS,
        "wrong": lambda _head, _size: Wrong(),
        "fails": lambda _head, _size: nn.Linear(3, 3),
    }
    result = measure([CASES["5x1xF3"]], lambda _: forms, threads=1, rounds=1, peak=None)
    assert {row.form for row in result.rows} == forms.keys() - {"wrong", "fails"}
    assert "wrong and the head differ by" in result.skipped["wrong on 5x1xF3, forward"]
    assert "left out: fails on 5x1xF3, forward+backward: TypeError" in str(result)


def test_the_head_must_not_fail() -> None:
    forms: dict[str, Form] = {**FORMS, "head": lambda _head, _size: Wrong()}
    with pytest.raises(RuntimeError, match="head and the head differ"):
        measure([CASES["5x1xF3"]], lambda _: forms, threads=1, rounds=1, peak=None)


@pytest.mark.gpu
def test_the_command_on_a_gpu() -> None:
    result = bench_matching(device="cuda", cases=("5x1xF3",), rounds=1)
    assert {row.form for row in result.rows} == {*FORMS}
    assert torch.cuda.get_device_name() in str(result)


@pytest.mark.gpu
def test_forms_on_a_gpu() -> None:
    forms = {**FORMS, **EXPRESSIONS, **CUDA_FORMS}
    result = measure(
        [CASES["5x1xF3"]],
        lambda _: forms,
        threads=1,
        rounds=1,
        peak=None,
        device=torch.device("cuda"),
    )
    assert {row.form for row in result.rows} | {name.split(" on ")[0] for name in result.skipped} == {*forms}
