"""Time 5-way 5-shot evaluation: maps encoded once, against encoding every episode and the naive head.

    python -m benchmarks.speed.bench_evaluation [--device cuda] [--images 1200] [--naive 12]

Both sides read the same JPEG files; their answers are compared. They take turns, and the fastest runs count.
The naive side is timed on a few episodes and scaled to all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from PIL import Image

from benchmarks.published_head import NaiveHead
from lwfm.bench.command import DeviceName
from lwfm.bench.timing import benchmark_device, describe
from lwfm.data import EpisodeSampler, ImageSet, episode_labels, image_loader, open_images
from lwfm.evaluation.episodes import run_episodes
from lwfm.evaluation.map_store import stored_maps
from lwfm.model import LWFM, ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

WAY, SHOT, QUERIES, CLASSES = 5, 5, 15, 20


def make_images(root: Path, count: int) -> ImageSet:
    """Write random JPEG images of 84 x 84 pixels, evenly over 20 classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        folder = root / "test" / f"class-{number % CLASSES:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (7, 7, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((84, 84)).save(folder / f"{number}.jpg")
    return open_images("folder", root, "test")


def naive_head(model: LWFM) -> NaiveHead:
    """Build the published form of the head with the model's parameters."""
    head = NaiveHead(model.backbone.layer_dims, feature_size=3)
    head.load_state_dict(model.head.state_dict())
    return head.to(next(model.parameters()).device).eval()


def wait_for(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def answer_naively(
    model: LWFM, head: NaiveHead, images: ImageSet, episode: list[int]
) -> tuple[Tensor, dict[str, float]]:
    """Encode one episode's images and run the naive head; answers [Q], seconds of both."""
    started = time.perf_counter()
    normalization = model.normalization or images.normalization
    loader = image_loader(images, episode, image_size=84, normalization=normalization)
    device = next(model.parameters()).device
    batches = [model.encode(batch.to(device, memory_format=torch.channels_last)) for batch, _ in loader]
    maps = torch.cat([torch.cat(layer) for layer in zip(*batches, strict=True)], dim=1)  # [S + Q, C, F, F]
    wait_for(device)
    encoded = time.perf_counter()
    supports = WAY * SHOT
    logits = head(maps[:supports], episode_labels(WAY, SHOT).to(device), maps[supports:])
    answers = logits.argmax(-1).cpu()
    return answers, {"encoding": encoded - started, "head": time.perf_counter() - encoded}


def answer(
    model: LWFM, images: ImageSet, episodes: list[list[int]], folder: Path
) -> tuple[Tensor, dict[str, float]]:
    """Classify all queries as `lwfm evaluate --maps` does; answers of the whole head, seconds."""
    device = next(model.parameters()).device
    times = [time.perf_counter()]
    for _ in range(2):
        maps = stored_maps(model, images, folder)
        wait_for(device)
        times.append(time.perf_counter())
    answers = run_episodes(model.head, maps, {(WAY, SHOT): episodes}, bar=False)[WAY, SHOT]["lwfm"]
    times.append(time.perf_counter())
    parts = ("encoding", "finding", "episodes")
    return answers, {part: end - begin for part, (begin, end) in zip(parts, pairwise(times), strict=True)}


def measure(model: LWFM, images: ImageSet, folder: Path, options: argparse.Namespace) -> None:
    """Let both sides take turns, compare their answers, and print the fastest runs."""
    head = naive_head(model)
    sampler = EpisodeSampler(
        images.labels, way=WAY, shot=SHOT, queries=QUERIES, episodes=options.episodes, seed=0
    )
    episodes = list(sampler)
    ours: list[dict[str, float]] = []
    naive: list[dict[str, float]] = []
    different = 0
    for number in range(options.rounds):
        answers, seconds = answer(model, images, episodes, folder / f"maps-{number}")
        ours.append(seconds)
        for index in range(number, options.naive, options.rounds):
            expected, seconds = answer_naively(model, head, images, episodes[index])
            different += int((expected != answers[index]).sum())
            naive.append(seconds)
    print(f"answers that differ: {different} of {len(naive) * WAY * QUERIES}")
    encoding, finding, answered = (min(each[part] for each in ours) for part in ours[0])
    naive_encoding, naive_head_ = (min(each[part] for each in naive) for part in naive[0])
    total = (naive_encoding + naive_head_) * options.episodes
    print(
        f"ours   {encoding + answered:8.2f} s: encoding once {encoding:.2f} s, episodes {answered:.2f} s "
        f"({1e3 * answered / options.episodes:.2f} ms each); a second time {finding:.2f} s for encoding\n"
        f"naive  {total:8.0f} s, scaled from the fastest of {len(naive)} episodes: "
        f"encoding {naive_encoding:.3f} s and head {naive_head_:.3f} s each\n"
        f"ratio  {total / (encoding + answered):8.0f}; with stored maps {total / (finding + answered):.0f}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--naive", type=int, default=12, help="episodes timed on the naive side")
    parser.add_argument("--rounds", type=int, default=3, help="times that all of our side is timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=get_args(DeviceName), default="cpu")
    options = parser.parse_args()
    device = benchmark_device(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder), options.images)
        model = LWFM(ModelConfig(), normalization=images.normalization).eval()
        model.to(device).to(memory_format=torch.channels_last)
        print(
            f"{options.episodes} episodes, {WAY}-way {SHOT}-shot, {QUERIES} queries a class, "
            f"{options.images} images, ResNet-18, {describe(device, options.threads)}"
        )
        measure(model, images, Path(folder), options)


if __name__ == "__main__":
    main()
