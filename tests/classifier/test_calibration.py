"""Calibration on held-out shots: a known temperature is recovered; few shots do not give certainty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lwfm.classifier.calibration import LEAST_ANSWERS, calibrate, fit_temperature, hold_out, softmax

if TYPE_CHECKING:
    import numpy.typing as npt

    Indices = npt.NDArray[np.int64]


@pytest.mark.parametrize("temperature", [0.05, 1.0, 8.0])
@pytest.mark.parametrize("way", [2, 20])
def test_a_known_temperature_is_recovered(temperature: float, way: int) -> None:
    random = np.random.default_rng(0)
    true_logits = 2 * random.normal(size=(20_000, way))
    labels = (softmax(true_logits).cumsum(-1) < random.random((20_000, 1))).sum(-1)
    assert fit_temperature(true_logits * temperature, labels) == pytest.approx(temperature, rel=0.03)


def test_a_few_right_answers_do_not_make_certainty() -> None:
    labels = np.arange(12) % 3
    logits = np.eye(3)[labels]
    scale = 1 / fit_temperature(logits, labels)
    wrong = 2 / (np.exp(scale) + 2)  # probability of the two other classes
    assert 12 * wrong == pytest.approx(4 * (1 - 1 / scale), rel=1e-6)  # likelihood and prior balance
    assert 1 < scale < 3


def test_fewer_answers_stay_nearer_to_the_own_temperature() -> None:
    logits, labels = np.tile(np.eye(2), (20, 1)), np.tile([0, 1], 20)
    temperatures = [fit_temperature(logits[:n], labels[:n]) for n in (0, 2, 10, 40)]
    assert temperatures[0] == pytest.approx(1)
    assert temperatures == sorted(temperatures, reverse=True)


@pytest.mark.parametrize(
    "logits", [np.zeros((12, 3)), -10 * np.tile(np.eye(3), (4, 1))], ids=["flat", "wrong"]
)
def test_useless_answers_give_a_finite_temperature(logits: npt.NDArray[Any]) -> None:
    temperature = fit_temperature(logits, np.arange(12) % 3)
    assert 1e-3 <= temperature <= 1e3
    assert softmax(logits / temperature).max() < 0.4


@pytest.mark.parametrize(
    ("shots", "folds"), [((2,) * 5, 2), ((3, 9), 3), ((20, 30, 40), 5), ((2, 2000), 2)], ids=str
)
def test_every_class_keeps_a_shot(shots: tuple[int, ...], folds: int) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(shots)), shots))
    splits = hold_out(labels)
    assert len(splits) == folds
    asked = np.concatenate([rows for _, rows in splits])
    assert len(set(asked.tolist())) == len(asked) == min(len(labels), 512)
    for kept, held in splits:
        assert not set(kept.tolist()) & set(held.tolist())
        assert set(labels[kept].tolist()) == set(range(len(shots)))


@pytest.mark.parametrize("shots", [(1, 50), (2,) * (LEAST_ANSWERS // 2 - 1)], ids=["one-shot", "few"])
def test_too_few_shots_are_not_calibrated(shots: tuple[int, ...]) -> None:
    labels = np.repeat(np.arange(len(shots)), shots)
    assert hold_out(labels) == []
    assert calibrate(_never, labels) == (1.0, 0)


def _never(kept: Indices, asked: Indices) -> npt.NDArray[Any]:
    raise AssertionError("nothing is to be classified")


def test_it_classifies_held_out_shots_by_the_others() -> None:
    labels = np.arange(12) % 2
    asked: list[int] = []

    def classify(kept: Indices, held: Indices) -> npt.NDArray[Any]:
        assert not set(kept.tolist()) & set(held.tolist())
        assert set(labels[kept].tolist()) == {0, 1}
        asked.extend(held.tolist())
        return np.asarray(np.eye(2)[held % 2])

    temperature, answers = calibrate(classify, labels)
    assert answers == 12
    assert sorted(asked) == list(range(12))
    assert temperature < 1
