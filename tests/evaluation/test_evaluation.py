"""Evaluation on cached maps: equal to the model on images, repeatable, and complete in its file."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lwfm.data import (
    EpisodeSampler,
    ImageDataset,
    episode_labels,
    evaluation_transform,
    images_needed,
    open_images,
)
from lwfm.errors import UserError
from lwfm.evaluation import evaluate
from lwfm.evaluation.cached_maps import compute_maps
from lwfm.evaluation.episodes import accuracy_of, run_episodes
from lwfm.evaluation.results import EvaluationResult
from lwfm.model import LWFM, ModelConfig, save_model
from lwfm.nn import nearest_class_mean

if TYPE_CHECKING:
    from pathlib import Path

MODEL = ModelConfig(backbone="conv4", image_size=24, feature_size=1)


def _evaluate(root: Path, **options: Any) -> EvaluationResult:
    settings: dict[str, Any] = {"model": MODEL, "queries": 3, "episodes": 12, "accelerator": "cpu"}
    return evaluate(data="folder", root=root, **(settings | options))


@pytest.fixture(scope="module")
def result(tiny_images: Path) -> EvaluationResult:
    return _evaluate(tiny_images, shot=[1, 3])


@pytest.mark.parametrize("matching_weight", [0.25, 0.0], ids=["matching", "base-only"])
def test_cached_episodes_equal_the_model_on_images(tiny_images: Path, matching_weight: float) -> None:
    torch.manual_seed(3)
    images = open_images("folder", tiny_images, "test")
    config = ModelConfig(backbone="conv4", image_size=24, feature_size=1, matching_weight=matching_weight)
    model = LWFM(config, normalization=images.normalization).eval()
    way, shot, queries = 5, 2, 3
    sampler = EpisodeSampler(images.labels, way=way, shot=shot, queries=queries, episodes=8, seed=1)
    drawn = list(sampler)
    maps = compute_maps(model, images, images_needed(drawn), batch_size=7)
    answers = run_episodes(model.head, maps, {(way, shot): drawn})[way, shot]
    assert ("matching" in answers) == (matching_weight > 0)

    dataset = ImageDataset(images, evaluation_transform(image_size=24, normalization=images.normalization))
    for number, episode in enumerate(drawn):
        batch = torch.stack([dataset[index][0] for index in episode])
        with torch.no_grad():
            logits = model(batch[: way * shot], episode_labels(way, shot), batch[way * shot :])
        assert answers["lwfm"][number].tolist() == logits.argmax(-1).tolist()
    assert (
        0.2 < accuracy_of(answers["lwfm"], way) < 1
    )  # neither chance nor trivial, so that the test can fail


def test_each_image_passes_the_backbone_once(tiny_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = []
    encode = LWFM.encode

    def count(self: LWFM, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        passed.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(LWFM, "encode", count)
    _evaluate(tiny_images, episodes=30, shot=[1, 2])
    assert sum(passed) == 7 * 6


def test_an_image_that_was_not_encoded_has_no_maps(tiny_images: Path) -> None:
    images = open_images("folder", tiny_images, "test")
    maps = compute_maps(LWFM(MODEL), images, [4, 2])
    assert len(maps.select([2, 4, 2])[0]) == 3
    with pytest.raises(IndexError, match=r"images \[0, 3\] of the set were not encoded"):
        maps.select([2, 0, 3])


def test_nearest_class_mean_against_numpy() -> None:
    random = np.random.default_rng(0)
    support = [random.normal(size=(7, c, f, f)) for c, f in ((3, 2), (5, 1))]
    query = [random.normal(size=(4, c, f, f)) for c, f in ((3, 2), (5, 1))]
    labels = np.array([0, 1, 2, 2, 0, 1, 2])

    def feature(maps: list[Any], index: int) -> Any:
        vector = np.concatenate([layer[index].mean(axis=(1, 2)) for layer in maps])
        return vector / np.linalg.norm(vector)

    expected = np.empty((4, 3))
    for label in range(3):
        mean = np.mean([feature(support, i) for i in np.flatnonzero(labels == label).tolist()], axis=0)
        for i in range(4):
            expected[i, label] = feature(query, i) @ mean / np.linalg.norm(mean)
    scores = nearest_class_mean(
        [torch.from_numpy(layer) for layer in support],
        torch.from_numpy(labels),
        [torch.from_numpy(layer) for layer in query],
    )
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-12)


def test_statistics(result: EvaluationResult) -> None:
    assert {(m.method, m.shot) for m in result.methods} == {
        (method, shot) for method in ("lwfm", "base", "matching", "nearest_class_mean") for shot in (1, 3)
    }
    baseline = np.array(result.of("nearest_class_mean", 1).episode_accuracy)
    for method in ("lwfm", "base", "matching"):
        found = result.of(method, 1)
        accuracy = np.array(found.episode_accuracy)
        assert len(accuracy) == 12
        assert found.accuracy == pytest.approx(accuracy.mean())
        assert found.interval == pytest.approx(1.96 * accuracy.std(ddof=1) / math.sqrt(12), rel=1e-3)
        paired = accuracy - baseline
        assert found.difference == pytest.approx(paired.mean())
        assert found.difference_interval == pytest.approx(1.96 * paired.std(ddof=1) / math.sqrt(12), rel=1e-3)
        # 12 episodes x 5 classes x 3 queries: each class counts as often as it was drawn
        assert set(found.class_accuracy) <= {f"test-{label}" for label in range(7)}
    assert result.of("nearest_class_mean", 1).difference == 0
    with pytest.raises(KeyError):
        result.of("lwfm", 2)


def test_class_accuracy_averages_to_the_total(tiny_images: Path) -> None:
    result = _evaluate(tiny_images, way=7)  # every class in every episode: plain means agree
    for method in result.methods:
        assert np.mean(list(method.class_accuracy.values())) == pytest.approx(method.accuracy)


def test_repeats_exactly_and_depends_on_seed(tiny_images: Path, result: EvaluationResult) -> None:
    again = _evaluate(tiny_images, shot=[1, 3], batch_size=5, workers=1)
    assert again.methods == result.methods
    assert _evaluate(tiny_images, shot=[1, 3], seed=1).methods != result.methods


def test_json_round_trip(tiny_images: Path, tmp_path: Path) -> None:
    result = _evaluate(tiny_images, out=tmp_path / "deep" / "result.json")
    text = (tmp_path / "deep" / "result.json").read_text()
    assert EvaluationResult.from_json(text) == result
    plain = json.loads(text)
    assert plain["options"]["seed"] == 0
    assert (plain["options"]["class_split"], plain["options"]["crop"]) == (None, False)
    assert plain["data"]["fingerprint"] == open_images("folder", tiny_images, "test").fingerprint
    assert ModelConfig.from_dict(plain["model"]["config"]) == MODEL
    assert plain["versions"]["torch"] == torch.__version__.split("+")[0] or plain["versions"]["torch"]


def test_single_episode_has_no_interval(tiny_images: Path) -> None:
    result = _evaluate(tiny_images, episodes=1)
    assert result.of("lwfm", 1).interval is None
    assert EvaluationResult.from_json(result.to_json()) == result
    assert "±" not in str(result)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"methods": [{"method": "lwfm"}]}'])
def test_json_of_something_else(text: str) -> None:
    with pytest.raises(UserError, match="not an evaluation result"):
        EvaluationResult.from_json(text)


def test_table_shows_every_method_with_intervals(result: EvaluationResult) -> None:
    lines = str(result).splitlines()
    assert len(lines) == 2 + 8
    lwfm = result.of("lwfm", 3)
    (line,) = (line for line in lines if line.split()[:3] == ["5", "3", "lwfm"])
    assert f"{100 * lwfm.accuracy:.2f} ± {100 * (lwfm.interval or 0):.2f}" in line
    assert f"{100 * lwfm.difference:+.2f} ±" in line


def test_checkpoint_gives_the_model_s_own_accuracy(tiny_images: Path, tmp_path: Path) -> None:
    images = open_images("folder", tiny_images, "test")
    torch.manual_seed(0)
    save_model(LWFM(MODEL, normalization=images.normalization), tmp_path / "model.safetensors")
    saved = _evaluate(tiny_images, model=None, checkpoint=tmp_path / "model.safetensors")
    untrained = _evaluate(tiny_images, seed=0)  # the same weights, drawn by the same seed
    assert saved.methods == untrained.methods
    assert saved.model["sha256"] is not None
    assert untrained.model["sha256"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shot": []}, "shot must be"),
        ({"shot": [1, 1]}, "shot must be"),
        ({"way": []}, "way must be"),
        ({"heads": {"base": {"top_k": None}}}, "cannot be named base"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"checkpoint": "model.safetensors"}, "either a checkpoint or model options"),
        ({"checkpoint": "missing.safetensors", "model": None}, r"no model file missing\.safetensors"),
        ({"way": 8}, "need at least 8 classes, but there are only 7"),
        ({"shot": 5, "queries": 2}, "class .* has 6 images"),
    ],
    ids=[
        "no-shot",
        "shot-twice",
        "no-way",
        "name-of-a-head",
        "episodes",
        "batch",
        "both",
        "missing",
        "way",
        "images",
    ],
)
def test_options_that_cannot_work(tiny_images: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _evaluate(tiny_images, **options)


def test_out_must_not_be_a_folder(tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder"):
        _evaluate(tiny_images, out=tmp_path)


def test_cosine_ignores_scale_of_the_maps() -> None:
    maps = (F.normalize(torch.rand(4, 3, 2, 2)),)
    labels = torch.tensor([0, 1, 0, 1])
    torch.testing.assert_close(
        nearest_class_mean(maps, labels, (maps[0] * 5,)), nearest_class_mean(maps, labels, maps)
    )


def test_training_classes_of_the_checkpoint(tiny_images: Path, tmp_path: Path) -> None:
    classes = open_images("folder", tiny_images, "test").classes[:2]
    path = tmp_path / "model.safetensors"
    save_model(LWFM(MODEL, classes), path)
    with pytest.raises(UserError, match=r"2 of the 7 classes .*of the checkpoint: test-0, test-1\n"):
        _evaluate(tiny_images, model=None, checkpoint=path)
    with pytest.warns(UserWarning, match="not that of unseen classes"):
        allowed = _evaluate(tiny_images, model=None, checkpoint=path, overlap="allow")
    assert allowed.options["overlap"] == "allow"
    _evaluate(tiny_images, model=None, checkpoint=path, split="val")
