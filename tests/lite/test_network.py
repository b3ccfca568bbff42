"""Exported networks without torch: refusals, the arithmetic of episodes, no import of torch."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from lwfm import _lap
from lwfm.errors import UserError
from lwfm.lite import FewShotClassifier, OnnxNetwork
from lwfm.lite.__main__ import main
from lwfm.lite.encoded import EncodedImages, encode_maps
from lwfm.nn import ClassLists, LWFMHead

if TYPE_CHECKING:
    from pathlib import Path

    from tests.lite.conftest import Exported


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter where importing torch fails."""
    blocked = "import sys; sys.modules['torch'] = None\n"
    words = [sys.executable, "-c", blocked + code, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_nothing_of_torch_is_loaded(exported: Exported, tiny_images: Path, tmp_path: Path) -> None:
    code = """
import sys
from lwfm.lite.__main__ import main
status = main(sys.argv[1:])
assert not [name for name in sys.modules if name.split(".")[0] in ("torchvision", "timm", "lightning")]
sys.exit(status)
"""
    images = (tiny_images / "val", tiny_images / "val/class-0")
    done = run(code, *images, "--model", exported.path, "--out", tmp_path / "answers.json")
    assert done.stderr == ""
    assert done.returncode == 0
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert len(answers["answers"]) == 6
    assert answers["network"] == "conv4 (random weights)"
    assert "30 examples" in done.stdout


def test_mistakes_end_in_a_sentence(exported: Exported, tiny_images: Path, tmp_path: Path) -> None:
    code = "import sys\nfrom lwfm.lite.__main__ import main\nsys.exit(main(sys.argv[1:]))"
    done = run(code, tiny_images / "val", tmp_path / "none.png", "--model", exported.path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"lwfm: error: there is no image or folder {tmp_path / 'none.png'}\n"


@pytest.mark.parametrize("views", [None, "true", "false"])
def test_the_command_learns_from_views_unless_told_otherwise(
    views: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_images: Path
) -> None:
    learned: list[bool] = []

    def fit(classifier: FewShotClassifier, *_: object) -> FewShotClassifier:
        learned.append(classifier.views)
        raise UserError("seen")

    monkeypatch.setattr(FewShotClassifier, "fit", fit)
    words = [str(tiny_images / "val"), str(tiny_images / "val/class-0"), "--model", str(tmp_path / "m.onnx")]
    assert main(words if views is None else [*words, "--views", views]) == 2
    assert learned == [views != "false"]


def test_views_are_not_for_a_saved_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "c.safetensors"
    saved.touch()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert main([str(saved), str(tmp_path / "a.png"), "--model", "m.onnx", "--views", "true"]) == 2
    assert f"--views is for a folder of examples, and {saved} is a classifier" in capsys.readouterr().err


def with_metadata(exported: Exported, target: Path, change: dict[str, Any]) -> Path:
    """Write an exported network again, with other options in its metadata; None leaves them out."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(exported.path)
    entry = next(each for each in model.metadata_props if each.key == "lwfm")
    described = json.loads(entry.value)
    for path, value in change.items():
        place = described
        *parents, last = path.split(".")
        for name in parents:
            place = place[name]
        place[last] = value
    entry.value = json.dumps(described)
    onnx.save(model, target)
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.config.sharpness": 2}, "the option sharpness, which this lwfm.lite does not know"),
        ({"model.config.centre": "moon"}, "centre 'moon', of which this lwfm.lite does not know one"),
        ({"preprocessing.resized_side": 99}, "prepares images in another way"),
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"model": {}}, "is no network that `lwfm export` wrote"),
    ],
    ids=["option", "centre", "preprocessing", "format", "model"],
)
def test_networks_that_are_not_understood_are_refused(
    exported: Exported, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        OnnxNetwork(with_metadata(exported, tmp_path / "changed.onnx", change))


def test_a_number_of_threads_that_is_none_is_refused(exported: Exported) -> None:
    with pytest.raises(UserError, match="threads must be a whole number of at least 1, not 0"):
        OnnxNetwork(exported.path, threads=0)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no protobuf")
    for name in ("x.onnx", "missing.onnx"):
        with pytest.raises(UserError, match=f"ONNX Runtime cannot read .*{name}"):
            OnnxNetwork(tmp_path / name)


SHAPES = {
    "paper": (5, 25, 75, 3, (16, 24)),
    "one-query": (3, 12, 1, 3, (8,)),
    "large-maps": (2, 5, 4, 7, (24,)),
    "many-shots": (2, 40, 3, 2, (20, 4)),
}
"""way, S, Q, F and channels: classes with products of their own or without, one query a tile or many."""


@pytest.mark.parametrize("embedding", [False, True], ids=["plain", "embedded"])
@pytest.mark.parametrize("merge_shots", [False, True], ids=["shots", "merged"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_episodes_are_those_of_the_head(
    shape: tuple[int, int, int, int, tuple[int, ...]], merge_shots: bool, embedding: bool
) -> None:
    way, S, Q, F, dims = shape
    torch.manual_seed(0)
    head = LWFMHead(dims, feature_size=F, embedding=embedding, merge_shots=merge_shots, top_k=2).eval()
    for weight in head.embeddings.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    maps = [torch.rand(S + Q, C, F, F) for C in dims]
    labels = [number % way for number in range(S)]
    with torch.no_grad():
        encoded = head.encode(maps)
        expected = head.compare(encoded[:S], labels, encoded[S:])
        weights = [weight.numpy() for weight in head.embeddings.parameters()]
    images = encode_maps([x.numpy() for x in maps], weights, together=True)
    for one, other in zip(images.parts(), encoded.parts(), strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    lists = ClassLists(labels)
    results = [
        _lap.compare_episode(
            *images.parts(), lists.order.numpy(), lists.begin.numpy(), 5.0, 2, False, merge_shots, threads
        )
        for threads in (1, 3)
    ]
    base, matching = results[0]
    np.testing.assert_allclose(base, expected.base, atol=2e-5)
    np.testing.assert_allclose(0.25 * matching, expected.matching, atol=2e-5)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_features_that_are_not_finite_are_named() -> None:
    maps = np.random.default_rng(0).random((5, 8, 3, 3), dtype=np.float32)
    maps[3, 0, 0, 0] = np.nan
    images = encode_maps([maps], together=True)
    assert not images.are_finite()
    order, begin = np.arange(2), np.arange(3)
    with pytest.raises(ValueError, match=r"cost\[1, 0, 0, 0\] is nan"):
        _lap.compare_episode(*images.parts(), order, begin, 5.0, 1, False, False, 1)


def test_some_images_are_taken_and_joined() -> None:
    images = encode_maps([np.random.default_rng(0).random((5, 8, 3, 3), dtype=np.float32)], together=False)
    joined = EncodedImages.cat([images[:2], images[np.array([2, 3, 4])]])
    for one, other in zip(joined.parts(), images.parts(), strict=True):
        for x, y in zip(one, other, strict=True):
            np.testing.assert_array_equal(x, y)
