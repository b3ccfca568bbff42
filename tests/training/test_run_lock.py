"""One run at a time in a run folder."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import signal
import warnings
from typing import TYPE_CHECKING

import pytest

from lwfm.errors import UserError
from lwfm.training.modules import LWFMModule
from lwfm.training.run_lock import exclusive_run
from tests.helpers.tiny_training import train_tiny

if TYPE_CHECKING:
    from multiprocessing.synchronize import Event
    from pathlib import Path


def _hold(path: Path, held: Event, end: Event) -> None:
    """Hold the lock in a process of its own."""
    with exclusive_run(path):
        held.set()
        end.wait(60)


def test_a_folder_in_use_is_refused_before_any_image_is_read(tmp_path: Path) -> None:
    """And it is free again once the process that holds it was killed."""
    processes = multiprocessing.get_context("spawn")
    held, end = processes.Event(), processes.Event()
    out = tmp_path / "run"
    out.mkdir()
    (out / ".best-1234.part.safetensors").write_text("being written by the other run")
    holder = processes.Process(target=_hold, args=(out / "run.lock", held, end))
    holder.start()
    try:
        assert held.wait(60)
        message = rf"run is in use by another run \(process {holder.pid} on {platform.node()}\)"
        with pytest.raises(UserError, match=message):
            train_tiny(out, tmp_path / "no images are here")
        assert (out / ".best-1234.part.safetensors").is_file()
    finally:
        holder.kill()
        holder.join()
    assert holder.exitcode == -signal.SIGKILL
    with pytest.warns(UserWarning, match=rf"\(process {holder.pid} on .*\) was killed: its lock is taken"):
        _lock_and_look(out / "run.lock")


def _lock_and_look(path: Path) -> None:
    with exclusive_run(path):
        assert json.loads(path.read_text()) == {"process": os.getpid(), "machine": platform.node()}


@pytest.mark.parametrize("stop", [None, UserError("no"), KeyboardInterrupt()], ids=["end", "error", "ctrl-c"])
def test_the_lock_is_released_however_a_run_ends(
    tiny_images: Path, tmp_path: Path, stop: BaseException | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: LWFMModule) -> None:
        if stop is not None:
            raise stop

    monkeypatch.setattr(LWFMModule, "on_train_epoch_start", step)
    try:
        train_tiny(tmp_path, tiny_images, epochs=1)
    except (UserError, KeyboardInterrupt):
        assert stop is not None
    assert (tmp_path / "run.lock").read_text() == ""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _lock_and_look(tmp_path / "run.lock")


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.lock").mkdir()
    with pytest.raises(UserError, match=r"cannot lock .*run\.lock"):
        _lock_and_look(tmp_path / "run.lock")
