"""Predict on paper how long the CUDA kernels take: bytes, flops, occupancy, time beside the floor.

python tools/predict_kernels.py

Nothing here is measured but registers and shared memory, which are read from docs/kernels.md, and the steps
of assignments, which are counted on the CPU. One layer of an episode, 5-way 5-shot with 75 queries, 512
channels, 3 x 3 positions, float32; then kernels for maps of 7 x 7, and batches of assignments alone. A second
table sets what an H100 has measured beside the predictions for it. The model stands in kernel_model.py, what
each kernel does in kernel_work.py.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from pathlib import Path

from kernel_model import DEVICES, Prediction, Usage, Work, predict
from kernel_work import (
    Layer,
    assignments,
    class_terms,
    correlation,
    feature_matching,
    pair_kernels,
    positions,
)

ROOT = Path(__file__).parent.parent
MEASURED = (  # docs/cuda.md: one NVIDIA H100, microseconds
    (correlation(Layer(C=64)), 46),
    (correlation(Layer()), 79),
    (correlation(Layer(100, 300), large=True), 617),
    (correlation(Layer(P=16), large=True), 133),
    (correlation(Layer(P=25), large=True), 255),
    (correlation(Layer(100, 300, P=25), large=True), 3346),
    (assignments(25, 1280), 64),
    (assignments(32, 690), 62),
    (assignments(49, 237), 216),
    (assignments(100, 3355), 2013),
    (assignments(196, 873), 3745),
    (assignments(512, 132), 16632),
    (assignments(1024, 132), 58344),
)


def workload() -> list[Work]:
    """Return every kernel with float32 numbers, on sizes that it is chosen for."""
    layer, larger = Layer(), Layer(P=49)
    return [
        *positions(layer),
        correlation(layer),
        correlation(layer, large=True),
        *pair_kernels(layer),
        *feature_matching(layer),
        *class_terms(layer),
        *(
            replace(work, title=f"7 x 7: {work.title}")
            for work in pair_kernels(larger) + feature_matching(larger)[1:3]
        ),
        correlation(Layer(100, 300), large=True),
        assignments(9, 5000),
        assignments(49, layer.pairs),
        assignments(196, 873),
    ]


@functools.cache
def usages() -> dict[str, dict[int, Usage]]:
    """Read docs/kernels.md -> what ptxas gave each kernel on each architecture."""
    result: dict[str, dict[int, Usage]] = {}
    architectures: list[int] = []
    for line in (ROOT / "docs" / "kernels.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == "kernel":
            architectures = [int(cell.removeprefix("sm_")) for cell in cells[2:]]
        elif cells[0].startswith("`"):
            pairs = [[int(number) for number in cell.split(",")[:2]] for cell in cells[2:]]
            found = (Usage(registers, shared) for registers, shared in pairs)
            result[cells[0].strip("`")] = dict(zip(architectures, found, strict=True))
    return result


def predictions(work: Work) -> list[Prediction]:
    """Predict a launch on every device."""
    return [predict(work, usages()[work.kernel][device.architecture], device) for device in DEVICES]


def table(works: list[Work]) -> list[str]:
    """Return the lines of the table of predictions, in Markdown."""
    lines = ["| kernel | KB moved | MFLOP |" + "".join(f" {device.name} |" for device in DEVICES)]
    lines.append("|---|---|---|" + "---|" * len(DEVICES))
    for work in works:
        cells = [
            f" {p.time:.1f} us ({p.floor:.1f}); {p.occupancy:.0%}, {p.registers} registers |"
            for p in predictions(work)
        ]
        moved, flops = work.bytes_moved / 1e3, work.flops / 1e6
        lines.append(f"| {work.title} | {moved:.0f} | {flops:.1f} |" + "".join(cells))
    return lines


def comparison() -> list[str]:
    """Return the lines of the table that sets measurements beside predictions, in Markdown."""
    lines = ["| kernel | predicted us | measured us | measured / predicted |", "|---|---|---|---|"]
    for work, measured in MEASURED:
        predicted = predictions(work)[0].time
        lines.append(f"| {work.title} | {predicted:.0f} | {measured} | {measured / predicted:.1f} |")
    return lines


def main() -> int:
    """Print the tables in Markdown."""
    print("\n".join([*table(workload()), "", *comparison()]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
