"""Calibration on held-out shots: a known temperature is recovered; few shots do not give certainty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from lwfm.classifier.calibration import LEAST_ANSWERS, calibrate, fit_temperature, hold_out

if TYPE_CHECKING:
    from torch import Tensor


@pytest.mark.parametrize("temperature", [0.05, 1.0, 8.0])
@pytest.mark.parametrize("way", [2, 20])
def test_a_known_temperature_is_recovered(temperature: float, way: int) -> None:
    generator = torch.Generator().manual_seed(0)
    true_logits = 2 * torch.randn(20_000, way, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(true_logits.softmax(-1), 1, generator=generator).squeeze(1)
    assert fit_temperature(true_logits * temperature, labels) == pytest.approx(temperature, rel=0.03)


def test_a_few_right_answers_do_not_make_certainty() -> None:
    labels = torch.arange(12) % 3
    logits = torch.nn.functional.one_hot(labels).float()
    certainty = (logits / fit_temperature(logits, labels)).softmax(-1).max(-1).values
    torch.testing.assert_close(certainty, torch.full((12,), 13 / 14), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "logits", [torch.zeros(12, 3), -10 * torch.eye(3).repeat(4, 1)], ids=["flat", "wrong"]
)
def test_useless_answers_give_a_finite_temperature(logits: Tensor) -> None:
    temperature = fit_temperature(logits, torch.arange(12) % 3)
    assert 1e-3 <= temperature <= 1e3
    assert (logits / temperature).softmax(-1).max() < 0.4


@pytest.mark.parametrize(
    ("shots", "folds"), [((2,) * 5, 2), ((3, 9), 3), ((20, 30, 40), 5), ((2, 2000), 2)], ids=str
)
def test_every_class_keeps_a_shot(shots: tuple[int, ...], folds: int) -> None:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(shots)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    splits = hold_out(labels)
    assert len(splits) == folds
    asked = torch.cat([rows for _, rows in splits])
    assert len(set(asked.tolist())) == len(asked) == min(len(labels), 512)
    for kept, held in splits:
        assert not set(kept.tolist()) & set(held.tolist())
        assert set(labels[kept].tolist()) == set(range(len(shots)))


@pytest.mark.parametrize("shots", [(1, 50), (2,) * (LEAST_ANSWERS // 2 - 1)], ids=["one-shot", "few"])
def test_too_few_shots_are_not_calibrated(shots: tuple[int, ...]) -> None:
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(shots)])
    assert hold_out(labels) == []
    assert calibrate(_never, labels) == (1.0, 0)


def _never(kept: Tensor, asked: Tensor) -> Tensor:
    raise AssertionError("nothing is to be classified")


def test_it_classifies_held_out_shots_by_the_others() -> None:
    labels = torch.arange(12) % 2
    asked: list[int] = []

    def classify(kept: Tensor, held: Tensor) -> Tensor:
        assert not set(kept.tolist()) & set(held.tolist())
        assert set(labels[kept].tolist()) == {0, 1}
        asked.extend(held.tolist())
        return torch.eye(2)[held % 2]

    temperature, answers = calibrate(classify, labels)
    assert answers == 12
    assert sorted(asked) == list(range(12))
    assert temperature < 1
