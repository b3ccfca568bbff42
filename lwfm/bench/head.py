"""Time the head beside its own matrix products on this machine: ``lwfm bench matching``."""

from __future__ import annotations

import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lwfm._common.devices import torch_threads
from lwfm._common.progress import progress
from lwfm.bench.head_cases import (
    CASES,
    CPU,
    FORMS,
    Case,
    Products,
    check_agreement,
    expected_of,
    make_case,
    step,
)
from lwfm.bench.head_table import PASSES, SQUARE, MatchingTimes, Row
from lwfm.bench.timing import SLOW, allocated_bytes, describe, reason_of, seconds_of
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from lwfm.bench.head_cases import Form

    Step = Callable[[], list[Tensor]]
    Steps = dict[str, Step]

PEAK_RESET = Path("/proc/self/clear_refs")  # of Linux
REQUIRED = ("products", "head")  # what the others are compared with
STEPS_IN_A_ROW = 10  # on CUDA, so that the host may be ahead of the device as in training


def median_times(steps: Steps, device: torch.device, rounds: int) -> dict[str, float]:
    """Return the seconds of a step of each form; they take turns, so that other load falls on all."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):
        for name, call in steps.items():
            if times[name] and len(times[name]) > _enough(times[name][-1], rounds):
                continue
            short = device.type == "cuda" and bool(times[name]) and times[name][0] < SLOW / STEPS_IN_A_ROW
            times[name].append(seconds_of(call, device, STEPS_IN_A_ROW if short else 1))
    return {name: statistics.median(values[1:] or values) for name, values in times.items()}


def _enough(seconds: float, rounds: int) -> int:
    """Return how many steps of that length to measure after the first; if none, the first counts."""
    return min(rounds, 0 if seconds > 10 else 1 if seconds > 5 else 3 if seconds > 1 else rounds)


def peak_bytes(case: Case, form: Form, backward: bool, threads: int) -> int:
    """Return the most memory that one step adds to the process (Linux); to be called in a fresh process.

    What the first step of all loads or sets up once is not counted.
    """
    torch.set_num_threads(threads)
    step(*make_case(Case(way=2, shot=1, size=2, queries=1), form), backward=backward)
    head, inputs = make_case(case, form)
    PEAK_RESET.write_text("5")  # resets the peak to what is held now
    before = _peak_of_process()
    step(head, inputs, backward=backward)
    return _peak_of_process() - before


def _peak_of_process() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def peak_in_fresh_process(function: Callable[..., int], *arguments: object) -> int:
    """Run a function of the module level in a new process; return its result."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_of_form(case: Case, name: str, backward: bool, threads: int) -> int:
    """Return what :func:`peak_bytes` does, for a form by name."""
    return peak_bytes(case, FORMS[name], backward, threads)


def checked_step(
    case: Case,
    name: str,
    form: Form,
    device: torch.device,
    *,
    backward: bool,
    expected: list[Tensor],
) -> Step:
    """Prepare the step of a form; raise ``RuntimeError`` unless it returns what is expected."""
    head, inputs = make_case(case, form, device)
    call = partial(step, head, inputs, backward=backward)
    actual = call()
    if not isinstance(head, Products):
        check_agreement(case, name, actual, expected)
    return call


def _steps_of(
    case: Case,
    forms: Mapping[str, Form],
    device: torch.device,
    backward: bool,
    skipped: dict[str, str],
) -> Steps:
    """Prepare all forms of a case; those that fail are noted in ``skipped``."""
    torch.compiler.reset()  # torch compiles at most eight versions of a function
    steps: Steps = {}
    expected = expected_of(case)
    for name, form in forms.items():
        try:
            steps[name] = checked_step(case, name, form, device, backward=backward, expected=expected)
        except Exception as error:
            if name in REQUIRED:
                raise
            skipped[f"{name} on {case}, {PASSES[backward]}"] = reason_of(error)
    return steps


def measure(
    cases: Sequence[Case],
    forms_of: Callable[[Case], Mapping[str, Form]],
    *,
    threads: int,
    rounds: int,
    peak: Callable[[Case, str, bool, int], int] | None,
    device: torch.device = CPU,
) -> MatchingTimes:
    """Time the forms of each case after checking that they agree.

    ``peak`` measures a form's memory on the CPU, where the system can.
    A form that fails is named in the result and left out.
    """
    if not 1 <= threads <= (os.cpu_count() or 1):
        raise UserError(f"threads must be 1 to {os.cpu_count()} on this machine, got {threads}")
    rows, skipped = [], dict[str, str]()
    with torch_threads(threads):
        fastest_rate = peak_rate(device)
        passes = [(case, backward) for case in cases for backward in (False, True)]
        for case, backward in progress(passes, "timing the head", "pass"):
            steps = _steps_of(case, forms_of(case), device, backward, skipped)
            for name, seconds in median_times(steps, device, rounds).items():
                memory: int | None = None
                if device.type == "cuda":  # a graph allocates nothing: it was captured with its memory
                    memory = allocated_bytes(steps[name], device) or None
                elif peak is not None and PEAK_RESET.exists():
                    memory = peak_in_fresh_process(peak, case, name, backward, threads)
                rows.append(Row(case, backward, name, seconds, memory))
    return MatchingTimes(describe(device, threads), tuple(rows), fastest_rate, skipped)


def peak_rate(device: torch.device) -> float:
    """Return the floating-point operations a second of a large square product, the best of five."""
    x = torch.rand(SQUARE, SQUARE, device=device)
    return 2.0 * SQUARE**3 / min(seconds_of(lambda: torch.matmul(x, x), device) for _ in range(5))


def cases_of(names: Sequence[str]) -> list[Case]:
    """Return cases by name; UserError for an unknown one, or none."""
    unknown = [name for name in names if name not in CASES]
    if unknown or not names:
        raise UserError(f"cases must be some of {', '.join(CASES)}, got {', '.join(unknown) or 'none'}")
    return [CASES[name] for name in names]
