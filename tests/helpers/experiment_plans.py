"""A plan of an experiment on tiny images, for tests to change and to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

PLAN: dict[str, Any] = {
    "data": {"tiny": {"data": "folder", "queries": {1: 3, 2: 2}}},
    "seeds": [0, 1],
    "episodes": 8,
    "train": {
        "epochs": 1,
        "model": {"backbone": "conv4", "image_size": 24, "feature_size": 1},
        "episodes": {"way": 3, "queries": 2, "auxiliary_batch": 4, "train": 2, "validation": 3},
    },
    "networks": {
        "paper": {"config": "preset.yaml"},
        "prototypical": {"model": {"attention_temperature": None, "matching_weight": 0.0}},
    },
    "rows": [
        {"name": "LWFM-SPM", "network": "paper"},
        {"name": "without LWE", "network": "paper", "head": {"attention_temperature": None}},
        {"name": "nearest class mean", "network": "paper", "method": "nearest_class_mean"},
        {"name": "prototypical training", "network": "prototypical", "method": "nearest_class_mean"},
    ],
}


def write(path: Path, plan: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(plan))
    return path
