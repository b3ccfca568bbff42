"""Time of the preset ``recommended`` beside ``paper``: a training step, and an evaluated episode.

    python -m benchmarks.speed.bench_presets --threads 2

Both take turns, and medians are printed. The training step is that of the preset ablation on random
images of 84 x 84: an episode of 5 ways, 1 shot and 5 queries and 32 auxiliary images through ResNet-18,
forward and backward with all losses. The episodes have 75 queries, and their maps are encoded already.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
import yaml

from lwfm.data import episode_labels
from lwfm.model import LWFM, ModelConfig
from lwfm.presets import preset_path

if TYPE_CHECKING:
    from collections.abc import Callable

WAY, CLASSES, AUXILIARY = 5, 36, 32


def build(preset: str) -> LWFM:
    """Build the network of a preset with random weights."""
    options = yaml.safe_load(preset_path(preset).read_text())["model"]
    config = ModelConfig.from_dict({**options, "weights": "none"})
    torch.manual_seed(0)
    network = LWFM(config, [str(number) for number in range(CLASSES)])
    return network.to(memory_format=torch.channels_last)


def training_step(network: LWFM, precision: torch.dtype | None) -> Callable[[], None]:
    """Run forward and backward of one training step."""
    count = WAY * (1 + 5) + AUXILIARY
    images = torch.randn(count, 3, 84, 84).contiguous(memory_format=torch.channels_last)
    labels, targets = torch.randint(CLASSES, (count - WAY,)), episode_labels(WAY, 5)

    def step() -> None:
        network.train()
        with torch.autocast("cpu", dtype=precision or torch.bfloat16, enabled=precision is not None):
            maps = network.encode(images)
        parts = [[x[a:b] for x in maps] for a, b in ((0, WAY), (WAY, WAY * 6), (WAY * 6, count))]
        logits, class_logits = network.head(parts[0], episode_labels(WAY, 1), parts[1])
        auxiliary = torch.cat([class_logits, network.head.classify(parts[2])])
        loss = F.cross_entropy(logits, targets) + F.cross_entropy(auxiliary, labels)
        network.zero_grad()
        torch.autograd.backward(loss)

    return step


def episode(network: LWFM, shot: int) -> Callable[[], None]:
    """Compute the logits of one episode from maps."""
    sides = zip(network.backbone.layer_dims, network.backbone.feature_size, strict=True)
    maps = [torch.rand(WAY * (shot + 15), C_l, F_l, F_l) for C_l, F_l in sides]
    support, query = ([x[: WAY * shot] for x in maps], [x[WAY * shot :] for x in maps])

    @torch.inference_mode()
    def answer() -> None:
        network.eval()
        network.head(support, episode_labels(WAY, shot), query)

    return answer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    networks = {preset: build(preset) for preset in ("paper", "recommended")}
    kinds: dict[str, Callable[[LWFM], Callable[[], None]]] = {
        "training step, float32": lambda network: training_step(network, None),
        "training step, bf16-mixed": lambda network: training_step(network, torch.bfloat16),
        "episode, 1-shot": lambda network: episode(network, 1),
        "episode, 5-shot": lambda network: episode(network, 5),
    }
    print(f"ms, {options.threads} thread(s), medians of {options.rounds}")
    for name, make in kinds.items():
        runs = {preset: make(network) for preset, network in networks.items()}
        times: dict[str, list[float]] = {preset: [] for preset in runs}
        for _ in range(options.rounds + 1):
            for preset, run in runs.items():
                start = time.perf_counter()
                run()
                times[preset].append(time.perf_counter() - start)
        median = {preset: 1e3 * statistics.median(values[1:]) for preset, values in times.items()}
        shown = "".join(f"{preset} {value:9.1f}   " for preset, value in median.items())
        print(f"{name:<28}{shown}x {median['recommended'] / median['paper']:.2f}", flush=True)


if __name__ == "__main__":
    main()
