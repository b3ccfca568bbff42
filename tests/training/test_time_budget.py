"""`epochs: null` trains as many epochs as fit into `max_time`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lwfm.errors import UserError
from lwfm.training import OptimConfig
from lwfm.training.checkpoints import AtomicCheckpointIO
from tests.helpers.tiny_training import train_tiny

if TYPE_CHECKING:
    from pathlib import Path


def test_epochs_follow_from_the_time_of_the_first_batches(
    tiny_images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter((100.0, 122.0))  # five batches in 22 s: an epoch of four takes 17.6 s
    monkeypatch.setattr("lwfm.training.time_budget.monotonic", lambda: next(clock))
    optim = OptimConfig(decay=0.1, milestones=(0.5, 0.99))
    summary = train_tiny(tmp_path, tiny_images, epochs=None, max_time=1.0, optim=optim)
    assert (summary.epochs, summary.steps) == (3, 12)
    announced = capsys.readouterr().out
    assert "a batch takes 4.40 s: training 3 epochs of 4 batches within 1 min" in announced
    checkpoint = AtomicCheckpointIO().load_checkpoint(summary.last)
    rate = checkpoint["optimizer_states"][0]["param_groups"][0]["lr"]
    assert rate == pytest.approx(0.01 * 0.1**2), "the schedule ends with the last step"

    resumed = train_tiny(tmp_path, tiny_images, epochs=None, max_time=1.0, optim=optim, resume=True)
    assert (resumed.epochs, resumed.steps) == (3, 12), "the choice is kept"

    clock = iter((100.0, 122.0))
    with pytest.warns(UserWarning, match=r"max_time: it was 1\.0 and is now 2\.0"):
        longer = train_tiny(tmp_path, tiny_images, epochs=None, max_time=2.0, optim=optim, resume=True)
    assert (longer.epochs, longer.steps) == (6, 24), "another time, another choice"


def test_less_than_an_epoch_is_announced_as_such(
    tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((100.0, 600.0))  # two batches in 500 s
    monkeypatch.setattr("lwfm.training.time_budget.monotonic", lambda: next(clock))
    monkeypatch.setattr("lwfm.training.time_budget.WARM_UP", 1)
    monkeypatch.setattr("lwfm.training.time_budget.TIMED", 2)
    summary = train_tiny(tmp_path, tiny_images, epochs=None, max_time=1.0)
    assert (summary.epochs, summary.steps) == (1, 4)
    announced = capsys.readouterr().out
    assert "a batch takes 250.00 s: fewer than the 4 batches of an epoch within 1 min" in announced


def test_open_epochs_need_a_limit(tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --max_time, in minutes"):
        train_tiny(tmp_path / "run", tiny_images, epochs=None)
    assert not (tmp_path / "run").exists()
