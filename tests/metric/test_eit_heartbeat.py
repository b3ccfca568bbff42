"""The heartbeat separator: as an estimator of scikit-learn, on recordings, and from the command line."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from torch import nn

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import EITHeartbeatSeparator, FeatureMatchingLoss
from lwfm.metric.data.eit import Recording
from lwfm.metric.encoders import ConvEncoder1d, SeparationUNet1d
from lwfm.metric.evaluation import SIMULATED
from lwfm.metric.systems.eit_comparison import by_beats, by_components, power_ratio, truth_scores
from lwfm.metric.systems.eit_heartbeat import heart_rate, split_bands

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("pyeit")
from lwfm.metric.simulation.thorax_eit import Chest, simulate_chest

RATE = 13.0
QUICK: dict[str, Any] = {"encoder_steps": 60, "steps": 120}
TINY = "encoder_steps: 2, steps: 2"


def pixels(seed: int, breathing: bool, frames: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return 6 pixels [T, 2, 3] and the part of the heart in them."""
    random = np.random.default_rng(seed)
    time = np.arange(frames) / RATE
    beat = 2 * np.pi * 1.1 * time + 0.3 * np.sin(0.4 * time)
    pulse = np.sin(beat) + 0.5 * np.sin(2 * beat + 1) + 0.25 * np.sin(3 * beat + 2)
    breath = 2 * np.pi * 0.27 * time
    wave = 8 * np.cos(breath) + 3 * np.cos(2 * breath) + 1.5 * np.cos(3 * breath + 1) + np.cos(4 * breath + 2)
    heart = pulse[:, None] * np.linspace(0.5, 1, 6)
    values = (
        heart + breathing * wave[:, None] * np.linspace(1, 0.6, 6) + 0.02 * random.normal(size=(frames, 6))
    )
    return values.reshape(frames, 2, 3), heart


def recording(seed: int, breathing: bool, frames: int = 400) -> Recording:
    values, _ = pixels(seed, breathing, frames)
    return Recording(f"r{seed}", RATE, values.reshape(frames, 6).astype(np.float32), (2, 3))


@pytest.fixture(scope="module")
def fitted() -> EITHeartbeatSeparator:
    return EITHeartbeatSeparator(**QUICK).fit_recordings([recording(0, False)], [recording(1, True)])


def test_the_heart_is_nearer_to_the_truth_than_the_band(fitted: EITHeartbeatSeparator) -> None:
    given, truth = recording(1, True), pixels(1, True)[1]
    parts = fitted.separate(given)
    np.testing.assert_allclose(sum(parts), given.frames - given.frames.mean(0), atol=1e-4)
    band, _ = split_bands(given.frames, RATE, fitted.heart_)
    inner = slice(40, -40)
    found, filtered = (truth_scores(part[inner], truth[inner]) for part in (parts.heart, band))
    assert found["relative error"] < 0.7 * filtered["relative error"]
    assert found["correlation"] > filtered["correlation"]
    assert power_ratio(parts.heart, given.frames, RATE) > power_ratio(band, given.frames, RATE) + 3
    assert fitted.heart_ == pytest.approx(1.1, abs=0.05)


def test_the_same_seed_repeats_to_the_bit() -> None:
    separator = EITHeartbeatSeparator(encoder_steps=3, steps=3)
    first = separator.fit_recordings([recording(0, False)], [recording(1, True)]).separate(recording(1, True))
    again = clone(separator).fit_recordings([recording(0, False)], [recording(1, True)])
    np.testing.assert_array_equal(again.separate(recording(1, True)).heart, first.heart)


def test_a_saved_separator_answers_as_before(fitted: EITHeartbeatSeparator, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model.safetensors")
    loaded = EITHeartbeatSeparator.load(tmp_path / "model.safetensors")
    assert (loaded.get_params(), loaded.heart_) == (fitted.get_params(), fitted.heart_)
    expected = fitted.separate(recording(2, True)).heart
    np.testing.assert_array_equal(loaded.separate(recording(2, True)).heart, expected)


def test_windows_are_told_by_whether_the_breath_was_held(fitted: EITHeartbeatSeparator) -> None:
    held, _ = fitted._windows(recording(3, False))
    breathing, _ = fitted._windows(recording(4, True))
    assert fitted.predict(held).mean() > 0.9
    assert fitted.predict(breathing).mean() < 0.1


def test_the_network_sees_the_breathing_band_alone() -> None:
    network = SeparationUNet1d()
    rows = torch.randn(3, 2, 32)
    torch.testing.assert_close(network(rows)[:, 0], rows[:, 0])  # untrained, the first channel as it is
    nn.init.normal_(network.leave.weight)
    foreign = network(rows)[:, 1]
    rows[:, 0] += 1
    torch.testing.assert_close(network(rows)[:, 1], foreign)
    torch.testing.assert_close(network(rows).sum(1), rows[:, 0])


def test_powers_of_the_loss_are_those_of_waves_in_their_band() -> None:
    time = torch.arange(128.0)
    slow, fast = torch.sin(2 * torch.pi * 0.02 * time), torch.sin(2 * torch.pi * 0.3 * time)
    options: dict[str, Any] = {"low": 0.08, "high": 0.15, "matching": 0}
    reference = torch.zeros(1, 4)
    loss = FeatureMatchingLoss(nn.Identity(), reference, **options)
    right, wrong = torch.stack([fast, slow])[None], torch.stack([slow, fast])[None]
    assert float(loss(right)) == pytest.approx(0, abs=1e-3)
    assert float(loss(wrong)) == pytest.approx(0.5 + 0.5, rel=0.05)
    power = FeatureMatchingLoss(nn.Identity(), reference, **options, a1=0, a2=0, a3=2)
    assert float(power(right)) == pytest.approx(2 * 0.5, rel=0.05)


def test_the_encoder_is_matched_and_not_trained() -> None:
    torch.manual_seed(0)
    encoder = ConvEncoder1d(64)
    loss = FeatureMatchingLoss(encoder, torch.ones(1, 32), low=0.1, high=0.2).train()
    parts = torch.randn(4, 2, 64, requires_grad=True)
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    loss(parts).backward()
    assert parts.grad is not None
    assert (parts.grad[:, 0].abs().sum(1) > 0).all()
    assert all(each.grad is None for each in encoder.parameters())
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())


def test_the_loss_has_the_gradient_of_finite_differences() -> None:
    torch.manual_seed(1)
    loss = FeatureMatchingLoss(
        nn.Linear(16, 3).double(), torch.zeros(1, 3).double(), low=0.1, high=0.2, a3=0.5
    )
    parts = torch.randn(2, 2, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (parts,))


@pytest.mark.parametrize(
    ("rows", "labels", "options", "message"),
    [
        (np.zeros((6, 2, 64)), np.arange(5) > 2, {}, "6 rows need as many labels"),
        (np.zeros((6, 64)), np.arange(6) > 2, {}, r"windows must be an array \[N, 2, 64\]"),
        (np.zeros((6, 2, 32)), np.arange(6) > 2, {}, r"windows must be an array \[N, 2, 64\]"),
        (np.zeros((6, 2, 64)), np.zeros(6, bool), {}, "labels must be true for held breath"),
        (np.full((6, 2, 64), np.nan), np.arange(6) > 2, {"heart": 1.0}, "NaN"),
        (np.zeros((6, 2, 64)), np.arange(6) > 2, {"loss": "triplet"}, "loss must be one of contrastive"),
        (np.zeros((6, 2, 64)), np.arange(6) > 2, {"heart": 9.0}, "heart must be a number from 0.3 to 5.2"),
        (np.zeros((6, 2, 64)), np.arange(6) > 2, {"a1": -1}, "a1 must be a number of at least 0"),
    ],
    ids=["labels", "flat", "window", "one-class", "nan", "loss", "heart", "a1"],
)
def test_wrong_input_is_refused(
    rows: np.ndarray, labels: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        EITHeartbeatSeparator(**{**QUICK, **options}).fit(rows, labels)


def test_recordings_that_do_not_do_are_refused() -> None:
    separator = EITHeartbeatSeparator(encoder_steps=1, steps=1)
    with pytest.raises(UserError, match="give the heart rate: the option heart"):
        separator.fit_recordings([], [recording(1, True)])
    with pytest.raises(UserError, match="r1 has 40 frames, fewer than a window of 64"):
        separator.fit_recordings([recording(0, False)], [recording(1, True, frames=40)])
    with pytest.raises(UserError, match="at least one recording of breathing"):
        separator.fit_recordings([recording(0, False)], [])


def test_the_quietest_windows_stand_in_for_held_breath() -> None:
    values = np.concatenate([recording(0, False).frames, recording(1, True).frames])
    mixed = Recording("mixed", RATE, values)
    separator = EITHeartbeatSeparator(encoder_steps=1, steps=1, heart=1.1)
    _, quiet = separator.fit_recordings([], [mixed])._windows(mixed)
    of_window = quiet.reshape(-1, 6)[:, 0]
    assert of_window[: len(of_window) // 2].sum() > 5 * of_window[len(of_window) // 2 :].sum()


def test_baselines_find_the_heart() -> None:
    given, truth = recording(1, True), pixels(1, True)[1]
    from sklearn.decomposition import PCA

    assert truth_scores(by_beats(given, 1.1, 0.6)[40:-40], truth[40:-40])["correlation"] > 0.5
    kept = by_components(PCA(3, random_state=0), given, 1.1, 0.6)
    assert kept.shape == (400, 6)
    assert heart_rate(truth, RATE) == pytest.approx(1.1, abs=0.03)


@pytest.fixture(scope="module")
def chest() -> Chest:
    return simulate_chest(0, seconds=40, held=12)


def test_a_seed_repeats_a_chest_to_the_bit(chest: Chest) -> None:
    again = simulate_chest(0, seconds=40, held=12)
    assert again.breathing.frames.tobytes() == chest.breathing.frames.tobytes()
    assert again.heart.tobytes() == chest.heart.tobytes()
    assert simulate_chest(1, seconds=40, held=12).heart.tobytes() != chest.heart.tobytes()


def test_simulated_breathing_reaches_the_heart_band(chest: Chest) -> None:
    changes = chest.breathing.frames - chest.breathing.frames.mean(0)
    assert 0.03 < chest.heart.std() / changes.std() < 0.2
    band, _ = split_bands(chest.breathing.frames, RATE, 1.1)
    truth, _ = split_bands(chest.heart, RATE, 1.1)
    assert 0.2 < truth_scores(band[40:-40], truth[40:-40])["correlation"] < 0.9
    held = chest.held.frames - chest.held.frames.mean(0)
    assert held.std() < 2 * chest.heart.std()


def test_the_commands_fit_and_predict(chest: Chest, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for each in (chest.held, chest.breathing):
        np.save(data / f"{each.name}.npy", each.frames)
    model, out = tmp_path / "eit.safetensors", tmp_path / "answers" / "traces.csv"
    options = ["--options", f"{{held: [held], {TINY}}}"]
    words = ["fit", "eit_heartbeat", "--root", str(data), "--out", str(model), *options]
    assert main(["metric", *words]) == 0
    figure = tmp_path / "figure.png"
    given = str(data / "breathing.npy")
    assert main(["metric", "predict", str(model), given, "--out", str(out), "--figure", str(figure)]) == 0
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == len(chest.breathing.frames)
    assert list(rows[0]) == ["recording", "seconds", "heart", "breath"]
    parts = [np.load(out.parent / f"breathing-{part}.npy") for part in ("heart", "breath")]
    expected = chest.breathing.frames - chest.breathing.frames.mean(0)
    np.testing.assert_allclose(parts[0] + parts[1], expected, atol=1e-5)
    with Image.open(out.parent / "breathing-heart.gif") as animation:
        assert animation.size == (256, 256)
        assert getattr(animation, "n_frames", 1) == 16
    assert figure.stat().st_size > 1000


def test_recordings_are_evaluated_without_truth(tmp_path: Path) -> None:
    for name, breathing in (("still", False), ("deep", True)):
        np.save(tmp_path / f"{name}.npy", pixels(1, breathing)[0])
    out = tmp_path / "result.json"
    words = ["evaluate", "eit_heartbeat", "--root", str(tmp_path), "--seeds", "1", "--out", str(out)]
    assert main(["metric", *words, "--options", f"{{held: [still], {TINY}}}"]) == 0
    content = json.loads(out.read_text())
    assert content["primary"] == "heart to breath (dB)"
    assert content["simulated"] is None


def test_without_root_it_is_simulated_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    options = ["--options", f"{{{TINY}, seconds: 20}}"]
    assert main(["metric", "evaluate", "eit_heartbeat", "--seeds", "1", *options, "--out", str(out)]) == 0
    assert SIMULATED in capsys.readouterr().out
    content = json.loads(out.read_text())
    assert content["simulated"] == SIMULATED
    assert {"correlation", "relative error"} <= set(content["rows"][0]["scores"])


def test_an_unknown_held_recording_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "deep.npy", pixels(1, True)[0])
    words = ["evaluate", "eit_heartbeat", "--root", str(tmp_path), "--seeds", "1"]
    assert main(["metric", *words, "--options", "{held: [still]}"]) == 2
    assert "has no recording still: there are deep" in capsys.readouterr().err
