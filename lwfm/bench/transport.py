"""Time transport solvers on this machine's CPU: ``lwfm bench transport``."""

from __future__ import annotations

import os
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor

from lwfm._common.devices import torch_threads
from lwfm._common.progress import progress
from lwfm.bench.solver_table import OURS, Problems, TransportTimes
from lwfm.bench.solvers import check_options, fastest_in_turns
from lwfm.lap import simd_level
from lwfm.ops import optimal_transport

if TYPE_CHECKING:
    from collections.abc import Callable

    from lwfm.bench.command import Weights

    Solve: TypeAlias = Callable[["TransportProblems"], Tensor]

CHANNELS = 64
POT = "POT (emd)"


class TransportProblems(NamedTuple):
    """Costs [B, n, n] and weights [B, n], float64, that sum to 1."""

    cost: Tensor
    row_weights: Tensor
    column_weights: Tensor


def make_problems(weights: Weights, batch: int, n: int) -> TransportProblems:
    """Return problems of two images with ``n`` positions of rectified random features, as DeepEMD has them.

    Costs are one minus the cosines of centered positions. ``cross_reference`` weights are the products of a
    position with the mean of the other image, ``uniform`` ones are random, ``equal`` ones all the same.
    """
    generator = torch.Generator().manual_seed(n)
    s, q = torch.randn(2, batch, n, CHANNELS, generator=generator, dtype=torch.float64).relu()
    if weights == "cross_reference":
        sides = [(x * y.mean(1, keepdim=True)).sum(-1).relu() + 1e-3 for x, y in ((s, q), (q, s))]
    elif weights == "uniform":
        sides = list(torch.rand(2, batch, n, generator=generator, dtype=torch.float64))
    else:
        sides = list(torch.ones(2, batch, n, dtype=torch.float64))
    rows, columns = (x / x.sum(-1, keepdim=True) for x in sides)
    s, q = (torch.nn.functional.normalize(x - x.mean(1, keepdim=True), dim=-1) for x in (s, q))
    return TransportProblems(1 - s @ q.mT, rows, columns)


def _pot(problems: TransportProblems) -> Tensor:
    emd = import_module("ot").emd
    cost, rows, columns = (x.numpy() for x in problems)
    plans = [emd(a, b, c) for a, b, c in zip(rows, columns, cost, strict=True)]
    return torch.stack([torch.from_numpy(plan) for plan in plans])


def installed_solvers() -> dict[str, Solve]:
    """Return the solvers that are installed."""
    solvers: dict[str, Solve] = {OURS: lambda problems: optimal_transport(*problems)}
    try:
        import_module("ot")
    except ImportError:
        return solvers
    return {**solvers, POT: _pot}


def check_agreement(name: str, solve: Solve, problems: TransportProblems) -> None:
    """Raise ``RuntimeError`` unless a solver finds the totals that we find, to 1e-9."""
    expected, actual = (
        (plan * problems.cost).sum((-1, -2)) for plan in (optimal_transport(*problems), solve(problems))
    )
    difference = float(((actual - expected) / expected).abs().max())
    if not difference <= 1e-9:
        shape = tuple(problems.cost.shape)
        raise RuntimeError(f"{name} and lwfm disagree by {difference} on {shape}: nothing was timed")


def batch_size(n: int) -> int:
    """Return how many problems of size ``n`` make a batch of some tens of milliseconds."""
    return int(max(1, min(2000, 4e5 / n**2)))


def time_transport(
    *, sizes: tuple[int, ...], weights: Weights, threads: int, seconds: float
) -> TransportTimes:
    """Time the solvers that are installed; options and errors of ``bench_transport``."""
    check_options(sizes, threads)
    solvers = installed_solvers()
    times: dict[str, dict[Problems, float]] = {name: {} for name in solvers}
    with torch_threads(threads):
        for n in progress(sizes, "timing solvers", "size"):
            problems = make_problems(weights, batch_size(n), n)
            for name, solve in solvers.items():
                check_agreement(name, solve, problems)
            calls = {name: partial(solve, problems) for name, solve in solvers.items()}
            for name, took in fastest_in_turns(calls, seconds).items():
                batch = len(problems.cost)
                times[name][Problems(n, batch)] = 1e6 * took / batch
    machine = f"{threads} thread(s) of {os.cpu_count()}, POT on one, {simd_level()}"
    return TransportTimes(weights, machine, times)
