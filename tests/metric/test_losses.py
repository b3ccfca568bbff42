"""Losses: their values by hand, and gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.reducers import MeanReducer

from lwfm.metric import LinearCrossEntropy, RelativeDistributionEntropyDistance, SquaredContrastiveLoss


def test_contrastive_is_half_the_squares() -> None:
    points = torch.tensor([[0.0], [0.3], [0.7]])
    plain = LpDistance(normalize_embeddings=False)
    loss = SquaredContrastiveLoss(1.0, distance=plain, reducer=MeanReducer())
    value = loss(points, torch.tensor([0, 0, 1]))
    positive = 0.3**2 / 2
    negative = ((1 - 0.7) ** 2 / 2 + (1 - 0.4) ** 2 / 2) / 2
    assert float(value) == pytest.approx(positive + negative, rel=1e-6)


@pytest.mark.parametrize("theta", [0.0, 0.5])
def test_gradients_are_those_of_finite_differences(theta: float) -> None:
    torch.manual_seed(1)
    x = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    loss = SquaredContrastiveLoss(1.2, distance=RelativeDistributionEntropyDistance(theta, bins=4))
    assert torch.autograd.gradcheck(lambda e: loss(e, torch.arange(6) % 2), (x,))


def test_batches_of_one_class_and_of_single_images_are_finite() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    for labels in (torch.zeros(4, dtype=torch.long), torch.arange(4)):
        assert torch.isfinite(SquaredContrastiveLoss()(x, labels))


def test_cross_entropy_trains_its_classifier() -> None:
    loss = LinearCrossEntropy(5, 3)
    loss(torch.randn(4, 5), torch.tensor([0, 1, 2, 0])).backward()
    assert loss.classifier.weight.grad is not None
