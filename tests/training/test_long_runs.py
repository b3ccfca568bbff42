"""Long runs: kill -9, divergence, early stop, accumulation, mixed precision, several processes."""

from __future__ import annotations

import csv
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from lwfm._common.tensor_files import read_tensor_file
from lwfm.data.episodes import EpisodeSampler, SeededSampler
from lwfm.errors import UserError
from lwfm.training import OptimConfig, TrainingSummary
from lwfm.training.checkpoints import AtomicCheckpointIO
from lwfm.training.modules import LWFMModule
from tests.helpers.tiny_training import EPISODES, pretrain_tiny, train_tiny

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess
    from pathlib import Path

KILLED_EPOCHS = 24
NETWORK = ["--model.backbone", "conv4", "--model.image_size", "24", "--model.feature_size", "1"]
RUN = ["--accelerator", "cpu", "--progress", "false"]
OPTIONS = {
    "train": [
        "--episodes.way", "3", "--episodes.queries", "2", "--episodes.auxiliary_batch", "8",
        "--episodes.train", "4", "--episodes.validation", "10",
    ],
    "pretrain": [
        "--batch", "8", "--validation.way", "3", "--validation.queries", "2", "--validation.episodes", "10",
    ],
}  # fmt: skip
"""Of each command: what tests/helpers/tiny_training.py has."""


def start(out: Path, root: Path, *options: object, command: str = "train") -> subprocess.Popen[str]:
    """Start a command of `lwfm` that trains as a process of its own."""
    words = [sys.executable, "-m", "lwfm", command, "--out", out, "--data", "folder", "--root", root]
    return subprocess.Popen(
        [str(word) for word in [*words, *NETWORK, *OPTIONS[command], *RUN, *options]],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AtomicCheckpointIO().load_checkpoint(folder / "last.ckpt")["state_dict"]
    return state


def losses(summary: TrainingSummary) -> list[float]:
    with (summary.logs / "metrics.csv").open() as file:
        return [float(row["episode_loss"]) for row in csv.DictReader(file) if row["episode_loss"]]


STAGES = {"episodes": train_tiny, "pretraining": pretrain_tiny}


def _train_alone(stage: str, out: Path, root: Path, resume: bool) -> None:
    """Train in a process of its own, single-threaded like every other start."""
    torch.set_num_threads(1)
    STAGES[stage](out, root, epochs=KILLED_EPOCHS, resume=resume)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "times"), [("episodes", 3), ("pretraining", 1)], ids=STAGES)
def test_runs_killed_at_random_moments_end_with_the_same_weights(
    tiny_images: Path, tmp_path: Path, stage: str, times: int
) -> None:
    """SIGKILL at a random moment of some epoch; what resumes must not differ by a bit."""
    processes = multiprocessing.get_context("forkserver")  # imports torch once, not for each start
    processes.set_forkserver_preload(["lwfm.training", "lwfm.training.pretraining"])

    def start_alone(out: Path, *, resume: bool) -> BaseProcess:
        process = processes.Process(target=_train_alone, args=(stage, out, tiny_images, resume))
        process.start()
        return process

    whole = start_alone(tmp_path / "whole", resume=False)
    whole.join(120)
    assert whole.exitcode == 0
    out, moments, kills = tmp_path / "killed", random.Random(), []
    last = out / "last.ckpt"
    for _ in range(times):
        before = last.stat().st_mtime_ns if last.is_file() else 0
        process = start_alone(out, resume=last.is_file())
        while process.is_alive() and (not last.is_file() or last.stat().st_mtime_ns == before):
            time.sleep(0.002)  # until it has finished an epoch
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        kills.append(process.exitcode)
    assert kills == [-signal.SIGKILL] * times
    assert times - 1 <= AtomicCheckpointIO().load_checkpoint(last)["epoch"] < KILLED_EPOCHS - 1
    process = start_alone(out, resume=True)
    process.join(120)
    assert process.exitcode == 0
    expected, found = weights(tmp_path / "whole"), weights(out)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert (out / "best.safetensors").read_bytes() == (tmp_path / "whole" / "best.safetensors").read_bytes()
    assert not list(out.glob(".*.part.*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "stage"), [("train", "episodes"), ("pretrain", "pretraining")], ids=STAGES
)
def test_two_processes_train_like_one_with_both_batches(
    tiny_images: Path, tmp_path: Path, command: str, stage: str
) -> None:
    """DDP over gloo: a step averages the gradients of two batches, as accumulation does in one process."""
    process = start(tmp_path / "two", tiny_images, "--epochs", 2, "--devices", 2, command=command)
    assert process.wait(timeout=200) == 0, process.stderr and process.stderr.read()
    one = STAGES[stage](tmp_path / "one", tiny_images, accumulate=2)
    assert one.steps == 4
    expected, found = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in expected.items():
        if (
            "running" not in name and "num_batches" not in name
        ):  # each process keeps its own batches' statistics
            torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
    STAGES[stage](tmp_path / "each", tiny_images)  # a step for each batch is something else
    name = "model.head.classifier.weight"
    assert not torch.allclose(weights(tmp_path / "each")[name], found[name], rtol=1e-4, atol=1e-6)
    assert (tmp_path / "two" / "best.safetensors").is_file()
    assert (tmp_path / "two" / "curves.png").is_file()


def test_processes_share_the_batches() -> None:
    sampler = EpisodeSampler([0, 0, 1, 1, 2, 2], way=2, shot=1, queries=1, episodes=5, seed=0)
    whole = list(SeededSampler(sampler, seed=1))
    parts = [SeededSampler(sampler, seed=1, process=i, processes=2) for i in range(2)]
    assert [len(part) for part in parts] == [3, 2]
    assert list(parts[0]) == whole[::2]
    assert list(parts[1]) == whole[1::2]


def test_accumulation_averages_the_gradients(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of SGD over two episodes is the step along the mean of their gradients."""
    optim = OptimConfig(lr=0.1, momentum=0.0, weight_decay=0.0, clip_norm=1e6, milestones=())
    gradients: list[torch.Tensor] = []
    step = LWFMModule.training_step

    def record(self: LWFMModule, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = step(self, batch, batch_idx)
        weight = self.model.head.classifier.weight  # type: ignore[union-attr]
        gradients.append(torch.autograd.grad(loss, weight, retain_graph=True)[0])
        before.append(weight.detach().clone())
        return loss

    before: list[torch.Tensor] = []
    monkeypatch.setattr(LWFMModule, "training_step", record)
    episodes = replace(EPISODES, train=2)
    summary = train_tiny(tmp_path, tiny_images, accumulate=2, epochs=1, optim=optim, episodes=episodes)
    assert summary.steps == 1
    after = weights(tmp_path)["model.head.classifier.weight"]
    torch.testing.assert_close(
        before[0] - 0.1 * (gradients[0] + gradients[1]) / 2, after, rtol=1e-5, atol=1e-6
    )
    assert torch.equal(before[0], before[1])


def test_accumulation_counts_steps_for_the_schedule(tiny_images: Path, tmp_path: Path) -> None:
    optim = OptimConfig(decay=0.1, milestones=(0.5,))
    summary = train_tiny(tmp_path, tiny_images, accumulate=3, optim=optim)  # 4 episodes: 2 steps an epoch
    assert summary.steps == 4
    checkpoint = AtomicCheckpointIO().load_checkpoint(summary.last)
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0.01 * 0.1)


def test_mixed_precision_trains_on_the_cpu(tiny_images: Path, tmp_path: Path) -> None:
    full = train_tiny(tmp_path / "full", tiny_images)
    mixed = train_tiny(tmp_path / "mixed", tiny_images, precision="bf16-mixed")
    assert {tensor.dtype for tensor in weights(tmp_path / "mixed").values()} <= {torch.float32, torch.int64}
    assert losses(mixed) != losses(full)
    assert losses(mixed) == pytest.approx(losses(full), rel=0.1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_gradient_is_clipped_before_a_step(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    before: dict[str, torch.Tensor] = {}
    start = LWFMModule.on_train_start

    def note(self: LWFMModule) -> None:
        before.update({name: tensor.detach().clone() for name, tensor in self.named_parameters()})
        start(self)

    monkeypatch.setattr(LWFMModule, "on_train_start", note)
    optim = OptimConfig(lr=0.5, momentum=0.0, weight_decay=0.0, clip_norm=0.01, milestones=())
    episodes = replace(EPISODES, train=1)
    train_tiny(tmp_path, tiny_images, epochs=1, optim=optim, episodes=episodes, precision=precision)
    after = weights(tmp_path)
    change = torch.cat([(after[name] - tensor).flatten() for name, tensor in before.items()])
    assert change.norm().item() == pytest.approx(0.5 * 0.01, rel=1e-3)


def test_early_stop_after_epochs_without_gain(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With a learning rate of nearly nothing no epoch improves on the first.
    optim = OptimConfig(lr=1e-12, weight_decay=0.0)
    accuracy = iter([0.5, 0.4, 0.5, 0.3, 0.9, 0.9])
    log = LWFMModule.log

    def logged(self: LWFMModule, name: str, value: Any, **options: Any) -> None:
        log(self, name, torch.tensor(next(accuracy)) if name == "val_accuracy" else value, **options)

    monkeypatch.setattr(LWFMModule, "log", logged)
    summary = train_tiny(tmp_path, tiny_images, epochs=6, patience=2, optim=optim)
    assert (summary.epochs, summary.best_epoch, summary.val_accuracy) == (3, 0, 0.5)


def test_a_batch_that_diverges_is_kept(tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"diverged: .*the images of that step are in .*diverged\.safetensors"
    ):
        train_tiny(tmp_path, tiny_images, optim=OptimConfig(lr=1e30, clip_norm=1e30))
    described, tensors = read_tensor_file(
        tmp_path / "diverged.safetensors", key="lwfm_batch", what="batch of a diverged run"
    )
    assert described["seed"] == 0
    assert described["step"] >= 0
    assert tensors["episode.images"].shape == (9, 3, 24, 24)
    assert tensors["episode.labels"].shape == (9,)
    assert tensors["auxiliary.images"].shape == (8, 3, 24, 24)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"patience": 0}, "patience must be at least 1"),
        ({"devices": 3}, "3 processes cannot share 4 episodes evenly: make episodes.train a multiple of 3"),
        (
            {"devices": 3, "episodes": replace(EPISODES, per_step=2)},
            "3 processes of 2 episodes cannot share 4 episodes evenly: make episodes.train a multiple of 6",
        ),
        (
            {"episodes": replace(EPISODES, per_step=3)},
            "steps of 3 episodes cannot share 4 episodes evenly: make episodes.train a multiple of 3",
        ),
        ({"episodes": replace(EPISODES, per_step=0)}, "episodes.per_step must be at least 1"),
    ],
    ids=["accumulate", "patience", "devices", "devices-and-steps", "steps", "per-step"],
)
def test_options_that_cannot_work(
    options: dict[str, Any], message: str, tiny_images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        train_tiny(tmp_path / "run", tiny_images, **options)
