"""Benchmarks on the user's machine: ``lwfm bench assignment`` and ``lwfm bench matching``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - the command line reads the type at run time
from typing import TYPE_CHECKING, Literal

from lwfm.bench.solvers import Family, bench_assignment
from lwfm.bench.timing import DeviceName, benchmark_device

if TYPE_CHECKING:
    from lwfm.bench.head_table import MatchingTimes
    from lwfm.bench.solver_table import AssignmentTimes


def bench(
    subject: Literal["assignment", "matching"],
    *,
    device: DeviceName = "cpu",
    threads: int = 1,
    out: Path | None = None,
    sizes: tuple[int, ...] = (9, 16, 25, 32, 49, 100, 196, 512, 1024),
    family: Family = "cosine",
    seconds: float = 0.3,
    cases: tuple[str, ...] = ("5x1xF3", "5x5xF3", "20x5xF3", "5x5xF5"),
    rounds: int = 9,
) -> AssignmentTimes | MatchingTimes:
    """Time the assignment solver beside others, or the head beside its own matrix products.

    Parameters
    ----------
    subject : str
        What to time.
    device : str
        Where: cpu, or cuda for tensors on the current GPU. There, solvers on the host are timed with the way
        to the host and back, and what is not installed or fails is named and left out.
    threads : int
        Threads for everything that is timed on the host; solvers that cannot use several are left out of the
        contest on the CPU if this is not 1.
    out : Path, optional
        Where to draw the figure (png, pdf, svg).
    sizes : tuple of int
        For assignment: rows and columns of the problems.
    family : str
        For assignment: kind of cost matrices.
    seconds : float
        For assignment: time for each solver and size. The fastest run counts, on a GPU the median.
    cases : tuple of str
        For matching: episodes, way x shot x F, with 15 queries per class.
    rounds : int
        For matching: runs of each form, which take turns; the median counts.

    Returns
    -------
    AssignmentTimes or MatchingTimes
        The table.

    Raises
    ------
    UserError
        For a size, a case or a number of threads out of range, or CUDA where there is none.
    """
    place = benchmark_device(device)
    result: AssignmentTimes | MatchingTimes
    if subject == "matching":
        from lwfm.bench.head import bench_matching

        result = bench_matching(cases, device=place, threads=threads, rounds=rounds)
    elif place.type == "cuda":
        from lwfm.bench.solvers_cuda import bench_assignment_on

        result = bench_assignment_on(place, sizes=sizes, family=family, threads=threads, seconds=seconds)
    else:
        result = bench_assignment(sizes=sizes, family=family, threads=threads, seconds=seconds)
    if out is not None:
        from lwfm.figures import save_figure

        save_figure(result.figure(), out)
    return result
