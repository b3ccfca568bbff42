"""Benchmarks on the user's machine: ``lwfm bench assignment`` and ``lwfm bench matching``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - the command line reads the type at run time
from typing import TYPE_CHECKING, Literal

from lwfm import solver_benchmark
from lwfm.solver_benchmark import Family  # noqa: TC001 - the command line reads the type at run time

if TYPE_CHECKING:
    from lwfm.matching_benchmark import MatchingTimes
    from lwfm.solver_benchmark import AssignmentTimes


def bench(
    subject: Literal["assignment", "matching"],
    *,
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
    threads : int
        Threads for everything that is timed; solvers that cannot use several are left out if this is not 1.
    out : Path, optional
        Where to draw the figure (png, pdf, svg).
    sizes : tuple of int
        For assignment: rows and columns of the problems.
    family : str
        For assignment: kind of cost matrices.
    seconds : float
        For assignment: time for each solver and size; the fastest run counts.
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
        For a size, a case or a number of threads out of range.
    """
    if subject == "assignment":
        return solver_benchmark.bench(
            "assignment", sizes=sizes, family=family, threads=threads, seconds=seconds, out=out
        )
    from lwfm.matching_benchmark import bench_matching

    result = bench_matching(cases, threads=threads, rounds=rounds)
    if out is not None:
        from lwfm.figures import save_figure

        save_figure(result.figure(), out)
    return result
