"""How fast the head is beside its own matrix products on this machine: ``lwfm bench matching``."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from lwfm.errors import UserError
from lwfm.matching_workload import (
    CASES,
    DIMS,
    FORMS,
    QUERIES,
    Case,
    check_agreement,
    make_case,
    product_flops,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from matplotlib.figure import Figure

    from lwfm.matching_workload import Form

PASSES = ("forward", "forward+backward")


def median_times(case: Case, forms: dict[str, Form], *, backward: bool, rounds: int) -> dict[str, float]:
    """Seconds of a step of each form. They take turns, so that what else the machine does falls on all."""
    cases = {name: make_case(case, form) for name, form in forms.items()}
    times: dict[str, list[float]] = {name: [] for name in forms}
    for number in range(rounds + 1):
        for name in forms:
            if times[name] and times[name][-1] > 1 and number > 2:
                continue
            start = time.perf_counter()
            step(*cases[name], backward=backward)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def peak_bytes(case: Case, form: Form, backward: bool, threads: int) -> int:
    """Growth of the process's peak memory by one step (Linux), for a process of its own."""
    torch.set_num_threads(threads)
    head, inputs = make_case(case, form)
    small = torch.rand(64, 64, requires_grad=True)  # loads the libraries behind products and autograd
    torch.autograd.backward((small @ small).sum())
    before = _peak_of_process()
    step(head, inputs, backward=backward)
    return _peak_of_process() - before


def _peak_of_process() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peak_in_fresh_process(function: Callable[..., int], *arguments: object) -> int:
    """Call a function of the module level in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _peak_of_form(case: Case, name: str, backward: bool, threads: int) -> int:
    return peak_bytes(case, FORMS[name], backward, threads)


class Row(NamedTuple):
    """A measurement: seconds and the bytes of memory that a step adds."""

    case: Case
    backward: bool
    form: str
    seconds: float
    memory: int | None


@dataclass(frozen=True)
class MatchingTimes:
    """Times and memory of every form of the head.

    Attributes
    ----------
    threads : int
        Threads torch was given.
    rows : tuple of Row
        By case, pass and form.
    """

    threads: int
    rows: tuple[Row, ...]

    def seconds(self, case: Case, backward: bool, form: str) -> float:
        """Return the time of one measurement."""
        return next(row.seconds for row in self.rows if row[:3] == (case, backward, form))

    def __str__(self) -> str:
        lines = [
            f"layers {list(DIMS)}, {QUERIES} queries per class, float32, {self.threads} thread(s) of "
            f"{os.cpu_count()}; logits and gradients agree; MB: what a step adds to the peak of memory",
            f"{'case':>10} {'pass':>16} {'form':>12} {'ms':>10} {'/ head':>8} {'/ products':>10} {'MB':>7}",
        ]
        for case, backward, form, seconds, memory in self.rows:
            head, products = (self.seconds(case, backward, name) for name in ("head", "products"))
            lines.append(
                f"{case!s:>10} {PASSES[backward]:>16} {form:>12} {1e3 * seconds:10.2f} {seconds / head:8.2f} "
                f"{seconds / products:10.2f} {'-' if memory is None else f'{memory / 1e6:.0f}':>7}"
            )
        return "\n".join(lines + [self._roofline(row) for row in self.rows if row.form == "products"])

    def _roofline(self, row: Row) -> str:
        rate = product_flops(row.case, backward=row.backward) / row.seconds / 1e9
        head = self.seconds(row.case, row.backward, "head")
        return (
            f"{row.case!s:>10} {PASSES[row.backward]:>16}  products by torch.matmul: {rate:.0f} GFLOP/s; "
            f"the head does the same mathematics at {rate * row.seconds / head:.0f} GFLOP/s"
        )

    def figure(self) -> Figure:
        """Draw the time of every form over the cases, forward and forward + backward."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4.5), layout="constrained")
        names = list(dict.fromkeys(row.form for row in self.rows))
        cases = list(dict.fromkeys(row.case for row in self.rows))
        width = 0.8 / len(names)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, backward in zip(panels, (False, True), strict=True):
            for n, name in enumerate(names):
                rows = [row for row in self.rows if row.form == name and row.backward == backward]
                places = [cases.index(row.case) + (n - (len(names) - 1) / 2) * width for row in rows]
                axes.bar(places, [1e3 * row.seconds for row in rows], width, label=name)
            axes.set_yscale("log")
            axes.set_xticks(range(len(cases)), [str(case) for case in cases], rotation=45, ha="right")
            axes.set_title(PASSES[backward])
            axes.set_xlabel("way x shot x F")
            axes.grid(axis="y", alpha=0.3)
        panels[0].set_ylabel("time of a step [ms]")
        panels[0].legend()
        figure.suptitle(f"The head on layers {list(DIMS)}, {self.threads} thread(s)")
        return figure


def measure(
    cases: Sequence[Case],
    forms_of: Callable[[Case], dict[str, Form]],
    *,
    threads: int,
    rounds: int,
    peak: Callable[[Case, str, bool, int], int] | None,
) -> MatchingTimes:
    """Time the forms of each case after checking that they agree; ``peak`` measures a form's memory."""
    if not 1 <= threads <= (os.cpu_count() or 1):
        raise UserError(f"threads must be 1 to {os.cpu_count()} on this machine, got {threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rows = []
    try:
        for case, backward in _progress([(case, backward) for case in cases for backward in (False, True)]):
            forms = forms_of(case)
            if not backward:
                check_agreement(case, forms)
            times = median_times(case, forms, backward=backward, rounds=rounds)
            for name, seconds in times.items():
                memory = peak_in_fresh_process(peak, case, name, backward, threads) if peak else None
                rows.append(Row(case, backward, name, seconds, memory))
    finally:
        torch.set_num_threads(before)
    return MatchingTimes(threads, tuple(rows))


def bench_matching(names: Sequence[str], *, threads: int, rounds: int) -> MatchingTimes:
    """Time the head, its tensor expressions and its matrix products on cases by name.

    Raises
    ------
    UserError
        For an unknown case, or a number of threads that the machine does not have.
    """
    unknown = [name for name in names if name not in CASES]
    if unknown or not names:
        raise UserError(f"cases must be some of {', '.join(CASES)}, got {', '.join(unknown) or 'none'}")
    peak = _peak_of_form if Path("/proc/self/status").exists() else None
    return measure(
        [CASES[name] for name in names], lambda _: FORMS, threads=threads, rounds=rounds, peak=peak
    )


def _progress(steps: list[tuple[Case, bool]]) -> Iterable[tuple[Case, bool]]:
    from tqdm import tqdm

    bar: Iterable[tuple[Case, bool]] = tqdm(steps, desc="timing the head", delay=2.0, leave=False)
    return bar
