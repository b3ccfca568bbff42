"""Two tiny networks with their exported files: one centered over all layers, one embedded layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch

from lwfm.model import LWFM, ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

CONFIGS = {
    "plain": ModelConfig(backbone="conv4", image_size=24, feature_size=2, embedding=False),
    "embedded": ModelConfig(backbone="conv4", image_size=24, feature_size=(3, 2), attention_temperature=2.0),
}


class Exported(NamedTuple):
    """A network and its file."""

    network: LWFM
    path: Path


@pytest.fixture(scope="session", params=CONFIGS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from lwfm.model.onnx_export import export_network

    torch.manual_seed(0)
    network = LWFM(CONFIGS[request.param]).eval()
    for weight in network.head.embeddings.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    path: Path = tmp_path_factory.mktemp("lite") / "model.onnx"
    export_network(network, path)
    return Exported(network, path)


@pytest.fixture(scope="session")
def shots(tiny_images: Path) -> tuple[list[Path], list[str]]:
    """Two to four shots of five classes, in no order."""
    paths = [path for path in sorted((tiny_images / "val").glob("*/*.png")) if path.stem < "4"]
    paths = [path for number, path in enumerate(paths) if number not in (2, 3, 7)][::-1]
    return paths, [path.parent.name for path in paths]


@pytest.fixture(scope="session")
def queries(tiny_images: Path) -> list[Path]:
    return sorted((tiny_images / "test").glob("*/*.png"))
