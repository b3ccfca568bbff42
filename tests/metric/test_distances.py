"""The distance of relative distribution entropy, as a distance of pytorch-metric-learning."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss

from lwfm.errors import UserError
from lwfm.metric import RelativeDistributionEntropyDistance, relative_entropy, soft_histogram


def descriptors(rows: int, seed: int = 0, dim: int = 24) -> torch.Tensor:
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("form", ["product", "sum"])
@pytest.mark.parametrize("power", [1, 2])
def test_theta_0_is_the_euclidean_distance_to_the_bit(form: str, power: int) -> None:
    x, y = descriptors(5).requires_grad_(), descriptors(7, seed=1)
    ours = RelativeDistributionEntropyDistance(0.0, form, power=power)  # type: ignore[arg-type]
    plain = LpDistance(power=power)
    assert torch.equal(ours(x, y), plain(x, y))
    assert torch.equal(ours.pairwise_distance(x, y[:5]), plain.pairwise_distance(x, y[:5]))
    (of_ours,) = torch.autograd.grad(ours(x, y).sum(), x)
    (of_plain,) = torch.autograd.grad(plain(x, y).sum(), x)
    assert torch.equal(of_ours, of_plain)


@pytest.mark.parametrize("form", ["product", "sum"])
def test_the_matrix_holds_the_pairwise_distances(form: str) -> None:
    x, y = (torch.nn.functional.normalize(descriptors(n, seed=n)) for n in (4, 6))
    distance = RelativeDistributionEntropyDistance(0.7, form)  # type: ignore[arg-type]
    matrix = distance(x, y)
    for i in range(4):
        pairs = distance.pairwise_distance(x[i].expand(6, -1), y)
        torch.testing.assert_close(matrix[i], pairs, rtol=1e-4, atol=1e-5)


def test_the_entropy_makes_distances_larger_and_is_not_symmetric() -> None:
    x = torch.nn.functional.normalize(descriptors(6).abs() ** 3)
    plain, weighted = LpDistance()(x), RelativeDistributionEntropyDistance(1.0)(x)
    apart = ~torch.eye(6, dtype=torch.bool)
    assert (weighted[apart] >= plain[apart]).all()
    assert not torch.allclose(weighted, weighted.T)


@given(st.integers(0, 1000), st.integers(2, 20))
def test_relative_entropy_is_not_negative_and_0_for_equal(seed: int, bins: int) -> None:
    p, q = (soft_histogram(descriptors(3, seed + n), bins) for n in (0, 1))
    assert (relative_entropy(p, q) >= -1e-6).all()
    assert torch.equal(relative_entropy(p, p), torch.zeros(3))


@given(st.integers(0, 1000), st.integers(2, 20))
def test_histograms_sum_to_1(seed: int, bins: int) -> None:
    histogram = soft_histogram(descriptors(3, seed) * 2, bins)
    assert histogram.shape == (3, bins)
    assert (histogram >= 0).all()
    torch.testing.assert_close(histogram.sum(1), torch.ones(3))


def test_gradients_are_those_of_finite_differences() -> None:
    x, y = (descriptors(3, seed, dim=6).double().requires_grad_() for seed in (0, 1))
    distance = RelativeDistributionEntropyDistance(0.5, bins=4, power=2)
    assert torch.autograd.gradcheck(lambda a, b: distance(a, b), (x, y))


def test_losses_of_the_library_take_it() -> None:
    x = descriptors(8).requires_grad_()
    loss = TripletMarginLoss(0.5, distance=RelativeDistributionEntropyDistance(1.0))(x, torch.arange(8) % 2)
    loss.backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [({"theta": -1.0}, "theta >= 0"), ({"bins": 1}, "bins >= 2"), ({"form": "mean"}, "form must be one of")],
    ids=["theta", "bins", "form"],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RelativeDistributionEntropyDistance(**options)  # type: ignore[arg-type]
