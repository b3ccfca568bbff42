"""Encoders that are joined."""

from __future__ import annotations

import torch
from torch import nn

from lwfm.metric.encoders import Ensemble


def test_squared_distances_of_an_ensemble_are_the_means_of_those_of_its_encoders() -> None:
    torch.manual_seed(0)
    encoders = [nn.Linear(6, 4) for _ in range(3)]
    rows = torch.randn(5, 6)
    each = torch.stack([torch.cdist(encoder(rows), encoder(rows)) ** 2 for encoder in encoders])
    joined = Ensemble(encoders)(rows)
    assert joined.shape == (5, 12)
    torch.testing.assert_close(torch.cdist(joined, joined) ** 2, each.mean(0), atol=1e-4, rtol=1e-4)
