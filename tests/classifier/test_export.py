"""`lwfm export`: networks of every kind of file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lwfm.cli import main
from lwfm.model import LWFM, save_model
from lwfm.model.onnx_export import METADATA_KEY, network_fingerprint
from lwfm.model.onnx_session import OnnxNetwork

if TYPE_CHECKING:
    from pathlib import Path

    from lwfm import FewShotClassifier

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_a_saved_classifier(
    fitted: FewShotClassifier, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted.save(tmp_path / "classifier.safetensors")
    out = tmp_path / "model.onnx"
    assert main(["export", str(tmp_path / "classifier.safetensors"), "--out", str(out)]) == 0
    assert "pixels [batch, 24, 24, 3] uint8; relative difference from torch" in capsys.readouterr().out
    metadata = OnnxNetwork(out).session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata[METADATA_KEY])["fingerprint"] == network_fingerprint(fitted.network_)


@pytest.mark.parametrize("model", ["best.safetensors", "resnet18"])
def test_a_model_file_and_a_name(
    network: LWFM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    exported: list[LWFM] = []

    def export_network(network: LWFM, path: Path) -> float:
        exported.append(network)
        path.touch()
        return 0.0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lwfm.classifier.export.export_network", export_network)
    monkeypatch.setattr("lwfm.model.default.pretrained_config", lambda *_, **__: network.config)
    save_model(network, tmp_path / "best.safetensors")
    assert main(["export", model]) == 0
    assert exported[0].config.backbone == "conv4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["auto", "--out", "model.pt"], "--out must be the name of a .onnx file, not model.pt"),
        (["classifier.safetensors", "--image_size", "32"], "classifier.safetensors already determines it"),
        (["gone.safetensors"], "no model file gone.safetensors"),
    ],
    ids=["suffix", "size", "missing"],
)
def test_refusals(
    fitted: FewShotClassifier,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    fitted.save(tmp_path / "classifier.safetensors")
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "model.onnx").exists()
