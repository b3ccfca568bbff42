"""Time assignment solvers on this machine's CPU: ``lwfm bench assignment``."""

from __future__ import annotations

import math
import os
import time
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from lwfm._common.progress import progress
from lwfm.bench.solver_table import OURS, AssignmentTimes, Problems
from lwfm.errors import UserError
from lwfm.lap import default_threads, simd_level, solve_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from lwfm.bench.command import Family

    Costs: TypeAlias = NDArray[Any]
    # costs [B, N, N], number of threads -> totals [B]
    Solve: TypeAlias = Callable[[Costs, int], Any]

CHANNELS = 512


class Peer(NamedTuple):
    """A solver to compare with: the package it needs, and whether it can use threads."""

    package: str
    threaded: bool
    solve: Solve


def _loop(solve_one: Callable[[Costs], float]) -> Solve:
    return lambda costs, _threads: [solve_one(cost) for cost in costs]


def _scipy(cost: Costs) -> float:
    chosen = cost[import_module("scipy.optimize").linear_sum_assignment(cost)]
    return float(chosen.astype(np.float64).sum())


def _fastlap(costs: Costs, threads: int) -> list[float]:
    answers = import_module("fastlap").solve_lap_batch(costs.astype(np.float64), n_threads=threads)
    return [total for total, *_ in answers]


def _py_lap_solver(costs: Costs, threads: int) -> Costs:
    solvers = import_module("py_lap_solver.solvers").Solvers
    solver = solvers.BatchedScipySequential if threads == 1 else solvers.BatchedScipyOMP
    columns = np.asarray(solver.batch_solve(costs))
    chosen = np.take_along_axis(costs, columns[..., np.newaxis], axis=2)
    return np.asarray(chosen.astype(np.float64).sum((1, 2)))


def _munkres(cost: Costs) -> float:
    columns = import_module("munkres").linear_sum_assignment(cost)[1]
    return float(cost[np.arange(len(cost)), columns].astype(np.float64).sum())


PEERS = {
    OURS: Peer("lwfm", True, lambda costs, threads: solve_batch(costs, n_threads=threads)[1]),
    "lapcpp": Peer(
        "lapcpp",
        True,
        lambda costs, threads: import_module("lapcpp").lapjv_batch(costs, True, n_threads=threads)[0],
    ),
    "lapx (lapjvr)": Peer(
        "lap", True, lambda costs, threads: import_module("lap").lapjvr_batch(costs, n_threads=threads)[0]
    ),
    "lapx (lapjvh)": Peer(
        "lap", True, lambda costs, threads: import_module("lap").lapjvh_batch(costs, n_threads=threads)[0]
    ),
    "fastlap": Peer("fastlap", True, _fastlap),
    "py-lap-solver": Peer("py_lap_solver", True, _py_lap_solver),
    "munkres": Peer("munkres", False, _loop(_munkres)),
    "lapjv": Peer("lapjv", False, _loop(lambda cost: float(import_module("lapjv").lapjv(cost)[2][0]))),
    "SciPy": Peer("scipy", False, _loop(_scipy)),
}


def installed_peers(threads: int) -> dict[str, Peer]:
    """Return the solvers that are installed and, with several threads, can use them."""
    return {name: peer for name, peer in PEERS.items() if not _reason_to_skip(peer, threads)}


def _reason_to_skip(peer: Peer, threads: int) -> str:
    """Return why a solver takes no part; empty if it does."""
    if threads > 1 and not peer.threaded:
        return "uses one thread only"
    try:
        import_module(peer.package)
    except ImportError:
        return "not installed"
    return ""


def make_costs(family: Family, batch: int, n: int, seed: int = 0) -> Costs:
    """Return float32 cost matrices [batch, n, n] of a family.

    ``cosine`` is one minus the correlation of centered, rectified random features of 512 channels, as the
    matching operators produce; ``geometric`` the distances between random points in the plane.
    """
    rng = np.random.default_rng(seed)
    shape = (batch, n, n)
    if family == "cosine":
        x, y = (np.maximum(rng.standard_normal((batch, n, CHANNELS), dtype=np.float32), 0) for _ in range(2))
        for features in (x, y):
            features -= features.mean(axis=1, keepdims=True)
            features /= np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-6)
        return np.asarray(1 - x @ y.transpose(0, 2, 1), dtype=np.float32)
    if family == "geometric":
        p, q = rng.random((2, batch, n, 2))
        return np.asarray(np.linalg.norm(p[:, :, None] - q[:, None], axis=-1), dtype=np.float32)
    families: dict[str, Callable[[], Costs]] = {
        "uniform": lambda: rng.random(shape),
        "integers": lambda: rng.integers(0, 100, shape),
        "two_values": lambda: rng.integers(0, 2, shape),
        "nearly_tied": lambda: 1 + 1e-6 * rng.random(shape),
    }
    return np.asarray(families[family](), dtype=np.float32)


def batch_size(n: int) -> int:
    """Return how many problems of size ``n`` make a batch of a few milliseconds."""
    return int(max(1, min(5000, 4e6 / n**2.5)))


def check_agreement(name: str, peer: Peer, costs: Costs, threads: int) -> None:
    """Raise ``RuntimeError`` unless a solver finds the totals that we find, up to float32 rounding."""
    expected = solve_batch(costs, n_threads=threads)[1]
    difference = np.abs(np.asarray(peer.solve(costs, threads)) - expected).max()
    tolerance = 4 * costs.shape[1] * np.finfo(np.float32).eps * np.abs(costs).max()
    if not difference <= tolerance:
        raise RuntimeError(f"{name} and lwfm disagree by {difference} on {costs.shape}: nothing was timed")


def fastest_in_turns(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Return each call's shortest run; the calls take turns, three at least, for ``seconds`` each."""
    best, spent, rounds = dict.fromkeys(calls, math.inf), 0.0, 0
    while rounds < 3 or spent < seconds * len(calls):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            took = time.perf_counter() - start
            best[name], spent = min(best[name], took), spent + took
        rounds += 1
    return best


def time_solvers(
    *, sizes: tuple[int, ...], family: Family = "cosine", threads: int = 1, seconds: float = 0.3
) -> AssignmentTimes:
    """Time the solvers that are installed on arrays; options and errors of ``bench_assignment``."""
    check_options(sizes, threads)
    peers = installed_peers(threads)
    times: dict[str, dict[Problems, float]] = {name: {} for name in peers}
    for n in progress(sizes, "timing solvers", "size"):
        costs = make_costs(family, batch_size(n), n)
        for name, peer in peers.items():
            check_agreement(name, peer, costs, threads)
        calls = {name: partial(peer.solve, costs, threads) for name, peer in peers.items()}
        for name, took in fastest_in_turns(calls, seconds).items():
            times[name][Problems(n, len(costs))] = 1e6 * took / len(costs)
    machine = f"{threads} thread(s) of {os.cpu_count()}, {simd_level()}"
    skipped = {name: _reason_to_skip(peer, threads) for name, peer in PEERS.items() if name not in peers}
    return AssignmentTimes(family, machine, times, skipped)


def check_options(sizes: tuple[int, ...], threads: int) -> None:
    """Raise UserError for a size below 1 or a number of threads that the machine does not have."""
    if not sizes or min(sizes) < 1:
        raise UserError(f"sizes must be at least 1, got {sizes}")
    if not 1 <= threads <= default_threads():
        raise UserError(f"threads must be 1 to {default_threads()} on this machine, got {threads}")
