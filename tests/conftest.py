"""Fixtures shared by the tests: devices, dtypes, small images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

settings.register_profile("lwfm", deadline=None, print_blob=True)
settings.load_profile("lwfm")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Exported networks of the tests, apart from the user's: `auto` takes whatever is in the cache."""
    folder: Path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LWFM_CACHE", str(folder))
        yield folder


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that operators run on."""
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The dtypes in which operators compute."""
    assert isinstance(request.param, torch.dtype)
    return request.param


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder data set of 18 classes of 6 images of 24 x 24 pixels: a color each, varied, under noise.

    The classes of `val`, on which most tests classify, are called class-0 ... class-4; the others train-0 ...
    and test-0 ...
    """
    root: Path = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split, prefix, classes in (("train", "train", 6), ("val", "class", 5), ("test", "test", 7)):
        for label in range(classes):
            folder = root / split / f"{prefix}-{label}"
            folder.mkdir(parents=True)
            color = random.uniform(60, 200, size=3)
            for number in range(6):
                varied = color + random.normal(0, 30, size=3)
                pixels = varied + random.normal(0, 40, size=(24, 24, 3))
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.png")
    return root
