"""Time and memory of a call on a CPU or a CUDA device, for the benchmarks."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

import torch

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW = 2.0  # seconds: one run of such a call is enough


def benchmark_device(name: str) -> torch.device:
    """Return the device of a benchmark; UserError for CUDA where torch finds none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda was asked for, but torch finds no CUDA device")
    return torch.device(name)


def describe(device: torch.device, threads: int) -> str:
    """Describe the measured device: its name, the version of torch, and the threads of the host."""
    host = f"{threads} thread(s) of {os.cpu_count()}"
    if device.type != "cuda":
        return f"{host}, torch {torch.__version__}"
    return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, host: {host}"


def seconds_of(call: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Return the seconds of a call, the mean of ``repeats`` in a row.

    On CUDA it is the time between two events around all calls on the otherwise idle current stream, so the
    host's share of a call counts as well.
    """
    if device.type != "cuda":
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) / repeats
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize(device)
    begin.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1e3 / repeats


def median_seconds(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return the median of the runs (three at least, or a slow one) that fit into ``seconds``.

    The caller warms up.
    """
    times: list[float] = []
    while (len(times) < 3 and sum(times) < SLOW) or sum(times) < seconds:
        times.append(seconds_of(call, device))
    return statistics.median(times)


def allocated_bytes(call: Callable[[], object], device: torch.device) -> int:
    """Return by how much one call raises the peak of the memory that torch allocates on a CUDA device."""
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def reason_of(error: BaseException) -> str:
    """Return one line on why something was left out."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    if isinstance(error, ModuleNotFoundError):
        return f"the package {error.name} is not installed"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:150]}"
