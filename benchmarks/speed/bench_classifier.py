"""Many classes and a long stream of images: time and peak memory of `lwfm.FewShotClassifier`.

    python -m benchmarks.speed.bench_classifier [--classes 1000] [--shots 10] [--queries 10000]

Images are drawn while they are read: a pattern of its own for each class, and noise. The stream is a
generator, so no more of it exists at a time than the classifier asks for; memory is reported after a first
part and after all of it.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import TYPE_CHECKING

import numpy as np
import torch

from lwfm import FewShotClassifier
from lwfm.bench.timing import describe
from lwfm.model import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

FIRST_PART = 1000


def draw(labels: Iterable[int], side: int, seed: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield an image [side, side, 3] of each label: the pattern of the class under noise."""
    noise = np.random.default_rng(seed)
    for label in labels:
        pattern = np.random.default_rng(label).integers(0, 200, (4, 4, 3))
        large = pattern.repeat(-(-side // 4), 0).repeat(-(-side // 4), 1)[:side, :side]
        yield (large + noise.integers(0, 56, large.shape)).astype(np.uint8)


def peak_gigabytes() -> float:
    """Return the peak memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux counts kilobytes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--backbone", default="conv4")
    parser.add_argument("--image_size", type=int, default=32)
    parser.add_argument("--feature_size", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    config = ModelConfig(
        backbone=options.backbone, image_size=options.image_size, feature_size=options.feature_size,
        embedding=False,
    )  # fmt: skip
    classifier = FewShotClassifier(config)
    begin = time.perf_counter()
    known = np.arange(options.classes).repeat(options.shots)
    classifier.fit(draw(known, options.image_size, 1), known)
    seconds = time.perf_counter() - begin
    print(f"{describe(torch.device('cpu'), torch.get_num_threads())}; {classifier!r}")
    print(f"fit: {seconds:.0f} s, {peak_gigabytes():.2f} GB at most")
    asked = np.random.default_rng(2).integers(options.classes, size=options.queries)
    right, answered, seconds = 0, 0, 0.0
    for part in np.split(asked, [min(FIRST_PART, len(asked))]):
        begin = time.perf_counter()
        right += int((classifier.predict(draw(part.tolist(), options.image_size, 3)) == part).sum())
        seconds += time.perf_counter() - begin
        answered += len(part)
        print(f"{answered} queries: {seconds:.0f} s, {peak_gigabytes():.2f} GB at most", flush=True)
    rate, accuracy = len(asked) / seconds, 100 * right / len(asked)
    print(f"{rate:.0f} queries a second, {accuracy:.1f} % right")


if __name__ == "__main__":
    main()
