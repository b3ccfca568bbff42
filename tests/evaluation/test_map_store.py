"""Stored maps, confusion matrices, and two results compared on the same episodes."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch

from lwfm.data import open_images
from lwfm.errors import UserError
from lwfm.evaluation import evaluate
from lwfm.evaluation.cached_maps import compute_maps
from lwfm.evaluation.comparison import compare
from lwfm.evaluation.map_store import maps_fingerprint, stored_maps
from lwfm.evaluation.results import EvaluationResult
from lwfm.evaluation.scoring import score_methods
from lwfm.model import LWFM, ModelConfig, save_model
from tests.cli.test_cli import run

if TYPE_CHECKING:
    from pathlib import Path

    from lwfm.data import ImageSet

MODEL = ModelConfig(backbone="conv4", image_size=24, feature_size=1)


@pytest.fixture
def images(tiny_images: Path) -> ImageSet:
    return open_images("folder", tiny_images, "test")


def network(seed: int = 0, **options: Any) -> LWFM:
    torch.manual_seed(seed)
    return LWFM(dataclasses.replace(MODEL, **options)).eval()


def _evaluate(root: Path, **options: Any) -> EvaluationResult:
    settings: dict[str, Any] = {"model": MODEL, "queries": 3, "episodes": 20, "accelerator": "cpu"}
    return evaluate(data="folder", root=root, **(settings | options))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_stored_maps_are_the_encoded_ones(images: ImageSet, tmp_path: Path, dtype: Any) -> None:
    model = network(layers=(2, 4), feature_size=(2, 1))
    stored = stored_maps(model, images, tmp_path, dtype=dtype, batch_size=5)
    expected = compute_maps(model, images, range(len(images)))
    assert {layer.dtype for layer in stored.layers} == {getattr(torch, dtype)}
    indices = [3, 0, 41]
    for ours, theirs in zip(stored.select(indices), expected.select(indices), strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0 if dtype == "float32" else 1e-3, atol=1e-5)


def test_stored_maps_are_found_again(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_maps(network(), images, tmp_path)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(LWFM, "encode", lambda *_: pytest.fail("encoded again"))
    head = network(matching_weight=0.0, attention_temperature=2.0)  # another head on the same backbone
    stored_maps(head, images, tmp_path)
    assert list(tmp_path.iterdir()) == [file]


def test_fingerprint_sees_weights_layers_images_and_precision(images: ImageSet, tiny_images: Path) -> None:
    models = [network(), network(seed=1), network(layers=(2, 4)), network(image_size=32)]
    found = {maps_fingerprint(model, images, "float32") for model in models}
    found.add(maps_fingerprint(network(), images, "float16"))
    found.add(maps_fingerprint(network(), open_images("folder", tiny_images, "val"), "float32"))
    assert len(found) == 6
    assert maps_fingerprint(network(), images, "float32") in found


def test_damaged_maps_are_named(images: ImageSet, tmp_path: Path) -> None:
    stored_maps(network(), images, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match=r"stored maps .*safetensors are damaged"):
        stored_maps(network(), images, tmp_path)


def test_an_interrupted_encoding_leaves_no_file(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, calls = LWFM.encode, []

    def stop(self: LWFM, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, images)

    monkeypatch.setattr(LWFM, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        stored_maps(network(), images, tmp_path, batch_size=4)
    assert list(tmp_path.iterdir()) == []


def test_evaluation_on_stored_maps_is_the_same(tiny_images: Path, tmp_path: Path) -> None:
    plain = _evaluate(tiny_images, shot=[1, 2])
    for _ in range(2):
        assert _evaluate(tiny_images, shot=[1, 2], maps=tmp_path).methods == plain.methods
    half = _evaluate(tiny_images, maps=tmp_path, maps_dtype="float16")
    assert half.of("lwfm", 1).accuracy == pytest.approx(plain.of("lwfm", 1).accuracy, abs=0.05)
    assert half.options["maps_dtype"] == "float16"
    assert len(list(tmp_path.iterdir())) == 2


def test_confusions_per_class_and_total_agree(tiny_images: Path) -> None:
    result = _evaluate(tiny_images)
    for method in result.methods:
        counts = {name: sum(row.values()) for name, row in method.confusion.items()}
        assert sum(counts.values()) == 20 * 5 * 3
        hits = {name: method.confusion[name].get(name, 0) for name in counts}
        assert sum(hits.values()) / sum(counts.values()) == pytest.approx(method.accuracy)
        assert method.class_accuracy == pytest.approx({name: hits[name] / counts[name] for name in counts})
        low, high = method.bootstrap or (1, 0)
        assert low < method.accuracy < high
    assert result.of("nearest_class_mean", 1).difference_bootstrap == (0.0, 0.0)
    assert "without replacement" in result.options["sampling"]


def test_confusions_by_hand() -> None:
    query_classes = torch.tensor([[2, 0, 2, 0]])  # 2-way: label 0 is class 2, label 1 is class 0
    answers = {"nearest_class_mean": torch.tensor([[0, 0, 1, 1]])}
    (result,) = score_methods(answers, query_classes, ("a", "b", "c"), way=2, shot=1)
    assert result.confusion == {"a": {"a": 1, "c": 1}, "c": {"a": 1, "c": 1}}
    assert result.class_accuracy == {"a": 0.5, "c": 0.5}
    assert result.accuracy == 0.5


def test_results_without_the_newer_statistics_are_read(tiny_images: Path) -> None:
    plain = json.loads(_evaluate(tiny_images).to_json())
    for method in plain["methods"]:
        for name in ("bootstrap", "difference_bootstrap", "confusion"):
            del method[name]
    result = EvaluationResult.from_json(json.dumps(plain))
    assert result.methods[0].bootstrap is None
    assert result.of("lwfm", 1).way == 5


def test_compare_pairs_the_episodes(
    tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json")]
    other = dataclasses.replace(MODEL, top_k=None, attention_temperature=1.0)
    results = [
        _evaluate(tiny_images, model=model, shot=[1, 2], out=file)
        for model, file in zip((MODEL, other), files, strict=True)
    ]
    outcome = run(capsys, "compare", *files, "--out", tmp_path / "c.json")
    assert outcome.status == 0, outcome.err
    comparison = compare(*files)
    assert outcome.out.strip() == str(comparison)
    assert {(row.method, row.shot) for row in comparison.rows} == {
        (method, shot) for method in ("lwfm", "base", "matching", "nearest_class_mean") for shot in (1, 2)
    }
    for row in comparison.rows:
        first, second = (np.array(r.of(row.method, row.shot).episode_accuracy) for r in results)
        assert row.test.difference == pytest.approx((first - second).mean())
        if row.method == "nearest_class_mean":  # the same backbone
            assert row.test.p_value == 1.0
    assert json.loads((tmp_path / "c.json").read_text())["rows"][0]["test"]["p_value"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "they differ in seed: 0 and 1"),
        ({"way": 4}, "no method at the same way and shot"),
        ({"split": "val"}, "they differ in fingerprint"),
        ({"shot": 2}, "no method at the same way and shot"),
    ],
    ids=["seed", "way", "images", "shot"],
)
def test_other_episodes_are_not_compared(
    options: dict[str, Any], message: str, tiny_images: Path, tmp_path: Path
) -> None:
    _evaluate(tiny_images, out=tmp_path / "a.json")
    _evaluate(tiny_images, **options, out=tmp_path / "b.json")
    with pytest.raises(UserError, match=message):
        compare(tmp_path / "a.json", tmp_path / "b.json")


def test_compare_names_the_file_that_is_no_result(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read the result .*missing\.json"):
        compare(tmp_path / "missing.json", tmp_path / "missing.json")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(UserError, match=r"a\.json: not an evaluation result"):
        compare(tmp_path / "a.json", tmp_path / "a.json")


def test_a_result_that_was_cut_short_is_refused(tiny_images: Path, tmp_path: Path) -> None:
    plain = json.loads(_evaluate(tiny_images, out=tmp_path / "a.json").to_json())
    plain["methods"][0]["episode_accuracy"].pop()
    (tmp_path / "b.json").write_text(json.dumps(plain))
    count = plain["options"]["episodes"]
    message = rf"b\.json: not a whole .*: {count} episodes, and lists episode_accuracy of {count - 1} values"
    with pytest.raises(UserError, match=message):
        compare(tmp_path / "a.json", tmp_path / "b.json")


def _changed(plain: dict[str, Any], place: str, value: Any) -> str:
    """Return a result as JSON with another value at a place like ``methods.0.way``; None removes it."""
    *parents, last = place.split(".")
    entry: Any = plain
    for name in parents:
        entry = entry[int(name) if isinstance(entry, list) else name]
    if value is None:
        del entry[last]
    else:
        entry[last] = value
    return json.dumps(plain)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("methods", "x", "expected entries by name, got 'x'"),
        ("methods.0.way", "five", "way"),
        ("methods.0.way", 0, "way or shot below 1, or a confusion below 0"),
        ("methods.0.accuracy", 1.5, "must lie in 0..1"),
        ("methods.0.accuracy", float("nan"), "NaN is not a finite number"),
        ("methods.0.class_accuracy", [1], "class_accuracy"),
        ("methods.0.confusion", {"a": {"a": "x"}}, "confusion"),
        ("methods.0.confusion", {"a": {"a": -1}}, "way or shot below 1, or a confusion below 0"),
        ("methods.0.shot", None, "shot"),
        ("data.classes", [1, None], '"data": .*Got value: 1'),
        ("data.split", "all", "Literal"),
        ("options.episodes", [20], r'"options": .*Got value: \[20\]'),
        ("options.queries", None, "queries"),
        ("model.checkpoint", 3, '"model": .*Given value: 3'),
        ("seconds", 10**400, "does not fit into 64 bits"),
        ("extra", 1, "extra"),
    ],
)
def test_a_damaged_result_is_refused_by_name(
    tiny_images: Path, tmp_path: Path, place: str, value: Any, message: str
) -> None:
    plain = json.loads(_evaluate(tiny_images, episodes=2).to_json())
    (tmp_path / "a.json").write_text(_changed(plain, place, value))
    with pytest.raises(UserError, match=rf"a\.json: not .*{message}"):
        EvaluationResult.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (float("nan"), torch.float32, "maps: the maps cannot be compared"),
        (0, torch.float8_e4m3fn, "safetensors are not of float32: delete the file"),
    ],
    ids=["nan", "float8"],
)
def test_damaged_stored_maps_are_named(
    tiny_images: Path, images: ImageSet, tmp_path: Path, value: float, dtype: torch.dtype, message: str
) -> None:
    folder = tmp_path / "maps"
    save_model(network(), tmp_path / "m.safetensors")
    again = partial(_evaluate, tiny_images, model=None, checkpoint=tmp_path / "m.safetensors", maps=folder)
    again()
    (file,) = folder.iterdir()
    layers = safetensors.torch.load_file(file)
    safetensors.torch.save_file({n: torch.full_like(x, value, dtype=dtype) for n, x in layers.items()}, file)
    with pytest.raises(UserError, match=message):
        again()
