"""The plan that the tests of experiments read and run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.helpers.experiment_plans import PLAN, write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "preset.yaml").write_text("data: emoji\nepochs: 7\nmodel: {matching_weight: 0.5}\n")
    return write(tmp_path / "plan.yaml", PLAN)
