"""Time of a training step, by part.

    python -m benchmarks.speed.bench_training --threads 2
    python -m benchmarks.speed.bench_training --device cuda --backbone resnet12

The step is that of ``make train-demo`` (preset emoji): ResNet-18 or another backbone, 5-way 1-shot with 5
queries and an auxiliary batch of 64, images of 84 x 84. The whole step and its parts take turns; printed
are medians, and the ratio of the step to the backbone alone in each round. The parts: decoding and
augmenting the images; the backbone forward and backward alone, from given gradients of its maps; the head
with the classifier and the losses forward and backward alone, from given maps. Then torch's profiler says
which operators one step spends its time in.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
from typing import TYPE_CHECKING, Any, get_args

import lightning
import torch
import yaml
from torch.profiler import ProfilerActivity, profile

from lwfm.bench.command import DeviceName
from lwfm.bench.timing import benchmark_device, describe, seconds_of
from lwfm.data import EpisodeDataModule
from lwfm.model import ModelConfig
from lwfm.presets import preset_path
from lwfm.training.config import OptimConfig
from lwfm.training.modules import LWFMModule

if TYPE_CHECKING:
    from collections.abc import Iterator


def build(backbone: str) -> tuple[LWFMModule, EpisodeDataModule]:
    """Build what ``lwfm train --preset emoji`` trains, with a backbone, and its data."""
    options = yaml.safe_load(preset_path("emoji").read_text())
    episodes, model = options["episodes"], ModelConfig(backbone=backbone)
    data = EpisodeDataModule(
        options["data"],
        **{name: episodes[name] for name in ("way", "shot", "queries", "auxiliary_batch")},
        episodes=episodes["train"],
        validation_episodes=episodes["validation"],
        image_size=model.image_size,
        seed=0,
    )
    data.setup("fit")
    optim = OptimConfig(**options["optim"])
    shape = {name: episodes[name] for name in ("way", "shot")}
    module = LWFMModule(
        model, optim, data.classes, data.normalization, **shape, steps=1, seed=0, validation=data.plan
    )
    return module.train(), data


class Step:
    """A training step, whole and in parts."""

    def __init__(self, backbone: str, device: torch.device, *, mixed: bool) -> None:
        self.device = device
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=mixed)
        for name in ("lightning", "lightning.pytorch"):  # which would explain what barebones leaves out
            logging.getLogger(name).setLevel(logging.ERROR)
        self.module, data = build(backbone)
        self.module.to(device)
        accelerator = "cpu" if device.type == "cpu" else "gpu"
        self.module.trainer = lightning.Trainer(barebones=True, accelerator=accelerator)  # which logs nothing
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.batches = self._batches(data)
        self.prepare()
        images = torch.cat([self.batch[part][0] for part in ("episode", "auxiliary")])
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.maps = [x.detach() for x in self.module.model.encode(self.images)]
        self.slopes = [torch.rand_like(x) for x in self.maps]

    @staticmethod
    def _batches(data: EpisodeDataModule) -> Iterator[dict[str, Any]]:
        for _ in itertools.count():
            yield from (batch for batch, *_ in data.train_dataloader())

    def prepare(self) -> None:
        """Decode and augment the images of a step, and move them to the device."""
        batch = next(self.batches)
        self.batch = {part: tuple(x.to(self.device) for x in pair) for part, pair in batch.items()}

    def whole(self) -> None:
        """Make one step as Lightning does: forward, backward, clipped gradients, optimizer."""
        with self.autocast:
            loss = self.module.training_step(self.batch, 0)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.module.optim.clip_norm)
        self.optimizer.step()

    def backbone(self) -> None:
        """Run forward and backward of the backbone alone."""
        with self.autocast:
            maps = self.module.model.encode(self.images)
        self.optimizer.zero_grad()
        torch.autograd.backward(maps, [slope.to(x.dtype) for slope, x in zip(self.slopes, maps, strict=True)])

    def head(self) -> None:
        """Run forward and backward of the head, the classifier and the losses alone."""
        maps = [x.detach().requires_grad_() for x in self.maps]
        losses = self.module._losses(maps, self.batch["episode"][1], self.batch["auxiliary"][1])
        self.optimizer.zero_grad()
        torch.autograd.backward([value for name, value in losses.items() if name.endswith("loss")])


def measured_times(step: Step, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each part in each round; they take turns."""
    parts = {"whole": step.whole, "backbone": step.backbone, "head": step.head, "prepare": step.prepare}
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, part in parts.items():
            times[name].append(seconds_of(part, step.device))
    return {name: values[1:] for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time a training step; see the file's docstring.")
    parser.add_argument("--device", choices=get_args(DeviceName), default="cpu")
    parser.add_argument("--backbone", default="resnet18", help="of the configuration (%(default)s)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mixed", action="store_true", help="bf16-mixed, as lwfm train --precision has it")
    options = parser.parse_args()
    device = benchmark_device(options.device)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    step = Step(options.backbone, device, mixed=options.mixed)
    measured = measured_times(step, options.rounds)
    times = {name: statistics.median(values) for name, values in measured.items()}
    place = describe(device, options.threads)
    print(f"{options.backbone}, {len(step.images)} images, {place}; ms, and share of the whole step")
    for name, what in (
        ("whole", "training step without reading images"),
        ("backbone", "backbone alone, forward + backward"),
        ("head", "head, classifier and losses alone, forward + backward"),
        ("prepare", "decoding and augmenting the images (on top)"),
    ):
        print(f"{what:>55} {1e3 * times[name]:9.1f} {times[name] / times['whole']:8.1%}")
    ratios = sorted(a / b for a, b in zip(measured["whole"], measured["backbone"], strict=True))
    print(
        f"step / backbone alone, round by round: median {statistics.median(ratios):.3f} "
        f"({ratios[0]:.3f} to {ratios[-1]:.3f})"
    )
    activities, column = [ProfilerActivity.CPU], "self_cpu_time_total"
    if device.type == "cuda":
        activities, column = [*activities, ProfilerActivity.CUDA], "self_cuda_time_total"
    with profile(activities=activities) as profiler:
        step.whole()
    print(profiler.key_averages().table(sort_by=column, row_limit=16, max_name_column_width=45))


if __name__ == "__main__":
    main()
