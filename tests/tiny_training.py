"""A training run small enough for the tests: seconds, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lwfm.model import ModelConfig
from lwfm.training import EpisodeConfig, TrainingSummary, train

if TYPE_CHECKING:
    from pathlib import Path

MODEL = ModelConfig(backbone="conv4", image_size=24, feature_size=1)
EPISODES = EpisodeConfig(way=3, shot=1, queries=2, auxiliary_batch=8, train=4, validation=10)


def train_tiny(out: Path, root: Path, **options: Any) -> TrainingSummary:
    """Train two epochs on the pictures in ``root``; ``options`` are those of :func:`lwfm.training.train`."""
    settings: dict[str, Any] = {
        "data": "folder",
        "root": root,
        "model": MODEL,
        "episodes": EPISODES,
        "epochs": 2,
        "accelerator": "cpu",
        "progress": False,
    }
    return train(out, **(settings | options))
