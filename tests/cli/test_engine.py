"""`--engine` of the commands that encode images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lwfm.cli import main
from lwfm.model import LWFM, ModelConfig, save_model
from lwfm.retrieval import build_index

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytest.importorskip("usearch.index")


@pytest.fixture(scope="module")
def place(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place: Path = tmp_path_factory.mktemp("engine")
    (place / "images").symlink_to(tiny_images)
    save_model(LWFM(ModelConfig(backbone="conv4", image_size=24, feature_size=1)), place / "m.safetensors")
    build_index(tiny_images / "test", model=str(place / "m.safetensors"), out=place / "i.safetensors")
    return place


@pytest.mark.parametrize(
    "command",
    [
        "classify images/val images/test/test-0 --model m.safetensors",
        "index images/val --model m.safetensors --out j.safetensors",
        "search i.safetensors images/test/test-0/0.png",
        "evaluate --checkpoint m.safetensors --data folder --root images --queries 3 --episodes 5",
        "evaluate --checkpoint m.safetensors --data folder --root images --queries 3 --maps maps",
    ],
    ids=["classify", "index", "search", "evaluate", "stored maps"],
)
@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("onnxruntime:NoProvider", "this ONNX Runtime has no provider NoProvider"),
        ("tensorflow", "engine must be auto, torch, onnxruntime, or onnxruntime:PROVIDER"),
    ],
    ids=["provider", "engine"],
)
def test_engines_reach_the_network(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    engine: str,
    message: str,
) -> None:
    monkeypatch.chdir(place)
    assert main([*command.split(), "--engine", engine]) == 2
    assert message in capsys.readouterr().err
