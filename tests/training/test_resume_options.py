"""Resuming with other options: each takes effect and is announced, or is refused by name."""

from __future__ import annotations

import csv
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from lwfm.errors import UserError
from lwfm.training import OptimConfig, RunOptions, TrainingSummary
from lwfm.training.modules import LWFMModule
from tests.helpers.tiny_training import EPISODES, MODEL, VALIDATION, pretrain_tiny, train_tiny

if TYPE_CHECKING:
    from pathlib import Path

OPTIM = OptimConfig(milestones=(0.9,))


@pytest.fixture(scope="module")
def begun(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    """A run of two epochs."""
    out = tmp_path_factory.mktemp("begun")
    return train_tiny(out, tiny_images, optim=OPTIM, patience=9, max_time=60.0)


@pytest.fixture(scope="module")
def begun_pretraining(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    return pretrain_tiny(tmp_path_factory.mktemp("begun"), tiny_images, epochs=1)


def _resume(begun: TrainingSummary, out: Path, root: Path, **options: Any) -> TrainingSummary:
    """Resume a copy of the run."""
    shutil.copytree(begun.last.parent, out, dirs_exist_ok=True)
    same = {"optim": OPTIM, "patience": 9, "max_time": 60.0, "resume": True}
    return train_tiny(out, root, **{**same, **options})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "backbone": (
        {"model": replace(MODEL, backbone="resnet12")},
        "model.backbone: it was 'conv4' and is now 'resnet12'",
    ),
    "embedding": (
        {"model": replace(MODEL, embedding=False)},
        "model.embedding: it was True and is now False",
    ),
    "seed": ({"seed": 5}, "seed: it was 0 and is now 5"),
    "accumulate": ({"accumulate": 2}, r"accumulate \* devices \* nodes: it was 1 and is now 2"),
}
_OTHER = {"way": 4, "shot": 2, "queries": 3, "auxiliary_batch": 9, "per_step": 2, "train": 5}
for _name, _value in _OTHER.items():
    _before = getattr(EPISODES, _name)
    _message = f"episodes.{_name}: it was {_before} and is now {_value}"
    REFUSED[_name] = {"episodes": replace(EPISODES, **{_name: _value})}, _message
REFUSED["validation"] = {"episodes": replace(EPISODES, validation=9)}, "episodes.validation: it was 10 and is"


@pytest.mark.parametrize("option", REFUSED)
def test_options_that_must_stay_are_refused(
    begun: TrainingSummary, tiny_images: Path, tmp_path: Path, option: str
) -> None:
    options, message = REFUSED[option]
    with pytest.raises(UserError, match=f"last.ckpt is of a run with another {message}"):
        _resume(begun, tmp_path, tiny_images, **{"epochs": 3, **options})
    assert (tmp_path / "last.ckpt").read_bytes() == begun.last.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 9}, "batch: it was 8 and is now 9"),
        ({"validation": replace(VALIDATION, episodes=9)}, "validation.episodes: it was 10 and is now 9"),
    ],
    ids=["batch", "validation"],
)
def test_options_of_pretraining_are_refused(
    begun_pretraining: TrainingSummary,
    tiny_images: Path,
    tmp_path: Path,
    options: dict[str, Any],
    message: str,
) -> None:
    shutil.copy(begun_pretraining.last, tmp_path)
    with pytest.raises(UserError, match=f"last.ckpt is of a run with another {message}"):
        pretrain_tiny(tmp_path, tiny_images, resume=True, **options)


def test_fewer_epochs_than_the_run_has_are_refused(
    begun: TrainingSummary, tiny_images: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has 2 epochs already: epochs must not be 1"):
        _resume(begun, tmp_path, tiny_images, epochs=1)


def test_options_of_the_optimizer_take_effect(
    begun: TrainingSummary, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the first step on, not only after the schedule's next."""
    rates: list[float] = []
    step = LWFMModule.training_step

    def note(self: LWFMModule, batch: Any, batch_idx: int) -> torch.Tensor:
        rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(LWFMModule, "training_step", note)
    optim = OptimConfig(lr=0.004, momentum=0.0, weight_decay=0.125, decay=0.5, milestones=(0.8,))
    with pytest.warns(UserWarning, match="resumed with other options") as caught:
        summary = _resume(begun, tmp_path, tiny_images, optim=optim, epochs=3)
    said = next(str(each.message) for each in caught if "resumed with" in str(each.message))
    for name in (
        "lr: it was 0.01 and is now 0.004",
        "momentum: it was 0.9 and is now 0.0",
        "weight_decay: it was 0.0005 and is now 0.125",
        "decay: it was 0.05 and is now 0.5",
    ):
        assert f"optim.{name}" in said
    assert "optim.milestones: it was (0.9,) and is now (0.8,); epochs: it was 2 and is now 3" in said
    assert "model" not in said
    # Steps 8 to 11 of 12; the milestone is at 9.6, and the schedule steps after the optimizer.
    assert rates == pytest.approx([0.004, 0.004, 0.002, 0.002])
    group = torch.load(summary.last, weights_only=True)["optimizer_states"][0]["param_groups"][0]
    assert {name: group[name] for name in ("initial_lr", "momentum", "weight_decay", "nesterov")} == {
        "initial_lr": 0.004, "momentum": 0.0, "weight_decay": 0.125, "nesterov": False,
    }  # fmt: skip


def test_precision_takes_effect(begun: TrainingSummary, tiny_images: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="precision: it was '32-true' and is now 'bf16-mixed'"):
        mixed = _resume(begun, tmp_path / "mixed", tiny_images, epochs=3, precision="bf16-mixed")
    full = _resume(begun, tmp_path / "full", tiny_images, epochs=3)
    losses = []
    for summary in (mixed, full):
        with (summary.logs / "metrics.csv").open() as file:
            losses.append([float(row["episode_loss"]) for row in csv.DictReader(file) if row["episode_loss"]])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


def test_length_takes_effect(
    begun: TrainingSummary, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a patience of two, epochs without gain end a run that had a patience of nine."""
    log = LWFMModule.log

    def no_gain(self: LWFMModule, name: str, value: Any, **options: Any) -> None:
        log(self, name, torch.tensor(0.0) if name == "val_accuracy" else value, **options)

    monkeypatch.setattr(LWFMModule, "log", no_gain)
    message = (
        "epochs: it was 2 and is now 20; max_time: it was 60.0 and is now 50.0; patience: it was 9 and is"
    )
    with pytest.warns(UserWarning, match=message):
        summary = _resume(begun, tmp_path, tiny_images, epochs=20, max_time=50.0, patience=2)
    assert summary.epochs in {3, 4}  # the second epoch of the first start may have been without gain


def test_nothing_is_announced_when_nothing_changed(
    begun: TrainingSummary, tiny_images: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    _resume(begun, tmp_path, tiny_images)
    assert not [each for each in recwarn if "resumed" in str(each.message)]


def test_other_validation_images_are_announced(
    begun: TrainingSummary, tiny_images: Path, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    shutil.copytree(tiny_images, root)
    next((root / "val").glob("*/0.png")).unlink()
    with pytest.warns(UserWarning, match="the resumed run had validation fingerprint"):
        _resume(begun, tmp_path / "run", root, epochs=3)


def test_every_option_of_a_run_is_compared_or_known_to_be_harmless() -> None:
    harmless = {"resume", "decoded", "workers", "accelerator", "progress"}
    compared = {name for key in RunOptions(epochs=1).settings() for name in key.split(" * ")}
    assert set(asdict(RunOptions(epochs=1))) == harmless | compared | {"seed"}


@pytest.mark.parametrize("damage", ["epoch", "state_dict", "shape", "nan", "optimizer", "lr_schedulers"])
def test_a_damaged_checkpoint_is_named(
    begun: TrainingSummary, tiny_images: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(begun.last.parent, tmp_path / "run")
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    if damage == "optimizer":
        checkpoint["optimizer_states"][0]["param_groups"] = [3]
    elif damage == "lr_schedulers":
        checkpoint[damage] = "x"
    elif damage in checkpoint:
        del checkpoint[damage]
    else:
        weights = checkpoint["state_dict"]
        name = next(name for name in weights if name.endswith("weight"))
        weights[name] = weights[name][:1] if damage == "shape" else weights[name] * torch.nan
    torch.save(checkpoint, tmp_path / "run" / "last.ckpt")
    with pytest.raises(UserError, match=r"last\.ckpt"):
        train_tiny(tmp_path / "run", tiny_images, optim=OPTIM, patience=9, max_time=60.0, resume=True)
