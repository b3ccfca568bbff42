"""The lock of a run folder: one run at a time writes there."""

from __future__ import annotations

import json
import os
import platform
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def exclusive_run(path: Path) -> Iterator[None]:
    """Hold the lock file of a run folder, which names this process and its machine.

    The operating system holds the lock and releases it when the process ends, however it ends; the content of
    the file only serves the messages. It is emptied at the end of a run.

    Parameters
    ----------
    path : Path
        The lock file; its folder exists.

    Raises
    ------
    UserError
        Another run holds the lock; the message names its process and machine.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"{path.parent} is in use by another run{_holder(path)}: wait until it has ended, or choose "
            "another folder for --out"
        ) from error
    except OSError as error:
        raise UserError(f"cannot lock {path}: {error.strerror or error}") from error
    try:
        if before := _holder(path):
            warnings.warn(
                f"the run before this one in {path.parent}{before} was killed: its lock is taken over",
                stacklevel=4,
            )
        _write(path, json.dumps({"process": os.getpid(), "machine": platform.node()}))
        yield
    finally:
        _write(path, "")
        lock.release()


def _holder(path: Path) -> str:
    """Return which process wrote the lock file, in words; empty when that cannot be read."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        described = json.loads(path.read_text(encoding="utf-8"))
        return f" (process {described['process']} on {described['machine']})"
    return ""


def _write(path: Path, text: str) -> None:
    with suppress(OSError):  # a full disk must not hide why a run ended
        path.write_text(text, encoding="utf-8")
