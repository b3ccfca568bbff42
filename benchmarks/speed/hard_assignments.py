"""Families of costs that are hard for assignment solvers, with every installed one, in one table.

    python -m benchmarks.speed.hard_assignments
    python -m benchmarks.speed.hard_assignments --threads 2 --shapes 400x400

Microseconds per problem. A solver that refuses a problem has a dash, one whose total is wrong an ``x``; such
times do not count for the ratio (the fastest other solver over lwfm).
"""

from __future__ import annotations

import argparse
import math
import os
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from lwfm.bench.solvers import installed_peers
from lwfm.lap import simd_level

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Costs: TypeAlias = NDArray[Any]
    Shape: TypeAlias = tuple[int, int, int]

RNG = np.random.default_rng(0)
TURNS = 5  # each solver runs in several turns, so that a disturbance does not hit one of them only


def points(shape: Shape) -> Costs:
    p, q = RNG.random((shape[0], shape[1], 1, 2)), RNG.random((shape[0], 1, shape[2], 2))
    return np.asarray(np.linalg.norm(p - q, axis=-1))


def forbidden(shape: Shape, share: float) -> Costs:
    """Make uniform costs with a share of forbidden pairs that allow a complete assignment."""
    costs = RNG.random(shape)
    allowed = RNG.random(shape) >= share
    shorter = np.arange(min(shape[1:]))
    allowed[:, shorter, RNG.permutation(shorter)] = True
    return np.where(allowed, costs, np.inf)


FAMILIES: dict[str, tuple[str, Callable[[Shape], Costs]]] = {
    "two values": ("f4", lambda shape: RNG.integers(0, 2, shape)),
    "two values, int64": ("i8", lambda shape: RNG.integers(0, 2, shape)),
    "integers below 10": ("f4", lambda shape: RNG.integers(0, 10, shape)),
    "integers below 100": ("f4", lambda shape: RNG.integers(0, 100, shape)),
    "integers below 1000, int64": ("i8", lambda shape: RNG.integers(0, 1000, shape)),
    "40-bit integers, int64": ("i8", lambda shape: RNG.integers(0, 1 << 40, shape)),
    "geometric": ("f4", points),
    "geometric, float64": ("f8", points),
    "nearly tied": ("f4", lambda shape: 1 + 1e-6 * RNG.random(shape)),
    "nearly tied, float64": ("f8", lambda shape: 1 + 1e-9 * RNG.random(shape)),
    "half forbidden": ("f4", lambda shape: forbidden(shape, 0.5)),
    "nine in ten forbidden": ("f8", lambda shape: forbidden(shape, 0.9)),
    "products i * j": ("f8", lambda shape: np.multiply.outer(*map(np.arange, shape[1:]))[None] + 0.0),
    "around 1e-30": ("f4", lambda shape: 1e-30 * RNG.random(shape)),
    "around 1e+30": ("f4", lambda shape: 1e30 * RNG.random(shape)),
}


def right_totals(costs: Costs, totals: Costs, expected: Costs) -> bool:
    """Return whether totals agree up to the rounding of the costs, and of the sums in float64."""
    n, eps = max(costs.shape[1:]), np.finfo(np.float64).eps
    relative = (np.finfo(costs.dtype).eps if costs.dtype.kind == "f" else eps) + n * eps
    tolerance = 4 * n * relative * np.abs(costs[np.isfinite(costs)]).max()
    return bool((np.abs(totals - expected) <= tolerance).all())


def times_of(costs: Costs, threads: int, seconds: float) -> dict[str, float | str]:
    """Return the seconds for a call of each solver, or why there are none."""
    peers = installed_peers(threads)
    expected = np.asarray(peers["lwfm"].solve(costs, threads))
    found: dict[str, float | str] = {}
    for name, peer in peers.items():
        try:
            totals = np.asarray(peer.solve(costs, threads))
        except ValueError:
            found[name] = "-"
            continue
        found[name] = math.inf if right_totals(costs, totals, expected) else "x"
    for _ in range(TURNS):
        for name, best in found.items():
            spent = 0.0
            while not isinstance(best, str) and spent <= seconds / TURNS:
                start = time.perf_counter()
                peers[name].solve(costs, threads)
                took = time.perf_counter() - start
                spent, best = spent + took, min(best, took)
            found[name] = best
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shapes", default="100x100,400x400,100x1000,1000x100")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.05, help="for each solver and family")
    arguments = parser.parse_args()
    names = list(installed_peers(arguments.threads))
    print(f"microseconds per problem, {arguments.threads} thread(s) of {os.cpu_count()}, {simd_level()}")
    print(f"{'rows x columns, costs':>38}" + "".join(f"{name:>15}" for name in names) + f"{'ratio':>8}")
    for shape in arguments.shapes.split(","):
        rows, columns = map(int, shape.split("x"))
        batch = max(arguments.threads, round(1e5 / (rows * columns)))
        for family, (dtype, make) in FAMILIES.items():
            costs = np.ascontiguousarray(
                np.broadcast_to(make((batch, rows, columns)), (batch, rows, columns))
            )
            times = times_of(costs.astype(dtype), arguments.threads, arguments.seconds)
            numbers = {name: best for name, best in times.items() if isinstance(best, float)}
            own = numbers.pop("lwfm")
            cells = [f"{1e6 * t / batch:.1f}" if isinstance(t, float) else t for t in times.values()]
            line = "".join(f"{cell:>15}" for cell in cells)
            print(f"{f'{shape} {family}':>38}{line}{min(numbers.values()) / own:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
