"""A session with a tiny network: two examples of five classes, and four other images of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from lwfm import FewShotClassifier
from lwfm.app import Session
from lwfm.model import LWFM, ModelConfig

if TYPE_CHECKING:
    from pathlib import Path

TINY = ModelConfig(backbone="conv4", image_size=24, feature_size=1, embedding=False)


@pytest.fixture(scope="module")
def network() -> LWFM:
    torch.manual_seed(0)
    return LWFM(TINY).eval()


@pytest.fixture
def empty(network: LWFM, tmp_path: Path) -> Session:
    return Session(FewShotClassifier(network, progress=False), tmp_path)


@pytest.fixture(scope="module")
def by_class(tiny_images: Path) -> dict[str, list[Path]]:
    """Six images of five classes."""
    return {folder.name: sorted(folder.iterdir()) for folder in sorted((tiny_images / "val").iterdir())}


@pytest.fixture
def session(empty: Session, by_class: dict[str, list[Path]]) -> Session:
    for name, paths in by_class.items():
        assert empty.add_examples(name, paths[:2]) == []
        assert empty.add_images(paths[2:]) == []
    return empty
