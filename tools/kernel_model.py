"""A model of how long a CUDA kernel takes: what is counted of it, and what a GPU does with that.

Everything here is a prediction on paper. The model:

* floor: what must be read and written, once, over the memory bandwidth;
* a kernel is a sequence of phases; a phase takes the longest of three things:
  its instructions (an issue slot each, four a cycle and multiprocessor, half of the slots lost), its
  float64 instructions (the units for those are few), and its chain, the instructions of one thread that wait
  for each other, once for all blocks that a multiprocessor holds at a time;
* a launch costs 3 microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LAUNCH, LOST = 3e-6, 0.5
LATENCY = {"step": 5, "shared": 25, "shuffle": 25, "barrier": 30, "memory": 500}
"""Cycles until the next instruction may go on: after one of arithmetic, a read of shared memory, an exchange
among lanes (votes and reductions too), a barrier of a block, a read of global memory."""


@dataclass(frozen=True)
class Device:
    """Public data of a GPU, for one multiprocessor where it says so."""

    name: str
    architecture: int
    processors: int
    clock: float  # Hz
    bandwidth: float  # bytes / s
    lanes: int  # float32 multiply-adds a cycle and multiprocessor
    double_lanes: int
    threads: int
    blocks: int
    shared: int  # bytes
    registers: int = 65536

    @property
    def double_latency(self) -> float:
        """Cycles until the result of a float64 instruction of a warp is there."""
        return 32 / self.double_lanes + 8


DEVICES = [
    Device("H100", 90, 132, 1.75e9, 3.0e12, 128, 64, 2048, 32, 228 << 10),
    Device("A100", 80, 108, 1.41e9, 1.55e12, 64, 32, 2048, 32, 164 << 10),
    Device("RTX 4090", 89, 128, 2.52e9, 1.0e12, 128, 2, 1536, 24, 100 << 10),
    Device("T4", 75, 40, 1.59e9, 0.32e12, 64, 2, 1024, 16, 64 << 10),
]


class Phase(NamedTuple):
    """Part of what a block does: the next part begins when every thread is done with it."""

    instructions: float = 0  # of all warps of the block
    doubles: float = 0  # those of them in float64
    steps: float = 0  # the chain of the slowest warp: arithmetic
    shared: float = 0  # reads of shared memory that wait for each other
    shuffles: float = 0
    barriers: float = 0
    memory: float = 0
    double_steps: float = 0

    def cycles(self, device: Device, blocks: int, at_once: int, slots: float) -> float:
        """Cycles of a multiprocessor with ``blocks`` of them, ``at_once`` together."""
        waits = (self.steps, self.shared, self.shuffles, self.barriers, self.memory)
        chain = sum(n * cycles for n, cycles in zip(waits, LATENCY.values(), strict=True))
        chain += self.double_steps * device.double_latency
        issue = self.instructions * blocks / slots / LOST
        double = self.doubles * blocks * 32 / device.double_lanes
        return max(issue, double, chain * -(-blocks // at_once))

    def repeated(self, rounds: float, warps: float) -> Phase:
        """Return this phase of one warp as one of a block: ``rounds`` in turn, ``warps`` at a time."""
        of_block = rounds * warps
        return Phase(self.instructions * of_block, self.doubles * of_block, *(x * rounds for x in self[2:]))


@dataclass(frozen=True)
class Work:
    """What one launch does; ``kernel`` is its name in docs/kernels.md."""

    title: str
    kernel: str
    grid: int
    threads: int
    bytes_moved: int
    flops: int
    phases: list[Phase]
    dynamic_shared: int = 0


@dataclass(frozen=True)
class Usage:
    """What ptxas gave a kernel."""

    registers: int
    shared: int


@dataclass(frozen=True)
class Prediction:
    """Times in microseconds, and the share of a multiprocessor's threads that fit."""

    time: float
    floor: float
    occupancy: float
    registers: int


def blocks_that_fit(work: Work, usage: Usage, device: Device) -> int:
    """Blocks of a kernel that a multiprocessor holds at a time."""
    registers = -(-usage.registers // 8) * 8 * work.threads
    shared = usage.shared + work.dynamic_shared + 1024
    return min(
        device.blocks, device.threads // work.threads, device.registers // registers, device.shared // shared
    )


def predict(work: Work, usage: Usage, device: Device) -> Prediction:
    """Predict one launch."""
    fit = blocks_that_fit(work, usage, device)
    busiest = -(-work.grid // device.processors)  # blocks of the multiprocessor that has most
    at_once = min(busiest, fit)
    slots = min(4.0 * device.lanes / 128, at_once * work.threads / 32)
    cycles = sum(phase.cycles(device, busiest, at_once, slots) for phase in work.phases)
    floor = work.bytes_moved / device.bandwidth
    time = LAUNCH + max(floor, cycles / device.clock)
    return Prediction(time * 1e6, floor * 1e6, fit * work.threads / device.threads, usage.registers)
