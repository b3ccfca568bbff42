"""The model and its file format."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch

from lwfm.data.normalization import IMAGENET
from lwfm.errors import UserError
from lwfm.model import LWFM, ModelConfig, load_model, load_parameters, save_model

if TYPE_CHECKING:
    from pathlib import Path

TINY = ModelConfig(backbone="conv4", image_size=32, feature_size=2)


def _images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


@pytest.fixture(scope="module")
def model() -> LWFM:
    torch.manual_seed(0)
    return LWFM(TINY, ["cat", "dog", "hen"], IMAGENET).eval()


def test_forward_is_the_head_on_the_encoded_maps(model: LWFM) -> None:
    support, query, labels = _images(4), _images(6), torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        expected = model.head(model.encode(support), labels, model.encode(query))
        torch.testing.assert_close(model(support, labels, query), expected)


def test_training_mode_returns_class_logits() -> None:
    model = LWFM(TINY, ["cat", "dog", "hen"]).train()
    logits, class_logits = model(_images(4), torch.tensor([0, 1, 0, 1]), _images(6))
    assert logits.shape == (6, 2)
    assert class_logits.shape == (6, 3)


def test_file_round_trip(model: LWFM, tmp_path: Path) -> None:
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    assert (loaded.config, loaded.classes, loaded.normalization) == (TINY, model.classes, IMAGENET)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    labels = torch.tensor([0, 1, 2])
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(_images(3), labels, _images(2)),
            model(_images(3), labels, _images(2)),
            rtol=0,
            atol=0,
        )


def test_loading_reads_no_pretrained_weights_again(model: LWFM, tmp_path: Path) -> None:
    described = LWFM(TINY, ["cat", "dog", "hen"])
    described.config = replace(TINY, weights=str(tmp_path / "long-gone.safetensors"))
    save_model(described, tmp_path / "model.safetensors")
    assert load_model(tmp_path / "model.safetensors").config == described.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature_size": 1}, None),
        ({"embedding": False}, r"its parameter 'head\.embeddings\.0\.0\.weight' has no place here"),
        ({"backbone": "resnet12"}, "it has no parameter 'backbone"),
    ],
    ids=["same-parameters", "without-embedding", "other-backbone"],
)
def test_description_of_another_architecture(
    model: LWFM, tmp_path: Path, change: dict[str, object], message: str | None
) -> None:
    path = tmp_path / "model.safetensors"
    _save_described(model, path, change)
    if message is None:
        load_model(path)
        return
    with pytest.raises(UserError, match=rf"model\.safetensors is of another architecture: {message}"):
        load_model(path)


def _save_described(model: LWFM, path: Path, change: dict[str, object]) -> None:
    """Save the tensors of ``model`` under a changed description."""
    save_model(model, path)
    with safetensors.safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["lwfm"])
    description["config"] |= change
    tensors = safetensors.torch.load_file(path)
    safetensors.torch.save_file(tensors, path, metadata={"lwfm": json.dumps(description)})


def test_first_parameter_of_another_shape_is_named(model: LWFM) -> None:
    tensors = dict(LWFM(TINY, ["one", "two"]).state_dict())
    with pytest.raises(UserError, match=r"'head\.classifier\.weight' is torch\.float32 \[2, .* \[3, "):
        load_parameters(model, tensors, source="file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no model file"),
        (b"not tensors", "not a readable .safetensors file"),
        (safetensors.torch.save({"x": torch.zeros(1)}), "holds tensors but no lwfm model"),
        (safetensors.torch.save({"x": torch.zeros(1)}, {"lwfm": '{"format": 99}'}), "has format 99"),
        (safetensors.torch.save({"x": torch.zeros(1)}, {"lwfm": "[]"}), "has format None"),
    ],
    ids=["missing", "garbage", "foreign", "newer", "not-an-object"],
)
def test_unusable_files_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_model(path)


def test_truncated_file_is_refused(model: LWFM, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(model, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"not a readable \.safetensors file"):
        load_model(path)


def test_unknown_option_of_a_newer_version_is_named(model: LWFM, tmp_path: Path) -> None:
    _save_described(model, tmp_path / "model.safetensors", {"novelty": 3})
    with pytest.raises(UserError, match=r"unknown model option\(s\) novelty"):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": "warm"}, "temperature"),
        ({"temperature": -1.0}, "temperature must be positive"),
        ({"backbone": None}, "backbone must not be null"),
        ({"layer_reduction": "sum"}, "layer_reduction"),
        ({"layers": {"7": 8}}, "layers"),
    ],
    ids=["text", "negative", "null", "choice", "group"],
)
def test_a_description_with_wrong_values_is_refused(
    model: LWFM, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    _save_described(model, tmp_path / "model.safetensors", change)
    with pytest.raises(UserError, match=rf"model\.safetensors: its description .* not understood.*{message}"):
        load_model(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"format": 1}', "[]", "3"], ids=["deep", "bare", "list", "3"]
)
def test_metadata_of_something_else_are_refused(model: LWFM, tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path, metadata={"lwfm": text})
    with pytest.raises(UserError, match=r"model\.safetensors"):
        load_model(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(model: LWFM, tmp_path: Path, value: float) -> None:
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = next(name for name in tensors if name.endswith("weight"))
    tensors[name].view(-1)[3] = value
    with pytest.raises(UserError, match=f"file: parameter '{name}' holds NaN or infinite values"):
        load_parameters(model, tensors, source="file")
