"""Time 5-way 5-shot evaluation: maps encoded once, against encoding every episode and the naive head.

    python -m benchmarks.speed.bench_evaluation [--device cuda] [--images 1200] [--naive 12]

Both sides read the same JPEG files; their answers are compared. The naive side is timed on a few episodes and
scaled to all of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from PIL import Image

from benchmarks.published_head import NaiveHead
from lwfm.bench.command import DeviceName
from lwfm.bench.timing import benchmark_device, describe
from lwfm.data import EpisodeSampler, ImageSet, episode_labels, image_loader, open_images
from lwfm.evaluation.episodes import episode_scores
from lwfm.evaluation.map_store import stored_maps
from lwfm.model import LWFM, ModelConfig

if TYPE_CHECKING:
    from lwfm.evaluation.cached_maps import CachedMaps

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
) -> tuple[torch.Tensor, float, float]:
    """Encode one episode's images and run the naive head; answers [Q], seconds of encoding and head."""
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
    return logits.argmax(-1).cpu(), encoded - started, time.perf_counter() - encoded


@torch.inference_mode()
def answer_fast(model: LWFM, maps: CachedMaps, episode: list[int]) -> torch.Tensor:
    """Classify the queries of one episode by the whole head and the baselines, as `lwfm evaluate` does."""
    supports = WAY * SHOT
    scores = episode_scores(
        model.head,
        maps.select(episode[:supports]),
        episode_labels(WAY, SHOT).to(maps.layers[0].device),
        maps.select(episode[supports:]),
    )
    return scores["lwfm"].argmax(-1).cpu()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--naive", type=int, default=12, help="episodes timed on the naive side")
    parser.add_argument("--device", choices=get_args(DeviceName), default="cpu")
    options = parser.parse_args()
    device = benchmark_device(options.device)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        images = make_images(Path(folder), options.images)
        model = LWFM(ModelConfig(), normalization=images.normalization).eval()
        model.to(device).to(memory_format=torch.channels_last)
        sampler = EpisodeSampler(
            images.labels, way=WAY, shot=SHOT, queries=QUERIES, episodes=options.episodes, seed=0
        )
        episodes = list(sampler)
        started = time.perf_counter()
        maps = stored_maps(model, images, Path(folder) / "maps")
        wait_for(device)
        encoded = time.perf_counter() - started
        started = time.perf_counter()
        fast = [answer_fast(model, maps, episode) for episode in episodes]
        answered = time.perf_counter() - started
        started = time.perf_counter()
        stored_maps(model, images, Path(folder) / "maps")
        found = time.perf_counter() - started
        head = naive_head(model)
        naive = [answer_naively(model, head, images, episode) for episode in episodes[: options.naive]]
    different = sum(int((a != b[0]).sum()) for a, b in zip(fast, naive, strict=False))
    encoding, heads = (sum(one[i] for one in naive[1:]) / (len(naive) - 1) for i in (1, 2))
    total = (encoding + heads) * options.episodes
    print(
        f"{options.episodes} episodes, {WAY}-way {SHOT}-shot, {QUERIES} queries a class, "
        f"{options.images} images, ResNet-18, "
        f"{describe(device, torch.get_num_threads())}\n"
        f"answers that differ: {different} of {options.naive * WAY * QUERIES}\n"
        f"ours   {encoded + answered:8.1f} s: encoding once {encoded:.1f} s, episodes {answered:.1f} s "
        f"({1e3 * answered / options.episodes:.1f} ms each); a second time {found:.2f} s for encoding\n"
        f"naive  {total:8.0f} s, scaled from {len(naive) - 1} episodes: encoding {encoding:.2f} s and head "
        f"{heads:.2f} s each\n"
        f"ratio  {total / (encoded + answered):8.0f}; with stored maps {total / (found + answered):.0f}"
    )


if __name__ == "__main__":
    main()
