"""The solver's other forms: torch operator, threads, sparse costs, warm starts, rankings, bottlenecks.

    python -m benchmarks.speed.assignment_forms
    python -m benchmarks.speed.assignment_forms --only threads --sizes 2048 4096

Each is timed beside what it competes with, in turns, after the answers were compared; the fastest run counts.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse
import torch
from scipy.sparse.csgraph import maximum_bipartite_matching, min_weight_full_bipartite_matching

from lwfm import lap
from lwfm.bench.solvers import CHANNELS, make_costs
from lwfm.ops import linear_assignment

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

RNG = np.random.default_rng(0)
LONG = 0.02  # seconds


def take_turns(
    calls: list[Callable[[], object]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Return the seconds of each call: the fastest of the runs that fit into ``seconds``.

    A turn is three runs, one of a long call: the first one finds the caches as the others have left them.
    """
    best = [float("inf")] * len(calls)
    end, turns = time.perf_counter() + seconds, 0
    while turns < 3 or time.perf_counter() < end:
        for number, call in enumerate(calls):
            for _ in range(3):
                start = clock()
                call()
                took = clock() - start
                best[number] = min(best[number], took)
                if took > LONG:
                    break
        turns += 1
    return best


def torch_operator(options: argparse.Namespace) -> None:
    """Time ``lwfm.ops.linear_assignment`` beside ``solve_batch`` on the same memory."""
    print("\n== the torch operator: microseconds a call")
    print(f"{'costs':>16}{'threads':>9}{'linear_assignment':>19}{'solve_batch':>13}{'ratio':>7}")
    for batch, threads in ((1, 1), (7500, 1), (7500, lap.default_threads())):
        costs = make_costs("cosine", batch, 9)
        tensor = torch.from_numpy(costs)
        torch.set_num_threads(threads)
        np.testing.assert_array_equal(linear_assignment(tensor).numpy(), lap.solve_batch(costs)[0])
        operator, arrays = take_turns(
            [partial(linear_assignment, tensor), partial(lap.solve_batch, costs, n_threads=threads)],
            options.seconds,
        )
        name = f"[{batch}, 9, 9]"
        print(f"{name:>16}{threads:>9}{1e6 * operator:>19.1f}{1e6 * arrays:>13.1f}{operator / arrays:>7.2f}")


def several_threads(options: argparse.Namespace) -> None:
    """Time one problem on one thread and on all."""
    threads = lap.default_threads()
    print(f"\n== one problem on {threads} threads: milliseconds")
    print(f"{'n':>6}{'costs':>9}{'one thread':>12}{'all':>9}{'gain':>7}")
    for n in options.sizes:
        for family in ("cosine", "uniform"):
            costs = make_costs(family, 1, n)
            one, several = (lap.solve_batch(costs, n_threads=k) for k in (1, threads))
            np.testing.assert_array_equal(one[0], several[0])
            alone, shared = take_turns(
                [partial(lap.solve_batch, costs, n_threads=k) for k in (1, threads)], options.seconds
            )
            print(f"{n:>6}{family:>9}{1e3 * alone:>12.2f}{1e3 * shared:>9.2f}{alone / shared:>7.2f}")


def sparse_costs(rows: int, columns: int, entries: int) -> Any:
    """Make uniform costs in ``entries`` random columns a row that contain a complete assignment."""
    column = RNG.integers(0, columns, (rows, entries))
    column[:, 0] = RNG.permutation(columns)[:rows]
    row = np.repeat(np.arange(rows), entries)
    values = RNG.random(row.size) + 0.01
    costs = scipy.sparse.csr_array((values, (row, column.ravel())), shape=(rows, columns))
    costs.sum_duplicates()
    return costs


def sparse_solver(options: argparse.Namespace) -> None:
    """Time ``solve_sparse`` beside SciPy's solver of the same problem."""
    print("\n== solve_sparse: milliseconds")
    print(f"{'rows x columns':>16}{'entries a row':>15}{'lwfm':>9}{'SciPy':>9}{'ratio':>7}")
    for rows, columns, entries in (
        (1000, 1000, 11),
        (1000, 1000, 101),
        (2000, 10000, 11),
        (5000, 5000, 11),
        (20000, 20000, 11),
    ):
        costs = sparse_costs(rows, columns, entries)
        solvers = (lap.solve_sparse, min_weight_full_bipartite_matching)
        ours, scipys = (float(costs[solve(costs)].sum()) for solve in solvers)
        np.testing.assert_allclose(ours, scipys, rtol=1e-12)
        ours, scipys = take_turns([partial(solve, costs) for solve in solvers], options.seconds)
        shape = f"{rows} x {columns}"
        print(f"{shape:>16}{entries:>15}{1e3 * ours:>9.2f}{1e3 * scipys:>9.2f}{scipys / ours:>7.2f}")


def changed(costs: NDArray[np.float32], change: float) -> NDArray[np.float32]:
    """Return costs that are each up to this share larger or smaller."""
    factors = 1 + change * (2 * RNG.random(costs.shape, dtype=np.float32) - 1)
    return np.asarray(costs * factors, dtype=np.float32)


def warm_starts(options: argparse.Namespace) -> None:
    """Time a start from the solution of similar costs beside a cold start."""
    n = 1024
    costs = make_costs("cosine", 1, n)
    cols, _, _, v = lap.solve_batch(costs, return_duals=True)
    print(f"\n== warm starts, cosine costs of {n} x {n} and {CHANNELS} channels: gain over a cold start")
    print(f"{'costs changed by up to':>23}{'from duals':>12}{'from columns':>14}")
    for change in (1e-6, 1e-3, 1e-2, 1e-1):
        similar = changed(costs, change)
        cold, duals, columns = take_turns(
            [partial(lap.solve_batch, similar, n_threads=1, warm=start) for start in (None, v, cols)],
            options.seconds,
        )
        print(f"{100 * change:>22g}%{cold / duals:>12.2f}{cold / columns:>14.2f}")


def is_installed(package: str) -> bool:
    """Return whether there is a package to compare with."""
    try:
        import_module(package)
    except ImportError:
        return False
    return True


def _totals_of_fastlap(cost: NDArray[Any], k: int) -> list[float]:
    return [one[0] for one in import_module("fastlap").solve_lap_kbest(cost, k)]


def _totals_of_munkres(cost: NDArray[Any], k: int) -> list[float]:
    return [one.total for one in import_module("munkres").k_best(cost, k)]


def _largest_of_fastlap(cost: NDArray[Any]) -> float:
    return float(import_module("fastlap").solve_lbap(cost)[0])


def _largest_of_munkres(cost: NDArray[Any]) -> float:
    return max(float(cost[i, j]) for i, j in import_module("munkres").bottleneck(cost).pairs)


def rankings(options: argparse.Namespace) -> None:
    """Time ``k_best`` beside fastlap's and munkres' solvers of the same problem."""
    fastlap, munkres = is_installed("fastlap"), is_installed("munkres")
    print("\n== k_best, uniform float64 costs: milliseconds of processor time; a dash: not timed")
    print(f"{'n':>6}{'k':>7}{'lwfm':>10}{'fastlap':>11}{'munkres':>11}{'ratio':>9}")
    for n, k in ((9, 10), (9, 100), (30, 100), (100, 10), (100, 100), (300, 10), (300, 1000), (1000, 100)):
        cost = RNG.random((n, n))
        ours, totals = partial(lap.k_best, cost, k), lap.k_best(cost, k)[1]
        calls: dict[str, Callable[[], Any]] = {}
        if fastlap and n * n * k <= 1e6:
            calls["fastlap"] = partial(_totals_of_fastlap, cost, k)
        if munkres and n * n * k <= 1e4:
            calls["munkres"] = partial(_totals_of_munkres, cost, k)
        for call in calls.values():
            np.testing.assert_allclose(call(), totals, rtol=1e-12)
        print_line(f"{n:>6}{k:>7}", ours, calls, ("fastlap", "munkres"), options.seconds)


def bottlenecks(options: argparse.Namespace) -> None:
    """Time ``bottleneck`` beside fastlap, munkres and bisection by SciPy's maximum matching."""
    fastlap, munkres = is_installed("fastlap"), is_installed("munkres")
    print("\n== bottleneck, uniform float64 costs: milliseconds of processor time")
    print(f"{'n':>6}{'':>7}{'lwfm':>10}{'fastlap':>11}{'SciPy':>11}{'munkres':>11}{'ratio':>9}")
    for n in (9, 30, 100, 300, 1000, 3000):
        cost = RNG.random((n, n))
        calls: dict[str, Callable[[], Any]] = {"SciPy": partial(bisection, cost)}
        if fastlap and n <= 1000:
            calls["fastlap"] = partial(_largest_of_fastlap, cost)
        if munkres and n <= 100:
            calls["munkres"] = partial(_largest_of_munkres, cost)
        for name, call in calls.items():
            assert call() == lap.bottleneck(cost)[1], name
        names = ("fastlap", "SciPy", "munkres")
        print_line(f"{n:>6}{'':>7}", partial(lap.bottleneck, cost), calls, names, options.seconds)
        if n <= 300:
            refined = take_turns([partial(lap.bottleneck, cost, lexicographic=True)], 0.0, time.process_time)[
                0
            ]
            print(f"{'':>6}{'refined':>7}{1e3 * refined:>10.3f}")


def bisection(cost: NDArray[Any]) -> float:
    """Return the smallest cost within which SciPy finds a complete matching."""
    values = np.unique(cost)
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        matching = maximum_bipartite_matching(scipy.sparse.csr_array(cost <= values[middle]))
        low, high = (low, middle) if (matching >= 0).all() else (middle + 1, high)
    return float(values[low])


def print_line(
    label: str,
    ours: Callable[[], object],
    calls: dict[str, Callable[[], Any]],
    names: tuple[str, ...],
    seconds: float,
) -> None:
    """Print the milliseconds of our call and of the others by name, and the ratio to the fastest."""
    first, *rest = take_turns([ours, *calls.values()], seconds, time.process_time)
    times = dict(zip(calls, rest, strict=True))
    cells = "".join(f"{1e3 * times[name]:>11.3f}" if name in times else f"{'-':>11}" for name in names)
    ratio = f"{min(rest) / first:>9.1f}" if rest else f"{'-':>9}"
    print(f"{label}{1e3 * first:>10.3f}{cells}{ratio}", flush=True)


FORMS = {"torch": torch_operator, "threads": several_threads, "sparse": sparse_solver, "warm": warm_starts}
FORMS |= {"ranking": rankings, "bottleneck": bottlenecks}


def main() -> None:
    """Time the chosen forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=FORMS, nargs="+", default=list(FORMS))
    parser.add_argument("--sizes", type=int, nargs="+", default=[1024, 2048, 3072, 4096], help="for threads")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each line")
    options = parser.parse_args()
    print(f"{os.cpu_count()} processors, {lap.simd_level()}, torch {torch.__version__}")
    for name in options.only:
        FORMS[name](options)


if __name__ == "__main__":
    main()
