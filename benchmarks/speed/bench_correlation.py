"""Bound what a matrix product of our own could save over the library's, by shape.

    python -m benchmarks.speed.bench_correlation --threads 2

The correlation of all positions is a product by ``torch.matmul`` whose result R is written and read again.
A tile that feeds the blocks of pairs directly could at best run at the rate of a large square product. The
last column is that bound: what the head's forward pass would gain from such a tile, in percent of its time.
The rule "always the library on the CPU" (``lwfm.ops._expressions.raw_correlation``) rests on it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

import torch

from lwfm.bench.head import peak_rate
from lwfm.bench.timing import seconds_of
from lwfm.nn import LWFMHead
from lwfm.ops._expressions import raw_correlation

if TYPE_CHECKING:
    from collections.abc import Callable

CPU = torch.device("cpu")


class Shape(NamedTuple):
    """A layer of an episode: support and query images, positions, channels."""

    support: int
    query: int
    size: int
    channels: int


SHAPES = [
    Shape(support, query, size, channels)
    for support, query in ((5, 75), (25, 75), (100, 300))
    for size in (1, 2, 3, 5)
    for channels in (16, 64, 512)
]


def fastest(call: Callable[[], object], rounds: int) -> float:
    """Return the seconds of the fastest call after a warm-up: other load only adds time."""
    return min([seconds_of(call, CPU) for _ in range(rounds + 3)][3:])


def measure(shape: Shape, rate: float, rounds: int) -> str:
    """Time one layer's correlation and a head of that layer alone; a line of the table."""
    S, Q, F, C = shape
    support, query = torch.rand(S, C, F, F), torch.rand(Q, C, F, F)
    positions = [x.flatten(2).transpose(1, 2).contiguous() for x in (support, query)]
    flops = 2.0 * S * Q * F**4 * C
    head = LWFMHead([C], feature_size=F)
    labels = torch.arange(S) % 5
    with torch.no_grad():
        product = fastest(lambda: raw_correlation(*positions), rounds)
        whole = fastest(lambda: head(support, labels, query), rounds)
    saved = max(0.0, product - flops / rate)
    return (
        f"{S:7d} {Q:7d} {F:3d} {C:8d} {1e3 * product:10.3f} {flops / product / 1e9:9.0f} "
        f"{1e3 * whole:9.3f} {saved / whole:10.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="What a fused tile could save; see the docstring.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rate = peak_rate(CPU)
    print(f"{options.threads} thread(s), torch {torch.__version__}, large product: {rate / 1e9:.0f} GFLOP/s")
    print("support   query   F channels product ms   GFLOP/s   head ms  tile saves")
    for shape in SHAPES:
        print(measure(shape, rate, options.rounds), flush=True)


if __name__ == "__main__":
    main()
