"""Fixtures of the operators' tests."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_compiled_code_of_other_tests() -> Iterator[None]:
    """Forget compiled code after each test: torch.compile limits how often it compiles one function."""
    yield
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
