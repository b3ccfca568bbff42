"""Time assignment solvers on CUDA tensors: ``lwfm bench assignment --device cuda``.

The operator is compared with torch-linear-assignment (or its fork torch-hungarian), torch-lap-cuda, and
solvers on the host, copies included.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lwfm._common.devices import torch_threads
from lwfm._common.progress import progress
from lwfm.bench.solver_table import OURS, AssignmentTimes, Problems
from lwfm.bench.solvers import batch_size, check_options, make_costs
from lwfm.bench.timing import describe, median_seconds, reason_of
from lwfm.lap import solve_batch
from lwfm.ops import linear_assignment

if TYPE_CHECKING:
    from collections.abc import Callable

    from lwfm.bench.command import Family

    # costs [B, N, N] -> columns [B, N], on the device of the costs
    Solve: TypeAlias = Callable[[Tensor], Tensor]

# torch-hungarian is a fork that installs the module of torch-linear-assignment in its place.
_INSTALLED = packages_distributions().get("torch_linear_assignment", [])
_TRITON = "torch-hungarian" if "torch-hungarian" in _INSTALLED else "torch-linear-assignment"
LEAST_BATCH = 132  # as many blocks as the largest GPUs of 2023 to 2025 have multiprocessors
MOST_BATCH = 65536
ENTRIES = 2**25  # of a large batch


def _triton(costs: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # its warning that SciPy was used instead
        columns: Tensor = import_module("torch_linear_assignment").batch_linear_assignment(costs)
    return columns


def _hylac(costs: Tensor) -> Tensor:
    columns: Tensor = import_module("torch_lap_cuda").solve_lap(costs)
    return columns.long()


def _scipy(costs: Tensor) -> Tensor:
    solve_one = import_module("scipy.optimize").linear_sum_assignment
    columns = np.stack([solve_one(cost)[1] for cost in costs.cpu().numpy()])
    return torch.from_numpy(columns).to(costs.device)


class DeviceSolver(NamedTuple):
    """A solver of tensors on a device, and the package it needs."""

    package: str
    solve: Solve


SOLVERS = {
    OURS: DeviceSolver("lwfm", linear_assignment),
    _TRITON: DeviceSolver("torch_linear_assignment", _triton),
    "torch-lap-cuda": DeviceSolver("torch_lap_cuda", _hylac),
    f"{OURS}, host": DeviceSolver("lwfm", lambda costs: linear_assignment(costs.cpu()).to(costs.device)),
    "SciPy, host": DeviceSolver("scipy", _scipy),
}


def large_batch(n: int) -> int:
    """Return how many problems of size ``n`` keep a large GPU busy."""
    return max(LEAST_BATCH, min(MOST_BATCH, ENTRIES // n**2))


class SolvedCosts(NamedTuple):
    """Problems on a device, and the least totals as the solver on the CPU finds them."""

    costs: Tensor
    """[B, N, N]"""
    totals: Tensor
    """[B] float64"""

    def check(self, name: str, solve: Solve) -> None:
        """Raise ``RuntimeError`` unless a solver finds these totals, up to float32 rounding."""
        columns = solve(self.costs)
        totals = self.costs.gather(-1, columns.unsqueeze(-1)).double().sum((-1, -2))
        difference = float((totals - self.totals).abs().max())
        tolerance = 4 * columns.shape[-1] * torch.finfo(torch.float32).eps * float(self.costs.abs().max())
        permuted = (columns.sort(-1).values == torch.arange(columns.shape[-1], device=columns.device)).all()
        if not (difference <= tolerance and permuted):
            raise RuntimeError(f"{name} and the CPU disagree by {difference} on {list(self.costs.shape)}")


def make_solved_costs(family: Family, problems: Problems, device: torch.device) -> SolvedCosts:
    """Make a batch on a device from copies of a smaller one, each with its rows in another order."""
    n, batch = problems
    base = make_costs(family, min(batch, max(batch_size(n), 16)), n)
    totals = torch.from_numpy(solve_batch(base)[1]).to(device)
    generator = torch.Generator(device).manual_seed(0)
    copied = torch.arange(batch, device=device) % len(base)
    order = torch.rand(batch, n, device=device, generator=generator).argsort(-1)  # [batch, n]
    costs = torch.from_numpy(base).to(device)[copied[:, None], order]
    return SolvedCosts(costs, totals[copied])


def time_solvers_on(
    device: torch.device,
    *,
    sizes: tuple[int, ...],
    family: Family = "cosine",
    threads: int = 1,
    seconds: float = 0.3,
) -> AssignmentTimes:
    """Time the solvers of tensors on a device; options and errors of ``bench_assignment``."""
    check_options(sizes, threads)
    skipped, solvers = _installed()
    times: dict[str, dict[Problems, float]] = {name: {} for name in solvers}
    batches = [Problems(n, batch) for n in sizes for batch in sorted({batch_size(n), large_batch(n)})]
    made: tuple[Problems, SolvedCosts] | None = None
    with torch_threads(threads):
        steps = [(problems, name) for problems in batches for name in solvers]
        for problems, name in progress(steps, "timing solvers", "solver"):
            if made is None or made[0] != problems:
                made = None  # frees the memory of the last ones
                made = problems, make_solved_costs(family, problems, device)
            try:
                took = _time(name, solvers[name], made[1], seconds)
            except Exception as error:
                if name == OURS:
                    raise
                skipped[f"{name} on {problems}"] = reason_of(error)
                continue
            times[name][problems] = 1e6 * took / problems.batch
    return AssignmentTimes(family, describe(device, threads), times, skipped)


def _installed() -> tuple[dict[str, str], dict[str, Solve]]:
    """Return why some solvers are left out, and the others."""
    skipped, solvers = {}, {}
    for name, solver in SOLVERS.items():
        try:
            import_module(solver.package)
        except ImportError as error:
            skipped[name] = reason_of(error)
        else:
            solvers[name] = solver.solve
    return skipped, solvers


def _time(name: str, solve: Solve, problems: SolvedCosts, seconds: float) -> float:
    problems.check(name, solve)  # warms up, too
    return median_seconds(lambda: solve(problems.costs), problems.costs.device, seconds)
