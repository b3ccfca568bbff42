"""Generated windows resemble those given, and repeat."""

from __future__ import annotations

import pytest
import torch

from lwfm.errors import UserError
from lwfm.metric.generation import WGANGP1d


@pytest.fixture(scope="module")
def windows() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    wave = torch.sin(torch.arange(16) * 0.8 + 6 * torch.rand(24, 1, generator=generator))
    return torch.stack([5 + wave, 100 + 20 * wave], dim=1)


@pytest.fixture(scope="module")
def trained(windows: torch.Tensor) -> WGANGP1d:
    return WGANGP1d(steps=40, batch_size=16, accelerator="cpu").fit(windows)


def test_samples_have_the_range_and_relation_of_the_channels(trained: WGANGP1d) -> None:
    made = trained.sample(200)
    torch.testing.assert_close(made.mean((0, 2)), torch.tensor([5.0, 100.0]), rtol=0.1, atol=0.5)
    both = torch.stack([made[:, 0].flatten(), made[:, 1].flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.5
    assert made.std(0).min() > 0  # not one window over and over


def test_a_seed_repeats_to_the_bit(trained: WGANGP1d, windows: torch.Tensor) -> None:
    state = torch.get_rng_state()
    again = WGANGP1d(steps=40, batch_size=16, accelerator="cpu").fit(windows)
    assert torch.equal(again.sample(5), trained.sample(5))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("length", [9, 12, 15])
def test_any_length_is_made(length: int) -> None:
    assert WGANGP1d(steps=1).fit(torch.randn(4, 2, length)).sample(3).shape == (3, 2, length)


@pytest.mark.parametrize("shape", [(1, 2, 16), (20, 16)], ids=["one", "flat"])
def test_wrong_windows_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="at least two windows"):
        WGANGP1d().fit(torch.zeros(shape))


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(UserError, match="steps must be a whole number"):
        WGANGP1d(steps=0)
