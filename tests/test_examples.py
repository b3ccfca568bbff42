"""The scripts in examples/ do what they say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def set_matching() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "examples" / "set_matching.py"))


@pytest.mark.parametrize(
    ("predictions", "most_targets"), [(30, 30), (100, 20), (1, 1)], ids=["full", "few-targets", "one"]
)
def test_batched_and_looped_matching_agree(
    set_matching: dict[str, Any], predictions: int, most_targets: int
) -> None:
    logits, boxes, targets = set_matching["random_images"](8, predictions, most_targets, seed=1)
    costs = set_matching["matching_costs"](logits, boxes, targets)
    ours, theirs = (set_matching[name](costs, targets) for name in ("match", "match_by_loop"))
    for (prediction, target), (expected, rows), image in zip(ours, theirs, targets, strict=True):
        assert torch.equal(prediction, expected)  # random costs have one optimum
        assert torch.equal(target, rows)
        assert len(target) == len(image["labels"])
