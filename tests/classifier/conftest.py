"""A tiny network, its shots and a classifier fitted to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from lwfm import FewShotClassifier
from lwfm.model import LWFM, ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

TINY = ModelConfig(backbone="conv4", image_size=24, feature_size=1, embedding=False)


@pytest.fixture(scope="module")
def network() -> LWFM:
    torch.manual_seed(0)
    return LWFM(TINY).eval()


@pytest.fixture(scope="module")
def shots(tiny_images: Path) -> tuple[list[Path], list[str]]:
    """Four shots of five classes."""
    paths = [path for path in sorted((tiny_images / "val").glob("*/*.png")) if path.stem < "4"]
    return paths, [path.parent.name for path in paths]


@pytest.fixture
def fitted(network: LWFM, shots: tuple[list[Path], list[str]]) -> FewShotClassifier:
    return FewShotClassifier(network).fit(*shots)


@pytest.fixture(scope="module")
def queries(tiny_images: Path) -> list[Path]:
    return [path for path in sorted((tiny_images / "val").glob("*/*.png")) if path.stem >= "4"]
