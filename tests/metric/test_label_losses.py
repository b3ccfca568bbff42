"""Losses of several labels: their limits to the bit, gradients, and rows without any label."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from lwfm.metric import DualWeightedMetricLoss, WeightedFocusedEuclideanLoss
from lwfm.metric.losses import LabelCrossEntropy, LabelRankingLoss

LABELS = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, -1, 0], [1, 1, 1, 1], [-1, -1, -1, -1]])
EVERY = [
    pytest.param(WeightedFocusedEuclideanLoss(), id="focused"),
    pytest.param(WeightedFocusedEuclideanLoss(0.5, balanced=False), id="focused-gamma-half"),
    pytest.param(WeightedFocusedEuclideanLoss(0.0), id="balanced"),
    pytest.param(DualWeightedMetricLoss([9, 4, 0, 1]), id="dual"),
    pytest.param(DualWeightedMetricLoss([9, 4, 0, 1], 0.1, 1.0, level="image"), id="dual-image"),
    pytest.param(DualWeightedMetricLoss([9, 4, 0, 1], level="disease"), id="dual-disease"),
    pytest.param(LabelRankingLoss(0.5), id="ranking"),
    pytest.param(LabelCrossEntropy(4).double(), id="cross-entropy"),
]


def distances(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.1 + 1.8 * torch.rand(LABELS.shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("loss", EVERY)
def test_gradients_are_those_of_finite_differences(loss: nn.Module) -> None:
    values = distances().requires_grad_()
    assert torch.autograd.gradcheck(lambda d: loss(d, LABELS), (values,))


@pytest.mark.parametrize("loss", EVERY)
@pytest.mark.parametrize("value", [0.0, 2.0])
@pytest.mark.parametrize("kind", [-1, 0, 1], ids=["unknown", "no-finding", "every-finding"])
def test_rows_of_one_kind_are_finite(loss: nn.Module, kind: int, value: float) -> None:
    values = torch.full((3, 4), value, dtype=torch.float64, requires_grad=True)
    found = loss(values, torch.full((3, 4), kind))
    found.backward()
    assert torch.isfinite(found)
    assert values.grad is not None
    assert torch.isfinite(values.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_focus_and_balance_it_is_the_contrastive_loss_to_the_bit(dtype: torch.dtype) -> None:
    values, labels = distances().to(dtype), LABELS.clamp(min=0)
    near, far = values**2, (1 - values).clamp(min=0) ** 2
    expected = (torch.where(labels == 1, near, far).sum(1) / 4).mean()
    assert torch.equal(WeightedFocusedEuclideanLoss(0.0, 1.0, balanced=False)(values, labels), expected)


def test_focused_by_hand() -> None:
    found = WeightedFocusedEuclideanLoss(2.0, 1.0)(torch.tensor([[0.8, 0.5, 1.4]]), torch.tensor([[1, 0, 0]]))
    positive, negative = 2 / 3, 1 / 3
    expected = positive * 0.4**2 * 0.8**2 + negative * 0.75**2 * 0.5**2
    assert float(found) == pytest.approx(expected / (positive + 2 * negative), rel=1e-6)


def test_unseen_labels_have_no_gradient() -> None:
    values = distances().requires_grad_()
    labels = LABELS.clone()
    labels[:, 2] = -1
    for loss in (WeightedFocusedEuclideanLoss(), DualWeightedMetricLoss([1, 1, 1, 1]), LabelRankingLoss()):
        (gradient,) = torch.autograd.grad(loss(values, labels), values)
        assert not gradient[:, 2].any()
        assert gradient.any()


def test_without_weights_the_dual_loss_is_the_sum_of_two_means_to_the_bit() -> None:
    values, labels = distances(), LABELS[:4]
    values = values[:4]
    near, far = values**2, (1 - values).clamp(min=0) ** 2
    found = DualWeightedMetricLoss([9, 4, 3, 1], temperature=math.inf, power=0.0)(values, labels)
    images, labels_ = values.new_zeros(()), values.new_zeros(())
    for row in range(4):
        for mask, terms in ((labels[row] == 1, near[row]), (labels[row] == 0, far[row])):
            images = images + (terms[mask].mean() if mask.any() else 0) / 4
    for column in range(4):
        for mask, terms in (
            (labels[:, column] == 1, near[:, column]),
            (labels[:, column] == 0, far[:, column]),
        ):
            labels_ = labels_ + (terms[mask].mean() if mask.any() else 0) / 4
    torch.testing.assert_close(found, images + labels_, rtol=1e-14, atol=0)


def test_rare_labels_weigh_more() -> None:
    weights = DualWeightedMetricLoss([100, 25, 4], power=0.5).weights
    torch.testing.assert_close(weights / weights[0], torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64))
    assert float(weights.mean()) == pytest.approx(1)


def test_a_smaller_temperature_looks_at_the_hardest_label() -> None:
    labels = torch.tensor([[1, 1, 0, 0]])
    values = torch.tensor([[0.2, 0.6, 0.3, 0.9]], dtype=torch.float64)
    hardest = DualWeightedMetricLoss([1] * 4, temperature=1e-3, level="image")(values, labels)
    assert float(hardest) == pytest.approx(0.6**2 + 0.7**2)


def test_ranking_by_hand() -> None:
    cosines = torch.tensor([[0.9, 0.8, -0.5]])
    values = (2 - 2 * cosines).sqrt()
    assert float(LabelRankingLoss(0.2)(values, torch.tensor([[1, 0, 0]]))) == pytest.approx(0.05, rel=1e-4)
