"""Fixtures shared by the tests: devices, dtypes, and the skipping of tests that need a GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

settings.register_profile("lwfm", deadline=None, print_blob=True)
settings.load_profile("lwfm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what is marked ``gpu`` on a machine without one."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that operators run on."""
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The dtypes in which operators compute."""
    assert isinstance(request.param, torch.dtype)
    return request.param
