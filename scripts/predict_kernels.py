"""Predict on paper how long the CUDA kernels take: bytes, flops, occupancy, time beside the floor.

python scripts/predict_kernels.py [--nvcc PATH]

Nothing here is measured but registers and shared memory, for which the kernels are compiled (a minute).
One layer of an episode, 5-way 5-shot with 75 queries, 512 channels, 3 x 3 positions, float32. The model:

* floor: what must be read and written, once, over the memory bandwidth;
* a warp instruction takes an issue slot, four a cycle and multiprocessor, and half of the slots are lost;
* a block alone on a multiprocessor gets one slot a cycle for each of its warps, four at most;
* a launch costs 3 microseconds.
"""

# ruff: noqa: S603
from __future__ import annotations

import argparse
import functools
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
S, Q, P, C = 25, 75, 9, 512
PAIRS = S * Q
EXPONENTIAL = 10  # instructions
LAUNCH, LOST = 3e-6, 0.5


@dataclass(frozen=True)
class Device:
    """Public data of a GPU, for one multiprocessor where it says so."""

    name: str
    architecture: int
    processors: int
    clock: float  # Hz
    bandwidth: float  # bytes / s
    lanes: int  # float32 multiply-adds a cycle and multiprocessor
    threads: int
    blocks: int
    shared: int  # bytes
    registers: int = 65536


DEVICES = [
    Device("H100", 90, 132, 1.75e9, 3.0e12, 128, 2048, 32, 228 << 10),
    Device("A100", 80, 108, 1.41e9, 1.55e12, 64, 2048, 32, 164 << 10),
    Device("RTX 4090", 89, 128, 2.52e9, 1.0e12, 128, 1536, 24, 100 << 10),
    Device("T4", 75, 40, 1.59e9, 0.32e12, 64, 1024, 16, 64 << 10),
]


@dataclass(frozen=True)
class Work:
    """What one launch does: `pattern` finds the kernel among the demangled names of the build."""

    title: str
    source: str
    pattern: str
    grid: int
    threads: int
    dynamic_shared: int
    bytes_moved: int
    flops: int
    warp_instructions: int  # of all blocks


@dataclass(frozen=True)
class Usage:
    """What ptxas gave a kernel."""

    registers: int
    shared: int


def of_pairs(title: str, source: str, pattern: str, *, numbers: int, scratch: int, per_entry: int) -> Work:
    """Work of a kernel that gives each pair a warp, a line a lane: P entries to a lane."""
    return Work(
        title,
        source,
        pattern,
        grid=-(-PAIRS // 4),
        threads=128,
        dynamic_shared=4 * scratch * 4,
        bytes_moved=4 * numbers * PAIRS,
        flops=PAIRS * 2 * P * P * per_entry,
        warp_instructions=PAIRS * P * per_entry,
    )


def correlation() -> Work:
    """Work of the fused kernel in its small tiles, which such an episode gets, with an embedding."""
    fits = 32 // P
    tiles = -(-S // fits) * -(-Q // fits)
    products = tiles * 32 * 32 * C  # multiply-adds, the padding of tiles included
    # Weights; assignment; cosines of the matched features, with their norms.
    per_pair = P * (4 * EXPONENTIAL + 60) + 40 * P + P * 5 * C // 32
    return Work(
        "correlation",
        "correlation_float32.cu",
        r"correlate<lwfm::Tile<float, (\(int\))?32, (\(int\))?2>, float>",
        grid=tiles,
        threads=256,
        dynamic_shared=0,
        bytes_moved=4 * 2 * (S + Q) * P * C + 4 * PAIRS * (3 * P + 1) + 8 * PAIRS * P,
        flops=2 * S * Q * P * P * C + 2 * PAIRS * P * 3 * C,
        warp_instructions=int(products / 32 * 1.6) + PAIRS * per_pair,
    )


def workload() -> list[Work]:
    """Return every kernel that the head launches on one layer."""
    scales, block = 2 * P, P * P
    weights = 4 * 2 * P + P + scales + P * (P | 1)
    return [
        correlation(),
        of_pairs(
            "embedding weights",
            "embedding_weights.cu",
            r"weigh<float, (\(bool\))?(1|true), (\(bool\))?(1|true)>",
            numbers=block + scales + 3 * P,
            scratch=weights,
            per_entry=2 * EXPONENTIAL + 30,
        ),
        of_pairs(
            "embedding weights, backward",
            "embedding_weights_backward.cu",
            r"weigh_backward<float, (\(bool\))?(1|true), (\(bool\))?(1|true)>",
            numbers=2 * block + 2 * scales + 3 * P,
            scratch=2 * weights,
            per_entry=6 * EXPONENTIAL + 80,
        ),
        of_pairs(
            "pixel matching",
            "pixel_matching.cu",
            r"match<float, lwfm::PixelMatchingArguments<float> ?>",
            numbers=block + scales + 2 * P + 3 * P + 1,
            scratch=5 * P + scales + P * (P | 1),
            per_entry=160,
        ),
        of_pairs(
            "pixel matching, backward",
            "pixel_matching.cu",
            r"compare_backward<float, (\(bool\))?(1|true)>",
            numbers=block + 2 * scales + 4 * P + 1,
            scratch=5 * P,
            per_entry=30,
        ),
    ]


def occupancy(work: Work, usage: Usage, device: Device) -> tuple[int, float]:
    """Blocks that fit on a multiprocessor, and the share of its threads that they are."""
    registers = -(-usage.registers // 8) * 8 * work.threads
    shared = usage.shared + work.dynamic_shared + 1024
    fit = min(
        device.blocks, device.threads // work.threads, device.registers // registers, device.shared // shared
    )
    return fit, fit * work.threads / device.threads


def prediction(work: Work, usage: Usage, device: Device) -> tuple[float, float]:
    """Predicted time and floor, in microseconds."""
    fit, _ = occupancy(work, usage, device)
    busiest = -(-work.grid // device.processors)  # blocks of the multiprocessor that has most
    at_once = min(busiest, fit)
    slots = min(4.0 * device.lanes / 128, at_once * work.threads / 32)
    cycles = work.warp_instructions / work.grid * busiest / slots / LOST
    floor = work.bytes_moved / device.bandwidth
    return (LAUNCH + max(floor, cycles / device.clock)) * 1e6, floor * 1e6


@functools.cache
def usages(source: Path, architecture: int, nvcc: str) -> dict[str, Usage]:
    """Compile one source for one architecture; what ptxas says of its kernels."""
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++17", "-O3", f"-I{ROOT / 'csrc'}", f"-arch=sm_{architecture}", "-Xptxas=-v"]
        command += ["--cubin", str(source), "-o", str(Path(folder) / "kernels.cubin")]
        log = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    log = subprocess.run(["c++filt"], input=log, check=True, capture_output=True, text=True).stdout  # noqa: S607
    result: dict[str, Usage] = {}
    name = ""
    for line in log.splitlines():
        if found := re.search(r"Compiling entry function '(.*)' for", line):
            name = found[1]
        elif found := re.search(r"Used (\d+) registers", line):
            shared = re.search(r"(\d+) bytes smem", line)
            result[name] = Usage(int(found[1]), int(shared[1]) if shared else 0)
    return result


def find(kernels: dict[str, Usage], pattern: str) -> Usage:
    """Return the usage of the one kernel whose name matches."""
    found = [usage for name, usage in kernels.items() if re.search(rf"\b({pattern})\(", name)]
    if len(found) != 1:
        raise SystemExit(
            f"{len(found)} kernels match {pattern!r}; bring scripts/predict_kernels.py up to date"
        )
    return found[0]


def main() -> int:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    default = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    parser.add_argument("--nvcc", default=default, help="the compiler (default: %(default)s)")
    nvcc = parser.parse_args().nvcc
    print("| kernel | KB moved | MFLOP |" + "".join(f" {device.name} |" for device in DEVICES))
    print("|---|---|---|" + "---|" * len(DEVICES))
    for work in workload():
        cells = []
        for device in DEVICES:
            source = ROOT / "csrc" / "cuda" / work.source
            usage = find(usages(source, device.architecture, nvcc), work.pattern)
            time, floor = prediction(work, usage, device)
            share = occupancy(work, usage, device)[1]
            cells.append(f" {time:.1f} us ({floor:.1f}); {share:.0%}, {usage.registers} registers |")
        print(f"| {work.title} | {work.bytes_moved / 1e3:.0f} | {work.flops / 1e6:.1f} |" + "".join(cells))
    return 0


if __name__ == "__main__":
    sys.exit(main())
