"""The retriever of leaf diseases: neck, added classes, rejection, detection, and the commands."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import LeafDiseaseRetriever
from lwfm.metric.data.boxes import compose_scene
from lwfm.metric.decisions import UNKNOWN
from lwfm.metric.detection import BoxDetector
from lwfm.metric.heads import BNNeck, BNNeckLoss
from lwfm.metric.systems import leaf_diseases
from lwfm.metric.systems.leaf_diseases import composed_scenes, draw_leaves, on_grounds

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.repeat(["a", "b", "c", "d"], 10)
SMALL: dict[str, Any] = {"steps": 15, "images_per_class": 4, "accelerator": "cpu"}
KNOWN = LABELS != "d"


def make_maps(seed: int = 0) -> np.ndarray:
    """Draw maps of four classes, each strong in two channels of its own."""
    maps = np.random.default_rng(seed).random((40, 16, 4, 4), dtype=np.float32)
    for number, label in enumerate("abcd"):
        maps[label == LABELS, 2 * number : 2 * number + 2] += 1.5
    return maps


@pytest.fixture(scope="module")
def fitted() -> LeafDiseaseRetriever:
    """A retriever that knows three of four classes."""
    return LeafDiseaseRetriever(**SMALL).fit(make_maps()[KNOWN], LABELS[KNOWN])


def copied(retriever: LeafDiseaseRetriever, path: Path) -> LeafDiseaseRetriever:
    retriever.save(path / "copy.safetensors")
    return LeafDiseaseRetriever.load(path / "copy.safetensors")


def test_the_losses_act_on_both_sides_of_the_neck() -> None:
    torch.manual_seed(0)
    neck = BNNeck(4)
    features, labels = torch.randn(6, 4, requires_grad=True), torch.arange(6) % 2
    before = lambda rows, _: rows.square().sum()  # noqa: E731
    loss = BNNeckLoss(neck, before, 2, smoothing=0.1)  # type: ignore[arg-type]
    assert loss.classifier is not None
    logits = loss.classifier(neck(features))
    entropy = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1)
    torch.testing.assert_close(loss(features, labels), entropy + features.square().sum())
    assert not neck.norm.bias.requires_grad
    alone = BNNeckLoss(neck, before, 0)  # type: ignore[arg-type]
    torch.testing.assert_close(alone(features, labels), features.square().sum())


def test_every_leaf_is_indexed_in_order_after_calibration(fitted: LeafDiseaseRetriever) -> None:
    assert len(fitted.decision_.references) == 30
    assert fitted.classes_[fitted.decision_.codes].tolist() == LABELS[KNOWN].tolist()
    assert fitted.search(make_maps()[KNOWN], 1).indices[:, 0].tolist() == list(range(30))
    assert np.isfinite(fitted.limit_)


def test_known_leaves_are_named_and_others_rejected(fitted: LeafDiseaseRetriever) -> None:
    answers = fitted.predict(make_maps(1))
    assert (answers[KNOWN] == LABELS[KNOWN]).mean() > 0.7
    assert (answers[~KNOWN] == UNKNOWN).mean() > 0.7


def test_the_limit_keeps_its_share_of_the_held_out_leaves() -> None:
    maps = np.random.default_rng(3).random((200, 8, 2, 2), dtype=np.float32)
    labels = np.arange(200) % 2
    options = {**SMALL, "steps": 1, "held_out": 0.5}
    limits = [LeafDiseaseRetriever(kept=kept, **options).fit(maps, labels).limit_ for kept in (0.5, 0.9, 1.0)]
    assert limits == sorted(limits)
    never = LeafDiseaseRetriever(kept=None, **options).fit(maps, labels)
    assert never.limit_ == np.inf
    half = LeafDiseaseRetriever(kept=0.5, **options).fit(maps, labels)
    assert 0.1 < (half.predict(np.random.default_rng(4).random((200, 8, 2, 2))) == UNKNOWN).mean() < 0.7


def test_an_added_class_is_found_and_old_answers_stay(fitted: LeafDiseaseRetriever, tmp_path: Path) -> None:
    grown = copied(fitted, tmp_path)
    queries = make_maps(1)
    before = fitted.search(queries, 30).indices
    grown.add_class(make_maps(2)[~KNOWN], "d")
    after = grown.search(queries, 40).indices
    for old, new in zip(before, after, strict=True):
        assert new[new < 30].tolist() == old.tolist()
    assert grown.limit_ == fitted.limit_
    named = grown.predict(queries)
    assert (named[~KNOWN] == "d").mean() > 0.7
    kept = named[KNOWN] == fitted.predict(queries)[KNOWN]
    assert kept.mean() > 0.9


def test_pretrained_means_are_part_of_the_descriptor(fitted: LeafDiseaseRetriever) -> None:
    alone = clone(fitted).set_params(pretrained=0).fit(make_maps()[KNOWN], LABELS[KNOWN])
    learned, joined = alone.transform(make_maps(1)), fitted.transform(make_maps(1))
    means = make_maps(1).mean((2, 3))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    expected = np.concatenate([learned, 2 * means], axis=1) / np.sqrt(5)
    np.testing.assert_allclose(joined, expected, atol=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "triplet"])
def test_each_part_of_the_loss_trains_alone(loss: Any) -> None:
    retriever = LeafDiseaseRetriever(loss=loss, kept=None, **SMALL).fit(make_maps(), LABELS)
    assert retriever.score(make_maps(1), LABELS) > 0.7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "arcface"}, "loss must be one of joint, cross_entropy, triplet"),
        ({"pretrained": -1}, "pretrained must be a number of at least 0"),
        ({"kept": 1.5}, "kept must be a number from 0 to 1"),
        ({"held_out": -0.1}, "held_out must be a number from 0 to 1"),
        ({"smoothing": 2}, "smoothing must be a number from 0 to 1"),
    ],
    ids=["loss", "pretrained", "kept", "held-out", "smoothing"],
)
def test_wrong_parameters_are_refused_before_training(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        LeafDiseaseRetriever(**options).fit(make_maps(), LABELS)


def test_labels_are_counted_first() -> None:
    with pytest.raises(UserError, match="2 rows need as many labels"):
        LeafDiseaseRetriever().fit(["a.png", "b.png"], ["a"])


@pytest.fixture(scope="module")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs of four colors, cut out on black, in class folders."""
    root: Path = tmp_path_factory.mktemp("leaves")
    random = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(32), np.arange(32))
    for name, color in (("blight", (200, 60, 40)), ("rust", (60, 180, 60)), ("scab", (60, 90, 220))):
        (root / name).mkdir()
        for number in range(8):
            disc = (across - 16) ** 2 + (down - 16) ** 2 < random.uniform(120, 200)
            pixels = disc[..., None] * (np.array(color) + random.normal(0, 15, (32, 32, 3)))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def test_a_photograph_is_identified_by_any_callable(leaves: Path) -> None:
    paths = sorted(leaves.glob("*/*.png"))
    labels = np.array([path.parent.name for path in paths])
    options = {**SMALL, "image_size": 32, "steps": 20, "kept": None}
    retriever = LeafDiseaseRetriever(**options).fit(paths, labels)
    (scene,) = composed_scenes(paths, np.array([0, 10, 20]), 1, seed=0)
    found = retriever.identify(scene.image, lambda _: scene.boxes)
    assert [leaf.box for leaf in found] == [tuple(box) for box in scene.boxes.tolist()]
    assert retriever.identify(scene.image, lambda _: np.zeros((0, 4))) == []
    (whole,) = retriever.identify(paths[0])
    assert whole.disease == labels[0]
    assert list(whole.box) == [0, 0, 32, 32]
    with pytest.raises(UserError, match=r"a detector must return boxes \[N, 4\]"):
        retriever.identify(scene.image, lambda _: np.zeros((2, 3)))
    assert len(draw_leaves(retriever, [paths[0]], [[whole]]).axes) == 1


OPTIONS = "steps: 2, images_per_class: 2, image_size: 32, accelerator: cpu"


def write_frames(folder: Path, leaves: Path) -> None:
    """Write photographs of three leaves with their boxes, in the folders of YOLO."""
    paths, size = sorted(leaves.glob("*/*.png"))[::8], 96
    for split, count in (("train", 2), ("val", 1)):
        for part in ("images", "labels"):
            (folder / split / part).mkdir(parents=True)
        for number in range(count):
            scene = compose_scene(
                [Image.open(path) for path in paths], np.random.default_rng(number), size=size
            )
            assert isinstance(scene.image, Image.Image)
            scene.image.save(folder / split / "images" / f"{number}.png")
            centers = (scene.boxes[:, :2] + scene.boxes[:, 2:]) / 2
            rows = np.c_[centers, scene.boxes[:, 2:] - scene.boxes[:, :2]] / size
            lines = [f"{code % 2} " + " ".join(map(str, row)) for code, row in enumerate(rows)]
            (folder / split / "labels" / f"{number}.txt").write_text("\n".join(lines))


def test_the_evaluation_adds_a_class_and_reads_scenes_and_boxes(leaves: Path, tmp_path: Path) -> None:
    out, frames = tmp_path / "r.json", tmp_path / "frames"
    write_frames(frames, leaves)
    words = ["metric", "evaluate", "leaf_diseases", "--root", str(leaves), "--seeds", "1", "--out", str(out)]
    options = f"{{{OPTIONS}, scenes: 2, boxes: {frames}, epochs: 1, detector_size: 96}}"
    assert main([*words, "--options", options]) == 0
    rows = json.loads(out.read_text())["rows"]
    protocols: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        protocols.setdefault(row["protocol"], []).append(row)
    assert [len(rows) for rows in protocols.values()] == [6, 6, 6, 3, 1]
    (boxes,) = protocols["boxes of frames"]
    expected = {"mAP@50", "AP@50 of class 0", "AP@50 of class 1", "mAP@30"}
    assert boxes["scores"].keys() == expected
    assert all(0 <= value <= 1 for values in boxes["scores"].values() for value in values)
    assert {"Recall@1", "F1 of the added", "known Recall@1", "AUROC of rejection"} <= set(rows[0]["scores"])
    scene = protocols["composed scenes of several leaves"]
    assert {row["name"]: row["role"] for row in scene} == {
        "detected boxes": "system",
        "true boxes": "ablation",
        "true boxes, leaves learned as cut out on black": "ablation",
    }
    assert scene[0]["scores"].keys() == {"found", "found and named right", "AP@50", "precision"}
    assert scene[1]["scores"]["found"] == [1.0]


def test_cut_out_leaves_are_put_on_grounds(leaves: Path) -> None:
    paths = sorted(leaves.glob("*/*.png"))
    first, second = on_grounds(paths, np.array([0, 9]), seed=0)
    for image, color in ((first, 0), (second, 1)):
        pixels = np.asarray(image).astype(int)
        middle = pixels[pixels.shape[0] // 2, pixels.shape[1] // 2]
        assert middle.argmax() == color  # the disc
        assert np.median(pixels[:3].max(-1)) > 40  # no longer black beside it


def test_a_detector_learns_all_boxes_of_a_folder(leaves: Path, tmp_path: Path) -> None:
    write_frames(tmp_path / "frames", leaves)
    options: dict[str, Any] = {"steps": 2, "images_per_class": 2, "image_size": 32, "accelerator": "cpu"}
    boxes = str(tmp_path / "frames")
    detector = leaf_diseases.fit(leaves, boxes=boxes, epochs=1, detector_size=96, **options).detector_
    assert isinstance(detector, BoxDetector)
    assert detector.options["classes"] == 2
    with pytest.raises(UserError, match="from boxes or from scenes, not from both"):
        leaf_diseases.fit(leaves, boxes=boxes, scenes=2, **options)


def test_the_commands_fit_with_a_detector_and_draw(leaves: Path, tmp_path: Path) -> None:
    model, out, figure = tmp_path / "m.safetensors", tmp_path / "l.csv", tmp_path / "l.png"
    words = ["metric", "fit", "leaf_diseases", "--root", str(leaves), "--out", str(model)]
    assert main([*words, "--options", f"{{{OPTIONS}, scenes: 2, epochs: 1}}"]) == 0
    retriever = LeafDiseaseRetriever.load(model)
    assert isinstance(retriever.detector_, BoxDetector)
    paths = sorted(leaves.glob("*/*.png"))
    scene = compose_scene([Image.open(path) for path in paths[::6]], np.random.default_rng(0), size=128).image
    assert isinstance(scene, Image.Image)
    scene.save(tmp_path / "scene.png")
    words = ["metric", "predict", str(model), str(tmp_path / "scene.png"), "--out", str(out)]
    assert main([*words, "--figure", str(figure)]) == 0
    assert next(csv.reader(out.open()))[:2] == ["image", "left"]
    assert figure.stat().st_size > 1000
    assert len(list(csv.DictReader(out.open()))) == len(retriever.identify(tmp_path / "scene.png"))


def test_a_model_lends_its_detector(leaves: Path, tmp_path: Path) -> None:
    words = ["metric", "fit", "leaf_diseases", "--root", str(leaves), "--out"]
    first, second = str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")
    assert main([*words, first, "--options", f"{{{OPTIONS}, scenes: 2, epochs: 1, detector_size: 64}}"]) == 0
    assert main([*words, second, "--options", f"{{{OPTIONS}, detector: {first}}}"]) == 0
    detectors = [LeafDiseaseRetriever.load(path).detector_ for path in (first, second)]
    assert all(isinstance(each, BoxDetector) and each.image_size == 64 for each in detectors)
    given, taken = (each.tensors() for each in detectors if isinstance(each, BoxDetector))
    assert all(torch.equal(taken[name], given[name]) for name in given)


@pytest.mark.parametrize(
    ("file", "message"),
    [("none.pth", "there is no weights file"), ("plain.safetensors", "plain.safetensors has no detector")],
    ids=["missing", "without a detector"],
)
def test_a_file_without_a_detector_is_refused_before_training(
    fitted: LeafDiseaseRetriever, leaves: Path, file: str, message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    fitted.save("plain.safetensors")
    monkeypatch.setattr(LeafDiseaseRetriever, "fit", None)
    with pytest.raises(UserError, match=message):
        leaf_diseases.fit(leaves, detector=file)


def test_a_clone_has_no_detector_of_the_original(fitted: LeafDiseaseRetriever) -> None:
    assert not hasattr(clone(fitted), "detector_")
