"""Recall@k of `lwfm search`: ranked by matching, and by cosine alone.

    lwfm index IMAGES --out index.safetensors        # IMAGES/<class>/<image>
    python -m benchmarks.speed.bench_retrieval index.safetensors [--k 1 5 10] [--candidates 100]

Every indexed image is looked for among the others; recall@k is the share of images with at least one of
their class (the name of their folder) among the first k. Intervals are 95 %, differences paired by image.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm._common.progress import progress
from lwfm.evaluation.statistics import mean_and_interval, paired_test
from lwfm.retrieval.index import Hit, ImageIndex, load_index

if TYPE_CHECKING:
    from collections.abc import Iterator

METHODS = ("matching", "cosine")
TOGETHER = 32
"""Images that are looked for at a time."""


def _searched(index: ImageIndex, candidates: int) -> Iterator[list[Hit]]:
    """Yield the candidates of each indexed image, ranked."""
    features = index.features()
    begins = range(0, len(index.names), TOGETHER)
    for begin in progress(begins, f"searching, {TOGETHER} images at a time", "batch"):
        queries = [layer[begin : begin + TOGETHER].float() for layer in index.maps]
        yield from index.nearest(queries, features, candidates, candidates=candidates)


def recalls(index: ImageIndex, ks: list[int], candidates: int) -> dict[tuple[str, int], list[float]]:
    """Search for each image among the others; return, by method and k, 1 where its class was found."""
    classes = [Path(name).parent.name for name in index.names]
    found: dict[tuple[str, int], list[float]] = {(method, k): [] for method in METHODS for k in ks}
    for number, (label, hits) in enumerate(zip(classes, _searched(index, candidates + 1), strict=True)):
        others = [hit for hit in hits if hit.number != number][:candidates]
        orders = {"matching": others, "cosine": sorted(others, key=lambda hit: hit.cosine_rank)}
        for (method, k), right in found.items():
            right.append(float(any(classes[hit.number] == label for hit in orders[method][:k])))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--k", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--candidates", type=int, default=100)
    parser.add_argument("--matching_weight", type=float, help="instead of the network's own")
    options = parser.parse_args()
    index = load_index(options.index)
    if options.matching_weight is not None:
        index.network.head.matching_weight = options.matching_weight
    started = time.perf_counter()
    found = recalls(index, options.k, options.candidates)
    each = 1e3 * (time.perf_counter() - started) / len(index.names)
    print(f"{len(index.names)} images, {options.candidates} candidates, {each:.1f} ms a search")
    print(f"matching weight {index.network.head.matching_weight:g}")
    print(f"{'':>9}  {'matching':>12}  {'cosine':>12}  matching - cosine")
    for k in options.k:
        cells = []
        for method in METHODS:
            mean, interval = mean_and_interval(found[method, k])
            cells.append(f"{100 * mean:5.1f} ± {100 * (interval or 0):.1f}")
        test = paired_test(found["matching", k], found["cosine", k])
        gain = f"{100 * test.difference:+.2f} ± {100 * (test.interval or 0):.2f}"
        print(f"recall@{k:<2}  {cells[0]:>12}  {cells[1]:>12}  {gain}")


if __name__ == "__main__":
    main()
