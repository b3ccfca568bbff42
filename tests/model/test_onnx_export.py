"""Networks as ONNX files: outputs, metadata, refusals."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch

from lwfm._common.digests import digest_arrays
from lwfm.data.normalization import Normalization
from lwfm.errors import UserError
from lwfm.model import LWFM, ModelConfig, save_model
from lwfm.model.onnx_export import (
    METADATA_KEY,
    DifferentOutputsError,
    PixelNetwork,
    export_network,
    network_fingerprint,
    output_names,
)
from lwfm.model.onnx_session import OnnxNetwork

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

OWN = Normalization(mean=(0.3, 0.4, 0.5), std=(0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def network() -> LWFM:
    """A network with an embedding that is not zero and layers of two sizes."""
    torch.manual_seed(0)
    network = LWFM(ModelConfig(backbone="conv4", image_size=32, feature_size=(3, 2)), ("a", "b"))
    for weight in network.head.embeddings.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return network.eval()


@pytest.fixture(scope="module")
def exported(network: LWFM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert export_network(network, path, OWN) < 1e-5
    return path


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_outputs_are_torch_s_for_any_batch(network: LWFM, exported: Path, batch: int) -> None:
    pixels = torch.randint(256, (batch, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = PixelNetwork(network, OWN)(pixels)
    found = OnnxNetwork(exported)
    assert found.outputs == output_names(network)
    assert found.outputs[-1] == "embedded_squares.1"
    for one, other in zip(found(pixels, found.outputs), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    (alone,) = found(pixels, ["maps.1"])
    torch.testing.assert_close(alone, expected[1], rtol=1e-4, atol=1e-5)


def test_metadata_describe_the_network(network: LWFM, exported: Path) -> None:
    metadata = OnnxNetwork(exported).session.get_modelmeta().custom_metadata_map
    described = json.loads(metadata[METADATA_KEY])
    assert described["model"]["config"]["backbone"] == "conv4"
    assert described["preprocessing"] == {
        "color": "RGB, 8 bits a channel, upright",
        "resize": "shorter side, bilinear with antialiasing (Pillow's BILINEAR)",
        "resized_side": 35,
        "crop": "center",
        "image_size": 32,
        "mean": list(OWN.mean),
        "std": list(OWN.std),
    }
    assert described["layers"] == [{"channels": 64, "side": 3}, {"channels": 64, "side": 2}]
    assert described["outputs"] == output_names(network)


def test_the_fingerprint_is_that_of_a_model_file(network: LWFM, exported: Path, tmp_path: Path) -> None:
    """Without torch: a program that has the file alone can compute it."""
    save_model(network, tmp_path / "model.safetensors")
    with safetensors.safe_open(tmp_path / "model.safetensors", framework="np") as file:
        description = json.loads(file.metadata()["lwfm"])
    described = {name: description[name] for name in ("config", "classes", "normalization")}
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    metadata = OnnxNetwork(exported).session.get_modelmeta().custom_metadata_map
    fingerprint = json.loads(metadata[METADATA_KEY])["fingerprint"]
    assert fingerprint == digest_arrays(described, dict(sorted(tensors.items())))
    other = LWFM(network.config, network.classes)
    assert network_fingerprint(other) != fingerprint


def test_other_outputs_than_torch_s_are_refused(
    network: LWFM, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"earlier")
    monkeypatch.setattr("lwfm.model.onnx_export.relative_difference", lambda *_: 0.01)
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: _Exported(exported))
    with pytest.raises(DifferentOutputsError, match=r"conv4 as ONNX differs from torch by 1\.0e-02"):
        export_network(network, target)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert target.read_bytes() == b"earlier"


class _Exported:
    """What torch's exporter returns, of a file that is there."""

    def __init__(self, path: Path) -> None:
        self.path, self.model = path, self
        self.metadata_props: dict[str, str] = {}

    def save(self, path: Path, *, external_data: bool) -> None:
        assert not external_data
        path.write_bytes(self.path.read_bytes())


def test_a_network_that_onnx_cannot_express_is_named(
    network: LWFM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no translation of aten::strange\nand much more")

    monkeypatch.setattr("torch.onnx.export", refuse)
    with pytest.raises(
        UserError, match=r"conv4 cannot be exported to ONNX: no translation of aten::strange;"
    ):
        export_network(network, tmp_path / "model.onnx")


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_before_any_work(
    network: LWFM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("torch.onnx.export", None)
    with pytest.raises(UserError, match=rf"{package}.*lwfm\[fast\]"):
        export_network(network, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "cannot read"), (b"no protobuf", "cannot read"), (None, "cannot read")],
    ids=["empty", "damaged", "missing"],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(UserError, match=rf"{message} .*x\.onnx"):
        OnnxNetwork(tmp_path / "x.onnx")


def test_an_unknown_provider_is_named(exported: Path) -> None:
    with pytest.raises(UserError, match=r"no provider NoSuchProvider, only .*CPUExecutionProvider"):
        OnnxNetwork(exported, ["NoSuchProvider"])


def test_a_run_takes_one_of_torch_s_threads(exported: Path) -> None:
    network = OnnxNetwork(exported)
    assert network.session.get_session_options().intra_op_num_threads == 1
    assert network.threads == torch.get_num_threads()


def test_arrays_that_are_not_contiguous_are_read(network: LWFM, exported: Path) -> None:
    pixels = torch.randint(256, (4, 32, 32, 3), dtype=torch.uint8)
    found = OnnxNetwork(exported)
    (every_second,) = found(pixels[::2], ["maps.0"])
    np.testing.assert_allclose(every_second, found(pixels, ["maps.0"])[0][::2], rtol=1e-4, atol=1e-5)
