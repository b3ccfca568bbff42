"""The commands ``lwfm bench assignment``, ``lwfm bench transport`` and ``lwfm bench matching``.

Torch is imported when something is timed, so that ``--help`` answers at once.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - the command line reads the type at run time
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import torch

    from lwfm.bench.head_table import MatchingTimes
    from lwfm.bench.solver_table import AssignmentTimes, TransportTimes

DeviceName: TypeAlias = Literal["cpu", "cuda"]
Family: TypeAlias = Literal["cosine", "uniform", "integers", "geometric", "two_values", "nearly_tied"]
Weights: TypeAlias = Literal["cross_reference", "uniform", "equal"]


def bench_assignment(
    *,
    device: DeviceName = "cpu",
    threads: int = 1,
    out: Path | None = None,
    sizes: tuple[int, ...] = (9, 16, 25, 32, 49, 100, 196, 512, 1024),
    family: Family = "cosine",
    seconds: float = 0.3,
) -> AssignmentTimes:
    """Time the assignment solver beside the others that are installed, after checking that all agree.

    Parameters
    ----------
    device : str
        cpu, or cuda for tensors on the current GPU. There, solvers on the host are timed with the copies to
        the host and back, two batches of every size are solved (the CPU's, and one that fills a GPU), and
        solvers that are not installed or fail are named and left out.
    threads : int
        Threads on the host for every solver; on the CPU, solvers that cannot use several are left out if this
        is not 1.
    out : Path, optional
        Where to draw the figure (png, pdf, svg).
    sizes : tuple of int
        Rows and columns of the problems.
    family : str
        Kind of cost matrices.
    seconds : float
        Time for each solver and size. The fastest run counts, and solvers take turns; on a GPU the median.

    Returns
    -------
    AssignmentTimes
        The table.

    Raises
    ------
    UserError
        For a size below 1, a number of threads that the machine does not have, CUDA where there is none,
        or a figure of an unknown kind.

    Examples
    --------
    >>> from lwfm.bench import bench_assignment
    >>> bench_assignment(sizes=(200,), family="uniform", seconds=0.0).batches
    [Problems(n=200, batch=7)]
    """
    from lwfm.figures import save_figure

    place = _ready(device, out)
    if place.type == "cuda":
        from lwfm.bench.solvers_cuda import time_solvers_on

        times = time_solvers_on(place, sizes=sizes, family=family, threads=threads, seconds=seconds)
    else:
        from lwfm.bench.solvers import time_solvers

        times = time_solvers(sizes=sizes, family=family, threads=threads, seconds=seconds)
    if out is not None:
        save_figure(times.figure(), out)
    return times


def bench_transport(
    *,
    threads: int = 1,
    out: Path | None = None,
    sizes: tuple[int, ...] = (4, 9, 16, 25, 49, 100),
    weights: Weights = "cross_reference",
    seconds: float = 0.3,
) -> TransportTimes:
    """Time the transport solver beside POT's, if that is installed, after checking that they agree.

    Parameters
    ----------
    threads : int
        Threads for batches; POT solves one problem a call, on one thread.
    out : Path, optional
        Where to draw the figure (png, pdf, svg).
    sizes : tuple of int
        Rows and columns of the problems, whose costs are those of DeepEMD: cosines of positions.
    weights : str
        cross_reference: those of DeepEMD; uniform: random; equal: then each problem is an assignment.
    seconds : float
        Time for each solver and size. The solvers take turns, and the fastest run counts.

    Returns
    -------
    TransportTimes
        The table.

    Raises
    ------
    UserError
        For a size below 1, a number of threads that the machine does not have, or a figure of an unknown
        kind.

    Examples
    --------
    >>> from lwfm.bench import bench_transport
    >>> bench_transport(sizes=(300,), seconds=0.0).batches
    [Problems(n=300, batch=4)]
    """
    from lwfm.bench.transport import time_transport
    from lwfm.figures import save_figure

    _ready("cpu", out)
    times = time_transport(sizes=sizes, weights=weights, threads=threads, seconds=seconds)
    if out is not None:
        save_figure(times.figure(), out)
    return times


def bench_matching(
    *,
    device: DeviceName = "cpu",
    threads: int = 1,
    out: Path | None = None,
    cases: tuple[str, ...] = ("5x1xF3", "5x5xF3", "20x5xF3", "5x5xF5"),
    rounds: int = 9,
) -> MatchingTimes:
    """Time the head beside its own matrix products and tensor expressions, after checking that they agree.

    Parameters
    ----------
    device : str
        cpu, or cuda for the current GPU.
    threads : int
        Threads on the host.
    out : Path, optional
        Where to draw the figure (png, pdf, svg).
    cases : tuple of str
        Episodes, way x shot x F, with 15 queries per class.
    rounds : int
        Runs of each form, which take turns; the median counts.

    Returns
    -------
    MatchingTimes
        The table.

    Raises
    ------
    UserError
        For an unknown case, a number of threads that the machine does not have, CUDA where there is none,
        or a figure of an unknown kind.
    """
    from lwfm.bench.head import cases_of, measure, peak_of_form
    from lwfm.bench.head_cases import FORMS
    from lwfm.figures import save_figure

    place = _ready(device, out)
    times = measure(
        cases_of(cases), lambda _: FORMS, threads=threads, rounds=rounds, peak=peak_of_form, device=place
    )
    if out is not None:
        save_figure(times.figure(), out)
    return times


def _ready(device: DeviceName, out: Path | None) -> torch.device:
    """Return the device; refuse what would fail after minutes of timing."""
    from lwfm.bench.timing import benchmark_device
    from lwfm.figures.files import check_figure_suffix

    if out is not None:
        check_figure_suffix(out)
    return benchmark_device(device)
