"""Ctrl-C in tests: signals that arrive during a call, and problems that take long."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

needs_timers = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")

DELAY, PATIENCE = 0.2, 0.5  # seconds; calls to interrupt should take far longer than both


def product(n: int, dtype: str = "f4") -> NDArray[Any]:
    """Return i * j, on which augmenting paths are long."""
    line = np.arange(1, n + 1, dtype=dtype)
    return np.multiply.outer(line, line)


@contextlib.contextmanager
def alarms(handler: Callable[..., object], *timer: float) -> Iterator[None]:
    """Call ``handler`` after some seconds, as a signal would."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, *timer)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def check_ctrl_c_ends(call: Callable[[], object]) -> None:
    """Check that a call raises KeyboardInterrupt soon after Ctrl-C."""
    arrived: list[float] = []

    def interrupt(*_: object) -> None:
        arrived.append(time.monotonic())
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), alarms(interrupt, DELAY):
        call()
    assert arrived[0] - begin < 3 * PATIENCE  # of which what prepares the problems takes some
    assert time.monotonic() - arrived[0] < PATIENCE  # from the handler to the caller
