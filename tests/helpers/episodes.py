"""Episodes that tests and benchmarks share: random maps, and the published code's golden data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "nn" / "golden"
GOLDEN_NAMES = sorted(path.stem for path in GOLDEN.glob("*.npz"))


@dataclass
class Episode:
    """Support maps with labels and query maps, one tensor each or one per layer."""

    support: list[Tensor]
    labels: Tensor
    query: list[Tensor]
    dims: tuple[int, ...]
    sizes: tuple[int, ...]


def random_episode(
    shots: tuple[int, ...] = (1, 1, 1),
    queries: int = 4,
    dims: tuple[int, ...] = (8, 12),
    sizes: tuple[int, ...] = (3, 3),
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    dead: float = 0.0,
) -> Episode:
    """Draw an episode with ``shots[c]`` support images of class c, labels shuffled.

    ``dead`` is the share of positions whose features are all zero, as behind a ReLU.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(shots)])
    labels = labels[torch.randperm(len(labels), generator=generator)]

    def maps(images: int) -> list[Tensor]:
        layers: list[Tensor] = []
        for C_l, F_l in zip(dims, sizes, strict=True):
            x = torch.rand(images, C_l, F_l, F_l, generator=generator, dtype=torch.float64)
            alive = torch.rand(images, 1, F_l, F_l, generator=generator) >= dead
            layers.append((x * alive).to(device, dtype))
        return layers

    return Episode(maps(len(labels)), labels.to(device), maps(queries), dims, sizes)


@dataclass
class GoldenCase:
    """One golden file: settings, and tensors by the names of the file."""

    settings: dict[str, Any]
    tensors: dict[str, Tensor]

    @property
    def labels(self) -> Tensor:
        """Class of each support image (shot-major)."""
        way: int = self.settings["way"]
        return torch.arange(len(self.tensors["support"])) % way

    def head(self, head_class: type[nn.Module]) -> nn.Module:
        """Build the head in training mode with the golden parameters."""
        settings = self.settings
        head = head_class(
            settings["dims"],
            feature_size=settings["feature_size"],
            num_classes=settings["num_class"],
            embedding=settings["learnable"],
            matching_weight=settings["matcher_prob"],
            attention_temperature=settings["temperature_attn"],
            temperature=settings["temperature"],
        )
        names = {"classifier.weight": "fc_weight", "classifier.bias": "fc_bias"}
        names |= self.embedding_names()
        head.load_state_dict({ours: self.tensors[theirs] for ours, theirs in names.items()}, strict=False)
        return head

    def embedding_names(self) -> dict[str, str]:
        """Our names of the embedding parameters -> the file's, where the file has them."""
        layers = range(len(self.settings["dims"]))
        names = {
            f"embeddings.{layer}.{index}.weight": f"embed{layer}_w{number}"
            for layer in layers
            for index, number in ((0, 1), (2, 2))
        }
        return {ours: theirs for ours, theirs in names.items() if theirs in self.tensors}


def golden_case(name: str) -> GoldenCase:
    """Read ``tests/nn/golden/<name>.npz``."""
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        tensors = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        return GoldenCase(json.loads(str(file["meta"])), tensors)
