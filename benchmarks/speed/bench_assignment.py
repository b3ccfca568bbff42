"""Every installed assignment solver on every family of costs, with pytest-benchmark.

    pytest benchmarks/speed/bench_assignment.py --benchmark-group-by=group
    pytest benchmarks/speed/bench_assignment.py -k "cosine and 9-"
    pytest benchmarks/speed/bench_assignment.py -m gpu

The last command times the operator on CUDA tensors beside other ways to solve them there. ``lwfm bench
assignment [--device cuda]`` prints the table and draws the figure of the same measurements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import pytest
import torch

from lwfm.bench.command import Family
from lwfm.bench.solver_table import Problems
from lwfm.bench.solvers import batch_size, check_agreement, installed_peers, make_costs
from lwfm.bench.solvers_cuda import SOLVERS as DEVICE_SOLVERS
from lwfm.bench.solvers_cuda import large_batch, make_solved_costs
from lwfm.lap import default_threads

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

SIZES = (9, 16, 25, 32, 49, 100, 196, 512, 1024)
THREADS = sorted({1, default_threads()})
SOLVERS = [(name, threads) for threads in THREADS for name in installed_peers(threads)]


@pytest.mark.parametrize(("name", "threads"), SOLVERS, ids=[f"{name}-{t}threads" for name, t in SOLVERS])
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("family", get_args(Family))
def test_solver(benchmark: BenchmarkFixture, family: Family, n: int, name: str, threads: int) -> None:
    costs = make_costs(family, batch_size(n), n)
    peer = installed_peers(threads)[name]
    check_agreement(name, peer, costs, threads)
    benchmark.group = f"{family} {n} x {len(costs)}, {threads} thread(s)"
    benchmark.extra_info["microseconds_per_problem"] = "min of a round, divided by the batch"
    benchmark(peer.solve, costs, threads)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", DEVICE_SOLVERS)
@pytest.mark.parametrize("batch_of", [batch_size, large_batch], ids=["small", "large"])
@pytest.mark.parametrize("n", SIZES)
def test_solver_of_tensors(
    benchmark: BenchmarkFixture, n: int, batch_of: object, name: str, device: str
) -> None:
    assert callable(batch_of)
    solver = DEVICE_SOLVERS[name]
    pytest.importorskip(solver.package)
    problems = make_solved_costs("cosine", Problems(n, batch_of(n)), torch.device(device))
    problems.check(name, solver.solve)

    def solve_and_wait() -> None:
        solver.solve(problems.costs)
        torch.cuda.synchronize()

    benchmark.group = f"{n} x {len(problems.costs)}, {device}"
    benchmark(solve_and_wait)
