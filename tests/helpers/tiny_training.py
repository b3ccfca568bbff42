"""A training run small enough for the tests: seconds, on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lwfm.model import ModelConfig
from lwfm.training import EpisodeConfig, TrainingSummary, train
from lwfm.training.pretraining import ValidationConfig, pretrain

if TYPE_CHECKING:
    from pathlib import Path

MODEL = ModelConfig(backbone="conv4", image_size=24, feature_size=1)
EPISODES = EpisodeConfig(way=3, shot=1, queries=2, auxiliary_batch=8, train=4, validation=10)
VALIDATION = ValidationConfig(way=3, shot=1, queries=2, episodes=10)


def train_tiny(out: Path, root: Path, **options: Any) -> TrainingSummary:
    """Train two epochs on the images in ``root``; ``options`` are those of :func:`lwfm.training.train`."""
    return train(out, **(_settings(root) | {"episodes": EPISODES} | options))


def pretrain_tiny(out: Path, root: Path, **options: Any) -> TrainingSummary:
    """Pretrain two epochs of four batches; ``options`` are those of ``pretrain``."""
    return pretrain(out, **(_settings(root) | {"validation": VALIDATION, "batch": 8} | options))


def _settings(root: Path) -> dict[str, Any]:
    return {
        "data": "folder",
        "root": root,
        "model": MODEL,
        "epochs": 2,
        "accelerator": "cpu",
        "progress": False,
    }
