"""The classifier of skin lesions: attention transfer, teacher, files, and the commands."""

from __future__ import annotations

import csv
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss
from sklearn.base import clone

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import SkinLesionClassifier
from lwfm.metric.image_encoders import StagedResNet, Varied
from lwfm.metric.losses import AttentionTransferLoss, TwoViewsLoss, attention_map
from lwfm.metric.systems.skin_lesions import RESEARCH, StudentAndTeacher, TransferLoss

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.repeat(["a", "b", "c"], 12)
SMALL: dict[str, Any] = {
    "teacher_steps": 4, "steps": 20, "batch_size": 12, "images_per_class": 4, "accelerator": "cpu",
}  # fmt: skip


def make_maps(seed: int = 0) -> np.ndarray:
    """Draw maps of three classes, each strong in two channels of its own."""
    maps = np.random.default_rng(seed).random((36, 16, 4, 4), dtype=np.float32)
    for number, label in enumerate("abc"):
        maps[label == LABELS, 2 * number : 2 * number + 2] += 1.5
    return maps


@pytest.fixture(scope="module")
def fitted() -> SkinLesionClassifier:
    return SkinLesionClassifier(**SMALL).fit(make_maps(), LABELS)


def test_attention_maps_have_length_one() -> None:
    torch.manual_seed(0)
    torch.testing.assert_close(attention_map(torch.randn(5, 8, 3, 4)).norm(dim=1), torch.ones(5))


def test_the_transfer_is_that_of_the_definition() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 6, 3, 3).double(), torch.randn(2, 4, 3, 3).double()
    expected = 0.0
    for ours, theirs in zip(student.numpy(), teacher.numpy(), strict=True):
        q, p = (np.square(maps).mean(0).ravel() for maps in (ours, theirs))
        expected += np.square(q / np.linalg.norm(q) - p / np.linalg.norm(p)).sum()
    found = AttentionTransferLoss(beta=10)([student, student], [teacher, teacher])
    assert found.item() == pytest.approx(10 * 2 * expected / 18)


def test_the_transfer_has_the_right_gradient_and_none_into_the_teacher() -> None:
    torch.manual_seed(0)
    student = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    loss = AttentionTransferLoss(beta=1.0)
    assert torch.autograd.gradcheck(lambda maps: loss([maps], [teacher.detach()]), (student,))
    loss([student], [teacher]).backward()
    assert teacher.grad is None


def test_training_leaves_the_teacher_as_it_was() -> None:
    torch.manual_seed(0)
    student, teacher = StagedResNet("maps", 8), StagedResNet("maps", 8)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    pair = StudentAndTeacher(student, teacher).train()
    loss = TransferLoss(torch.nn.Linear(student.width, 2), AttentionTransferLoss())
    loss(pair(torch.rand(4, 8, 4, 4)), torch.arange(4) % 2).backward()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not [name for name, _ in pair.named_parameters() if not name.startswith("student.")]


def test_two_views_are_those_of_the_library() -> None:
    torch.manual_seed(0)
    rows = torch.randn(8, 5)
    theirs = NTXentLoss(0.2)(rows, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]))
    assert TwoViewsLoss(0.2)(rows, torch.zeros(4, dtype=torch.int64)).item() == theirs.item()


def test_views_differ_from_image_to_image() -> None:
    torch.manual_seed(0)
    batch = torch.rand(1, 3, 10, 10).repeat(6, 1, 1, 1)
    views = Varied()(batch)
    assert views.shape == batch.shape
    assert torch.pdist(views.flatten(1)).min() > 0.1


@pytest.mark.parametrize("transfer", ["attention", "finetune", "none"])
def test_every_transfer_learns_the_classes(transfer: Any) -> None:
    classifier = SkinLesionClassifier(transfer=transfer, **SMALL).fit(make_maps(), LABELS)
    assert classifier.score(make_maps(1), LABELS) > 0.8
    np.testing.assert_allclose(classifier.predict_proba(make_maps(1)).sum(1), 1)
    assert (classifier.teacher_ is None) == (transfer == "none")


def test_fine_tuning_begins_with_the_teacher() -> None:
    classifier = SkinLesionClassifier(transfer="finetune", **SMALL)
    classifier.teacher_ = classifier.train_teacher(make_maps())
    student = StagedResNet("maps", 16)
    classifier._module(student, 3)
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, classifier.teacher_.state_dict()[name]), name


def test_a_saved_classifier_answers_the_same(fitted: SkinLesionClassifier, tmp_path: Path) -> None:
    fitted.save(tmp_path / "s.safetensors")
    loaded = SkinLesionClassifier.load(tmp_path / "s.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(make_maps(1)), fitted.predict_proba(make_maps(1)))
    np.testing.assert_array_equal(loaded.attention(make_maps(1)), fitted.attention(make_maps(1)))


def test_the_same_seed_gives_the_same_bits(fitted: SkinLesionClassifier) -> None:
    again = clone(fitted).fit(make_maps(), LABELS)
    np.testing.assert_array_equal(again.transform(make_maps(1)), fitted.transform(make_maps(1)))


def test_attention_is_between_0_and_1(fitted: SkinLesionClassifier) -> None:
    maps = fitted.attention(make_maps(1))
    assert maps.shape == (36, 2, 2)
    np.testing.assert_allclose(maps.max((1, 2)), 1, rtol=1e-6)
    assert maps.min() >= 0


def test_the_trunk_trains_from_pixels() -> None:
    images = torch.rand(6, 3, 32, 32)
    options = {**SMALL, "teacher_steps": 1, "steps": 1, "image_size": 32, "trunk": "se_resnet14"}
    classifier = SkinLesionClassifier(**options).fit(images, np.arange(6) % 2)
    assert classifier.predict_proba(images).shape == (6, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transfer": "copy"}, "transfer must be one of attention, finetune, none"),
        ({"beta": -1}, "beta must be a number of at least 0"),
        ({"temperature": 0}, "temperature must be a number above 0"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
        ({"teacher_steps": 0}, "teacher_steps must be a whole number"),
    ],
    ids=["transfer", "beta", "temperature", "batch", "steps"],
)
def test_wrong_parameters_are_refused_before_training(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SkinLesionClassifier(**options).fit(make_maps(), LABELS)


@pytest.fixture(scope="module")
def folders(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Images of three lesions, and of two of them at another site."""
    root: Path = tmp_path_factory.mktemp("skin")
    for label, name in enumerate(("melanoma", "keratosis", "melanocytic-nevus")):
        shutil.copytree(tiny_images / "val" / f"class-{label}", root / "here" / name)
        if label != 1:
            other = name.removeprefix("melanocytic-")
            shutil.copytree(tiny_images / "val" / f"class-{label}", root / "there" / other)
    return root / "here", root / "there"


OPTIONS = "teacher_steps: 2, steps: 2, batch_size: 4, images_per_class: 2, image_size: 32, accelerator: cpu"


def test_the_evaluation_has_another_site(folders: tuple[Path, Path], tmp_path: Path) -> None:
    here, there = folders
    out = tmp_path / "r.json"
    words = ["metric", "evaluate", "skin_lesions", "--root", str(here), "--seeds", "1", "--out", str(out)]
    assert main([*words, "--options", f"{{{OPTIONS}, external: {there}}}"]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 14
    assert {"macro-F1", "accuracy", "F1 keratosis", "other site AUROC"} <= set(rows[0]["scores"])
    assert {row["protocol"] for row in rows} == {
        "labels of 100% of the training images", "labels of 25% of the training images",
    }  # fmt: skip


def test_a_class_of_another_site_must_be_known(
    folders: tuple[Path, Path], tiny_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["metric", "evaluate", "skin_lesions", "--root", str(folders[0]), "--seeds", "1"]
    assert main([*words, "--options", f"{{{OPTIONS}, external: {tiny_images / 'val'}}}"]) == 2
    assert "the class class-0 of" in capsys.readouterr().err


def test_the_commands_fit_and_draw(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, there = folders
    model, out, figure = tmp_path / "m.safetensors", tmp_path / "s.csv", tmp_path / "s.png"
    words = ["metric", "fit", "skin_lesions", "--root", str(here), "--out", str(model)]
    assert main([*words, "--options", f"{{{OPTIONS}, unlabeled: {there}}}"]) == 0
    query = next(iter(sorted((here / "melanoma").iterdir())))
    words = ["metric", "predict", str(model), str(query), "--out", str(out), "--figure", str(figure)]
    assert main(words) == 0
    assert RESEARCH in capsys.readouterr().out
    (row,) = csv.DictReader(out.open())
    assert sum(float(row[name]) for name in ("keratosis", "melanocytic-nevus", "melanoma")) == pytest.approx(
        1, abs=1e-3
    )
    assert figure.stat().st_size > 1000
    assert main(["metric", "predict", str(model), str(query.parent), "--out", str(out)]) == 0
    assert [row["image"] for row in csv.DictReader(out.open())] == sorted(map(str, query.parent.iterdir()))
