"""From files to answers: images per second by each engine, beside bare ONNX Runtime on decoded tensors.

    python -m benchmarks.speed.bench_throughput files [--images 2000] [--threads 2] [--image_size N]
    python -m benchmarks.speed.bench_throughput stream [--images 100000]   # memory of a long stream
    python -m benchmarks.speed.bench_throughput equal [--trained FILE]  # answers of all engines
    python -m benchmarks.speed.bench_throughput cold                       # `lwfm classify` of twelve images

Files are JPEGs of 84 x 84 and 500 x 375, drawn here, in ten classes of which five examples each are known.
Contestants take turns, a part of the images each, so that all of them see the same machine; times are of the
clock and of the processors. `former` is what the classifier did before: batches of 32, each decoded before it
is encoded, weights in the layout in which they are loaded.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from lwfm import FewShotClassifier, lite
from lwfm._common.onnx_runtime import CPU_PROVIDER, INPUT, import_runtime
from lwfm._common.tables import text_table
from lwfm.bench.timing import describe
from lwfm.data.center_crop import CenterCrop
from lwfm.data.decoding import open_image
from lwfm.data.normalization import IMAGENET
from lwfm.model import LWFM, ModelConfig
from lwfm.model.default import build_network, network_name
from lwfm.model.encode import image_batches
from lwfm.model.engines import Encoder, exported_path, open_exported
from lwfm.model.onnx_export import export_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lwfm.classifier.few_shot import FewShotEstimator

SIZES = [(84, 84), (500, 375)]
CLASSES, SHOTS = 10, 5
FORMER_BATCH = 32
ENGINES = ("torch", "onnxruntime", "lwfm.lite")
PARTS = 2
"""Turns that each contestant has."""


def parts(paths: Sequence[Path], size: int) -> Iterator[Sequence[Path]]:
    """Split a list into parts of a size; the last may be smaller."""
    return (paths[begin : begin + size] for begin in range(0, len(paths), size))


def draw_files(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Write JPEG files: a coarse pattern of each class, varied, under finer noise."""
    random = np.random.default_rng(0)
    width, height = size
    patterns = random.integers(40, 216, (CLASSES, 6, 8, 3))
    paths = []
    for number in range(count):
        varied = patterns[number % CLASSES] + random.normal(0, 40, (6, 8, 3))
        image = Image.fromarray(varied.clip(0, 255).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noisy = np.asarray(image) + random.normal(0, 12, (height, width, 3))
        path = folder / f"class-{number % CLASSES}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


def fitted(network: LWFM, paths: Sequence[Path], engine: str) -> FewShotEstimator:
    """Fit a classifier to the first images of each class, by an engine or by lwfm.lite."""
    examples = paths[: CLASSES * SHOTS]
    labels = [path.parent.name for path in examples]
    if engine == "lwfm.lite":
        path = examples[0].parent.parent / "model.onnx"
        export_network(network, path)
        return lite.FewShotClassifier(path, threads=torch.get_num_threads()).fit(examples, labels)
    return FewShotClassifier(network, engine=engine, progress=False).fit(examples, labels)


class Former:
    """The classifier's way until now, in the same classes: answers of files."""

    def __init__(self, classifier: FewShotClassifier) -> None:
        self.classifier = classifier

    def __call__(self, paths: Sequence[Path]) -> None:
        body = self.classifier.network_.backbone.body.to(memory_format=torch.contiguous_format)
        try:
            for batch in parts(paths, FORMER_BATCH):
                decoded = list(image_batches(batch, self.classifier.network_.config.image_size, FORMER_BATCH))
                crops = [Image.fromarray(pixels) for each in decoded for pixels in each.numpy()]
                self.classifier.set_params(batch_size=FORMER_BATCH).predict(crops)
        finally:
            body.to(memory_format=torch.channels_last)


def contestants(
    network: LWFM, paths: Sequence[Path], engines: Sequence[str]
) -> dict[str, Callable[..., Any]]:
    """Return what is timed, by name: functions of files, and for bare ONNX Runtime of their pixels."""
    classifiers = {engine: fitted(network, paths, engine) for engine in engines}
    batch_size = Encoder(network).batch_size
    session = bare_session(network)

    def bare(pixels: torch.Tensor) -> None:
        for begin in range(0, len(pixels), batch_size):
            session.run(["maps.0", "maps.1"], {INPUT: pixels[begin : begin + batch_size].numpy()})

    def decode(paths: Sequence[Path]) -> None:
        for _ in image_batches(paths, network.config.image_size, batch_size):
            pass

    former = fitted(network, paths, "torch")
    assert isinstance(former, FewShotClassifier)
    return {
        "former": Former(former),
        **{engine: classifier.predict for engine, classifier in classifiers.items()},
        "bare ONNX Runtime": bare,
        "decoding alone": decode,
    }


def bare_session(network: LWFM) -> Any:
    """Open the exported network with ONNX Runtime's own settings but for the number of threads."""
    normalization = network.normalization or IMAGENET
    path = exported_path(network, normalization)
    open_exported(network, normalization, path)
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return runtime.InferenceSession(path, options, providers=[CPU_PROVIDER])


def time_files(network: LWFM, count: int, size: tuple[int, int]) -> str:
    """Time all contestants in turns -> a table."""
    crop = CenterCrop(network.config.image_size)
    clock: dict[str, float] = defaultdict(float)
    processors: dict[str, float] = defaultdict(float)
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_files(Path(folder), count, size)
        functions = contestants(network, paths, ENGINES)
        for part in parts(paths, -(-count // PARTS)):
            pixels = torch.from_numpy(np.stack([np.asarray(crop(open_image(path))) for path in part]))
            for name, function in functions.items():
                given = pixels if name.startswith("bare") else part
                begin, used = time.perf_counter(), time.process_time()
                function(given)
                clock[name] += time.perf_counter() - begin
                processors[name] += time.process_time() - used
    bare = clock["bare ONNX Runtime"]
    rows = [
        (
            name,
            f"{count / clock[name]:.0f}",
            f"{bare / clock[name]:.2f}",
            f"{1e3 * processors[name] / count:.2f}",
        )
        for name in functions
    ]
    titles = ("contestant", "images/s", "of bare", "ms of processors an image")
    return f"{count} JPEGs of {size[0]} x {size[1]}\n" + text_table("<>>>", titles, rows)


def measure_stream(network: LWFM, count: int) -> Iterator[str]:
    """Classify a generator of files, report the memory after 1 000, 10 000 and 100 000 images."""
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_files(Path(folder), 500, SIZES[0])
        classifier = fitted(network, paths, "onnxruntime")
        for answered, _ in enumerate(classifier.decide(islice(cycle(paths), count)), start=1):
            if answered in (1000, 10_000, 100_000, count):
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
                yield f"{answered} images: {resident():.0f} MB now, {peak:.0f} MB at most"


def resident() -> float:
    """Return the memory of this process in MB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def compare_answers(network: LWFM, count: int) -> Iterator[tuple[str, ...]]:
    """Classify the same images by all engines -> rows: network, engine, how far it is from torch."""
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_files(Path(folder), count + CLASSES * SHOTS, SIZES[0])
        found = {
            engine: fitted(network, paths, engine).predict_proba(paths[CLASSES * SHOTS :])
            for engine in ENGINES
        }
        pixels = next(image_batches(paths[:64], network.config.image_size, 64))
    with torch.inference_mode():
        maps = [Encoder(network, engine)(pixels) for engine in ("torch", "onnxruntime")]
    relative = max(float((a - b).norm() / a.norm()) for a, b in zip(*maps, strict=True))
    expected = found.pop("torch")
    for engine, answers in found.items():
        equal = int((answers.argmax(1) == expected.argmax(1)).sum())
        largest = np.abs(answers - expected).max()
        yield network_name(network), engine, f"{equal} of {count}", f"{largest:.1e}", f"{relative:.1e}"


def three_networks(trained: str | None) -> Iterator[LWFM]:
    """Build EfficientNet-Lite0, a ResNet-18 (trained, if a file is given) and a transformer."""
    yield build_network("auto", head="recommended")
    resnet = ModelConfig(backbone="resnet18", image_size=84, embedding=False)
    yield build_network(trained or resnet)
    yield build_network(ModelConfig(backbone="timm:vit_tiny_patch16_224", image_size=224, embedding=False))


def time_cold(engine: str) -> str:
    """Time `lwfm classify` of twelve images with five examples of each of three classes, in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_files(Path(folder) / "examples", CLASSES * (SHOTS + 4), SIZES[1])
        queries = Path(folder) / "unsorted"
        queries.mkdir()
        for path in paths[CLASSES * SHOTS :]:
            if path.parent.name < "class-3":
                path.rename(queries / path.name)
        for label in range(3, CLASSES):
            for path in (Path(folder) / "examples" / f"class-{label}").iterdir():
                path.unlink()
            (Path(folder) / "examples" / f"class-{label}").rmdir()
        program, given = ["lwfm", "classify"], ["--engine", engine]
        if engine == "lwfm.lite":
            program, given = ["lwfm.lite"], ["--model", str(Path(folder) / "model.onnx")]
            export_network(build_network("auto", head="recommended"), Path(given[1]))
        folders = [str(Path(folder) / "examples"), str(queries)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        begin, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", *program, *folders, *given]
        subprocess.run(command, check=True, capture_output=True, env=environment)  # noqa: S603
        seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    processors = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    return f"12 images, {engine}: {seconds:.1f} s, {processors:.1f} s of processors"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["files", "stream", "equal", "cold"])
    parser.add_argument("--images", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="auto")
    parser.add_argument("--image_size", type=int, help="side of the images, if not the model's own")
    parser.add_argument("--trained", help="a file of lwfm train, in place of a random ResNet-18")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{describe(torch.device('cpu'), options.threads)}, load {os.getloadavg()[0]:.1f}")
    if options.what == "files":
        network = build_network(options.model, options.image_size, head="recommended")
        for size in SIZES:
            print(time_files(network, options.images or 2000, size), flush=True)
    elif options.what == "stream":
        network = build_network(options.model, options.image_size, head="recommended")
        for line in measure_stream(network, options.images or 100_000):
            print(line, flush=True)
    elif options.what == "equal":
        networks = three_networks(options.trained)
        rows = chain.from_iterable(compare_answers(each, options.images or 1000) for each in networks)
        titles = ("network", "engine", "answers as torch's", "a probability differs by", "the maps by")
        print(text_table("<<>>>", titles, list(rows)))
    else:
        for engine in ("torch", *ENGINES):
            print(time_cold(engine), flush=True)


if __name__ == "__main__":
    main()
