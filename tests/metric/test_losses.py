"""Losses: their values by hand, and gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.reducers import MeanReducer

from lwfm.metric import (
    JointLoss,
    LinearCrossEntropy,
    NormalTriplet,
    RelativeDistributionEntropyDistance,
    SquaredContrastiveLoss,
)


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


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_joint_loss_is_error_and_triplets_by_hand(weight: float) -> None:
    rows = torch.tensor([[0.0, 1.0], [0.2, 3.0], [0.5, 100.0]])  # an embedding of one value, and one channel
    value = JointLoss(1, NormalTriplet(1.0), weight=weight)(rows, torch.tensor([0, 0, 1]))
    triplets = ((0.04 - 0.25 + 1) + (0.04 - 0.09 + 1)) / 2
    assert float(value) == pytest.approx(2 + weight * triplets, rel=1e-6)


def test_the_joint_loss_has_the_gradient_of_finite_differences() -> None:
    torch.manual_seed(1)
    rows = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 0])
    assert torch.autograd.gradcheck(lambda x: JointLoss(3, NormalTriplet(2.0))(x, labels), (rows,))


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [0, 1, 1]], ids=["normal", "faults", "one-normal"])
def test_batches_without_triplets_have_the_error_alone(labels: list[int]) -> None:
    rows = torch.rand(3, 4, requires_grad=True)
    target = torch.tensor(labels)
    loss = JointLoss(2, NormalTriplet())(rows, target)
    expected = rows[target == 0, 2:].mean() if (target == 0).any() else torch.tensor(0.0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert torch.isfinite(rows.grad).all() if rows.grad is not None else False


def test_the_triplet_term_has_a_gradient_into_normal_and_faulty_rows() -> None:
    rows = torch.tensor([[0.0], [0.1], [0.3]], requires_grad=True)
    NormalTriplet()(rows, torch.tensor([0, 0, 1])).backward()
    assert rows.grad is not None
    assert (rows.grad.abs() > 0).all()
