"""Pretraining: a miniature of both stages, what the second takes over, resume, and clear refusals."""

from __future__ import annotations

import csv
import shutil
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from lwfm.cli import main
from lwfm.data import ClassDataModule
from lwfm.data.normalization import Normalization
from lwfm.errors import UserError
from lwfm.model import LWFM, ModelConfig, load_model, save_model
from lwfm.presets import preset_path
from lwfm.training import EpisodeConfig, RunOptions, TrainingSummary, pretrain, train
from lwfm.training.checkpoints import AtomicCheckpointIO
from lwfm.training.config import OptimConfig, SGDConfig
from lwfm.training.modules import ClassificationModule
from tests.cli.test_cli import run
from tests.helpers.tiny_training import MODEL, VALIDATION, pretrain_tiny, train_tiny

if TYPE_CHECKING:
    from pathlib import Path

DATA_SETS = ["cifar-fs", "cub", "miniimagenet", "tieredimagenet"]


@pytest.fixture(scope="module")
def pretrained(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingSummary:
    """A pretraining of three epochs."""
    return pretrain_tiny(tmp_path_factory.mktemp("pretrained"), tiny_images, epochs=3)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = AtomicCheckpointIO().load_checkpoint(folder / "last.ckpt")["state_dict"]
    return state


def test_it_learns_the_training_classes(
    pretrained: TrainingSummary, tiny_images: Path, tmp_path: Path
) -> None:
    assert (pretrained.epochs, pretrained.steps) == (3, 12)
    assert pretrained.val_accuracy == pretrained.val_nearest_class_mean
    model = load_model(pretrained.best)
    assert model.classes == tuple(f"train-{label}" for label in range(6))
    long = pretrain_tiny(tmp_path, tiny_images, epochs=20)
    with (long.logs / "metrics.csv").open() as file:
        accuracy = [float(row["train_accuracy"]) for row in csv.DictReader(file) if row["train_accuracy"]]
    assert len(accuracy) == 20
    assert sum(accuracy[-5:]) / 5 > max(sum(accuracy[:5]) / 5, 0.6)  # of six classes


@pytest.mark.parametrize(("command", "epochs"), [("train", 10), ("pretrain", 100)])
def test_the_options_of_a_run_are_options_of_both_commands(
    command: str, epochs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = yaml.safe_load(run(capsys, command, "--out", tmp_path, "--print_config").out)
    expected = asdict(RunOptions(epochs=epochs))
    assert {name: shown[name] for name in expected} == expected
    text = " ".join(run(capsys, command, "--help").out.split())
    assert "improved the validation accuracy. (type: int | null, default: null)" in text


@pytest.mark.parametrize("function", [train, pretrain], ids=["train", "pretrain"])
def test_unknown_options_are_refused_before_any_work(function: Any, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'epoch'"):
        function(tmp_path / "run", epoch=3)
    assert not (tmp_path / "run").exists()


def test_an_epoch_sees_every_image_once(tiny_images: Path) -> None:
    data = ClassDataModule("folder", tiny_images, batch=6, image_size=24, validation_queries=2)
    data.setup("fit")
    batches = [labels for _, labels in data.train_dataloader()]
    assert [len(labels) for labels in batches] == [6] * 6
    assert torch.cat(batches).bincount().tolist() == [6] * 6
    data.processes = 4  # who share the batches evenly
    assert data.batches == 4


def test_episodes_start_from_it(pretrained: TrainingSummary, tiny_images: Path, tmp_path: Path) -> None:
    """The whole way: pretrain, train with a learning rate of nothing, and find the same network."""
    model = replace(MODEL, weights=str(pretrained.best))
    still = OptimConfig(lr=1e-30, weight_decay=0.0)
    summary = train_tiny(tmp_path / "run", tiny_images, model=model, optim=still, epochs=1)
    before, after = load_model(pretrained.best).state_dict(), load_model(summary.best).state_dict()
    for name, tensor in before.items():
        if "embeddings" not in name and "running" not in name and "batches" not in name:
            assert torch.equal(tensor, after[name]), name
    name = "backbone.body.layer1.0.weight"
    other = train_tiny(tmp_path / "other", tiny_images, optim=still, epochs=1)
    assert not torch.equal(load_model(other.best).state_dict()[name], before[name])


def test_both_stages_and_the_evaluation_from_the_command_line(
    tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", "folder", "--root", str(tiny_images)]
    tiny = ["--model.backbone", "resnet12", "--model.image_size", "24", "--model.feature_size", "1"]
    short = ["--epochs", "1", "--progress", "false", "--accelerator", "cpu", *data, *tiny]
    first, second = tmp_path / "first", tmp_path / "second"
    shape = ["--validation.way", "3", "--validation.queries", "2", "--validation.episodes", "4"]
    assert main(["pretrain", "--out", str(first), "--batch", "12", *shape, *short]) == 0
    printed = capsys.readouterr().out
    assert "unseen validation classes by nearest class mean" in printed
    assert f"lwfm train --model.weights {first / 'best.safetensors'}" in printed
    episodes = ["--episodes.way", "3", "--episodes.queries", "2", "--episodes.auxiliary_batch", "4"]
    episodes += ["--episodes.train", "1", "--episodes.validation", "4"]
    start = ["--model.weights", str(first / "best.safetensors")]
    assert main(["train", "--out", str(second), *episodes, *short, *start]) == 0
    shutil.rmtree(first)  # the trained model stands alone
    checkpoint = ["--checkpoint", str(second / "best.safetensors"), "--queries", "2", "--episodes", "4"]
    assert main(["evaluate", *data, *checkpoint, "--way", "3"]) == 0
    assert "nearest_class_mean" in capsys.readouterr().out


def test_resumed_pretraining_equals_uninterrupted(
    pretrained: TrainingSummary, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = ClassificationModule.training_step

    def stop_in_second_epoch(self: ClassificationModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if self.current_epoch == 1 and batch_idx == 2:
            raise RuntimeError("the machine went down")
        return step(self, batch, batch_idx)

    monkeypatch.setattr(ClassificationModule, "training_step", stop_in_second_epoch)
    with pytest.raises(RuntimeError, match="went down"):
        pretrain_tiny(tmp_path, tiny_images, epochs=3)
    monkeypatch.undo()
    pretrain_tiny(tmp_path, tiny_images, epochs=3, resume=True)
    expected, found = weights(pretrained.best.parent), weights(tmp_path)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert (tmp_path / "best.safetensors").read_bytes() == pretrained.best.read_bytes()


def test_the_test_split_is_never_read(tiny_images: Path, tmp_path: Path) -> None:
    root = tmp_path / "images"
    for split in ("train", "val"):
        shutil.copytree(tiny_images / split, root / split)
    (root / "test" / "test-0").mkdir(parents=True)
    (root / "test" / "test-0" / "broken.png").write_text("not an image")
    pretrained = pretrain_tiny(tmp_path / "first", root, epochs=1)
    train_tiny(tmp_path / "second", root, epochs=1, model=replace(MODEL, weights=str(pretrained.best)))


def test_divergence_keeps_the_batch(tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"diverged: the loss .*diverged\.safetensors"):
        pretrain_tiny(tmp_path, tiny_images, optim=SGDConfig(lr=1e30, clip_norm=1e30))
    assert (tmp_path / "diverged.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch": 0}, "batch must be at least 1"),
        ({"validation": replace(VALIDATION, episodes=0)}, "validation.episodes must be at least 1"),
        ({"validation": replace(VALIDATION, queries=9)}, "class .* has 6 images"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"model": replace(MODEL, weights="missing.safetensors")}, "no weights file missing.safetensors"),
    ],
    ids=["batch", "episodes", "queries", "epochs", "weights"],
)
def test_options_that_cannot_work(
    tiny_images: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        pretrain_tiny(tmp_path / "run", tiny_images, **options)
    assert not (tmp_path / "run" / "logs").exists()


def test_stages_do_not_resume_each_other(
    pretrained: TrainingSummary, tiny_images: Path, tmp_path: Path
) -> None:
    shutil.copy(pretrained.last, tmp_path)
    with pytest.raises(UserError, match=r"last\.ckpt is of a run with another stage: it was 'pretraining'"):
        train_tiny(tmp_path, tiny_images, resume=True)
    with pytest.raises(UserError, match="another batch: it was 8 and is now 4"):
        pretrain_tiny(tmp_path, tiny_images, resume=True, batch=4)


CONV4 = ModelConfig(backbone="conv4", image_size=24, feature_size=1)
SCALED = Normalization((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def saved(path: Path, **changes: Any) -> ModelConfig:
    """Write a model of two classes, and describe one that starts from it."""
    save_model(LWFM(replace(CONV4, **changes), ["fox", "owl"], SCALED), path)
    return replace(CONV4, weights=str(path))


def test_a_classifier_is_taken_over_only_for_the_same_classes(tmp_path: Path) -> None:
    config = saved(tmp_path / "start.safetensors")
    start = load_model(config.weights)
    assert start.head.classifier is not None
    for classes, taken in ((["fox", "owl"], True), (["fox", "bat"], False), (["fox", "owl", "bat"], False)):
        model = LWFM(config, classes, Normalization((0.0,) * 3, (1.0,) * 3))
        assert model.normalization == SCALED  # images are scaled as the weights are used to
        assert model.head.classifier is not None
        assert torch.equal(model.backbone.body.state_dict()["layer4.0.weight"],
                           start.backbone.body.state_dict()["layer4.0.weight"])  # fmt: skip
        same = model.head.classifier.weight.shape == start.head.classifier.weight.shape and torch.equal(
            model.head.classifier.weight, start.head.classifier.weight
        )
        assert same == taken
    assert LWFM(config).head.classifier is None
    other_layers = LWFM(replace(config, layers=(4,)), ["fox", "owl"])
    assert other_layers.head.classifier is not None
    assert other_layers.head.classifier.weight.shape == (2, 64)


def test_a_model_of_another_network_is_refused(tmp_path: Path) -> None:
    config = saved(tmp_path / "start.safetensors")
    with pytest.raises(UserError, match=r"start\.safetensors \(conv4\) does not fit resnet12"):
        LWFM(replace(config, backbone="resnet12"))


@pytest.mark.parametrize("name", DATA_SETS)
def test_the_configurations_of_both_stages_fit_together(name: str, tmp_path: Path) -> None:
    """What one stage writes, the next reads; the head is that of the paper's configuration."""
    first = yaml.safe_load(preset_path(f"resnet12-{name}-pretrain").read_text())
    backbone = ModelConfig.from_dict(first["model"])
    SGDConfig(**first["optim"])
    path = tmp_path / "best.safetensors"
    save_model(LWFM(backbone, ["fox", "owl"], SCALED), path)
    for shot in (1, 5):
        text = preset_path(f"resnet12-{name}-{shot}shot").read_text()
        assert "From scratch: no image of a test class was seen." in text
        second, paper = (yaml.safe_load(content) for content in (
            text, preset_path(f"paper-{name}-{shot}shot").read_text()))  # fmt: skip
        assert second["model"]["weights"] == f"runs/{name}-pretrained/best.safetensors"
        model = LWFM(ModelConfig.from_dict(second["model"] | {"weights": str(path)}), ["fox", "owl"])
        assert model.backbone.layers == backbone.layers == (3, 4)
        for option in ("matching_weight", "attention_temperature", "temperature", "top_k", "embedding"):
            assert second["model"][option] == paper["model"][option], option
        assert OptimConfig(**second["optim"]).episode_weight == paper["optim"]["episode_weight"]
        assert EpisodeConfig(**second["episodes"]).shot == shot
        assert (second["data"], second.get("class_split")) == (first["data"], first.get("class_split"))
