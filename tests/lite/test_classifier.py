"""lwfm.lite gives the answers of FewShotClassifier, for every option of the head, and loads its files."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch

import lwfm
from lwfm.errors import UserError
from lwfm.lite import FewShotClassifier, OnnxNetwork
from lwfm.model import LWFM

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lite.conftest import Exported

Shots = tuple[list["Path"], list[str]]

HEADS: dict[str, dict[str, Any]] = {
    "as-built": {},
    "all-pairs": {"top_k": None, "layer_reduction": "mean"},
    "two-pairs": {"top_k": 2},
    "merged": {"merge_shots": True, "matching_weight": 1.0},
    "no-lwe": {"attention_temperature": None},
    "no-matching": {"matching_weight": 0.0},
    "task": {"centre": "task"},
    "episode": {"centre": "episode"},
    "warm": {"temperature": 0.05},
    "regression": {"centre": "task", "regression_weight": 3.0},
}


def pair(exported: Exported, head: dict[str, Any]) -> tuple[LWFM, OnnxNetwork]:
    """Return a network with other options of its head, twice."""
    config = replace(exported.network.config, **head)
    network = LWFM(config).eval()
    network.load_state_dict(exported.network.state_dict())
    lite = OnnxNetwork(exported.path)
    lite.options = replace(lite.options, **head)
    return network, lite


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_answers_are_those_of_torch(
    exported: Exported, head: dict[str, Any], shots: Shots, queries: list[Path]
) -> None:
    network, lite = pair(exported, head)
    known = lwfm.FewShotClassifier(network, engine="torch", progress=False).fit(*shots)
    found = FewShotClassifier(lite).fit(*shots)
    assert found.classes_.tolist() == known.classes_.tolist()
    assert found.calibrated_on_ == known.calibrated_on_ == 17
    assert found.temperature_ == pytest.approx(known.temperature_, rel=1e-3)
    expected = known.predict_proba(queries)
    np.testing.assert_allclose(found.predict_proba(queries), expected, atol=1e-4)
    clear = np.diff(np.sort(expected)[:, -2:])[:, 0] > 1e-3
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found.predict(queries)[clear], known.predict(queries)[clear])


@pytest.mark.parametrize(
    "options", [{"unknown_below": 0.5}, {"unknown_below": 0.5, "unknown_label": 7}], ids=str
)
def test_decisions_are_those_of_torch(
    exported: Exported, options: dict[str, Any], shots: Shots, queries: list[Path]
) -> None:
    known = lwfm.FewShotClassifier(exported.network, engine="torch", progress=False, **options).fit(*shots)
    found = FewShotClassifier(exported.path, **options).fit(*shots)
    pairs = list(zip(found.decide(queries), known.decide(queries), strict=True))
    assert len({one.label for one, _ in pairs}) > 1
    for one, other in pairs:
        assert (one.label, one.best, one.runner_up) == (other.label, other.best, other.runner_up)
        assert one.probability == pytest.approx(other.probability, abs=1e-4)
        assert (one.support, one.support_name) == (other.support, other.support_name)
    assert found.predict(queries).tolist() == known.predict(queries).tolist()


def test_shots_can_be_added(exported: Exported, shots: Shots, queries: list[Path]) -> None:
    paths, labels = shots
    once = FewShotClassifier(exported.path).fit(paths, labels)
    parts = FewShotClassifier(exported.path).partial_fit(paths[:2], labels[:2])
    with pytest.raises(UserError, match="only the class 'class-4' is known"):
        parts.predict(queries)
    parts.partial_fit(paths[2:], labels[2:])
    np.testing.assert_allclose(parts.predict_proba(queries), once.predict_proba(queries), atol=1e-6)
    with pytest.raises(UserError, match="use either names or numbers"):
        parts.partial_fit(paths[:1], [3])


def test_arrays_and_images_of_more_bits_are_read(exported: Exported) -> None:
    random = np.random.default_rng(0)
    deep = random.integers(0, 4096, (6, 30, 40), dtype=np.uint16)
    known = lwfm.FewShotClassifier(exported.network, engine="torch", progress=False).fit(
        deep[..., None], [0, 1] * 3
    )
    found = FewShotClassifier(exported.path).fit(deep[..., None], [0, 1] * 3)
    np.testing.assert_allclose(found.predict_proba(list(deep)), known.predict_proba(list(deep)), atol=1e-4)
    assert found.predict(list(deep)).dtype == np.int64


def test_views_are_those_of_torch(
    exported: Exported, shots: Shots, queries: list[Path], tmp_path: Path
) -> None:
    network, lite = pair(exported, {"centre": "task", "regression_weight": 3.0})
    known = lwfm.FewShotClassifier(network, engine="torch", progress=False).fit(*shots)
    found = FewShotClassifier(lite).fit(*shots)
    for one, other in zip(found.examples_.views, known.support_.views, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    plain = FewShotClassifier(lite, views=False).fit(*shots)
    assert not plain.examples_.views
    assert not np.allclose(plain.predict_proba(queries), found.predict_proba(queries), atol=1e-3)
    plain.set_params(views=True).partial_fit(shots[0][:2], shots[1][:2])
    assert plain.examples_.views[0].shape[0] == len(shots[0]) + 2
    np.testing.assert_array_equal(plain.examples_.views[0][0, 1], plain.examples_.views[0][0, 4])


@pytest.fixture(scope="module")
def saved(exported: Exported, shots: Shots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("saved") / "classifier.safetensors"
    classifier = lwfm.FewShotClassifier(exported.network, engine="torch", progress=False, unknown_below=0.4)
    classifier.fit(*shots).save(path)
    return path


def test_a_saved_classifier_gives_the_same_answers(
    exported: Exported, saved: Path, queries: list[Path]
) -> None:
    known = lwfm.FewShotClassifier.load(saved, engine="torch")
    found = FewShotClassifier.load(saved, exported.path)
    assert found.unknown_below == 0.4
    assert (found.temperature_, found.calibrated_on_) == (known.temperature_, known.calibrated_on_)
    np.testing.assert_allclose(found.predict_proba(queries), known.predict_proba(queries), atol=1e-4)
    assert [one.support_name for one in found.decide(queries[:5])] == [
        one.support_name for one in known.decide(queries[:5])
    ]


def changed(saved: Path, target: Path, description: dict[str, Any], tensors: dict[str, Any]) -> Path:
    """Write a saved classifier again with other values."""
    with safetensors.safe_open(saved, framework="pt") as file:
        state = json.loads(file.metadata()["lwfm_classifier"])
    known = {**safetensors.torch.load_file(saved), **tensors}
    safetensors.torch.save_file(known, target, {"lwfm_classifier": json.dumps({**state, **description})})
    return target


def test_a_file_of_another_network_is_refused(exported: Exported, saved: Path, tmp_path: Path) -> None:
    name = next(name for name in safetensors.torch.load_file(saved) if name.startswith("model.backbone"))
    other = safetensors.torch.load_file(saved)[name] + 1
    path = changed(saved, tmp_path / "other.safetensors", {}, {name: other})
    with pytest.raises(UserError, match=r"model.onnx is not the network of .*other.safetensors: write it by"):
        FewShotClassifier.load(path, exported.path)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"format": 2}, "has format 2"),
        ({"names": ["a"]}, "not a whole classifier: its images, labels and names do not agree"),
        ({"classes": ["a"]}, "its labels are not those of its classes"),
        ({"temperature": -1}, "its temperature is not positive"),
        ({"temperature": None}, "not a whole classifier"),
    ],
    ids=["format", "names", "classes", "temperature", "no-temperature"],
)
def test_files_that_contradict_themselves_are_refused(
    exported: Exported, saved: Path, tmp_path: Path, description: dict[str, Any], message: str
) -> None:
    path = changed(saved, tmp_path / "changed.safetensors", description, {})
    with pytest.raises(UserError, match=message):
        FewShotClassifier.load(path, exported.path)


@pytest.mark.parametrize("content", [None, b"", b"damaged"], ids=["missing", "empty", "damaged"])
def test_files_that_cannot_be_read_are_named(
    exported: Exported, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "c.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"c\.safetensors"):
        FewShotClassifier.load(path, exported.path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unknown_below": 2}, "unknown_below must be a number in 0..1"),
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"unknown_label": 0.5}, "unknown_label must be a name or a whole number"),
    ],
    ids=["unknown-below", "batch-size", "unknown-label"],
)
def test_options_are_checked(exported: Exported, shots: Shots, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FewShotClassifier(exported.path, **options).fit(*shots)


def test_a_classifier_that_is_not_fitted_says_so(exported: Exported, queries: list[Path]) -> None:
    with pytest.raises(UserError, match="call fit first"):
        FewShotClassifier(exported.path).predict(queries)
    with pytest.raises(UserError, match="at least two classes"):
        FewShotClassifier(exported.path).fit(queries[:2], ["a", "a"])


def test_nothing_to_classify_gives_no_answer(exported: Exported, shots: Shots) -> None:
    found = FewShotClassifier(exported.path).fit(*shots)
    assert found.predict([]).shape == (0,)
    assert found.predict_proba([]).shape == (0, 5)
