"""Ctrl-C during a call of lwfm.lap: it ends soon, raises what the handler raises and frees its threads."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from lwfm import lap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")

DELAY, PATIENCE = 0.2, 0.5  # seconds; every call below takes far longer than both


def product(n: int, dtype: str = "f4") -> NDArray[Any]:
    """Return i * j, on which augmenting paths are long."""
    line = np.arange(1, n + 1, dtype=dtype)
    return np.multiply.outer(line, line)


LARGE = product(5000)
MANY = np.broadcast_to(product(900), (500, 900, 900))
TINY = np.broadcast_to(np.random.default_rng(0).random((25, 25)), (1_500_000, 25, 25))
SPARSE = csr_array(product(2000, "f8"))
CALLS: dict[str, Callable[[], object]] = {
    "linear_sum_assignment": lambda: lap.linear_sum_assignment(LARGE),
    "lapjv": lambda: lap.lapjv(LARGE),
    "transposed": lambda: lap.linear_sum_assignment(LARGE.T[:, :4900]),
    "limited": lambda: lap.solve_batch(LARGE[None], cost_limit=1e7, n_threads=1),
    "one_large": lambda: lap.solve_batch(LARGE[None], n_threads=1),
    "one_large_on_two_threads": lambda: lap.solve_batch(LARGE[None], n_threads=2),
    "many": lambda: lap.solve_batch(MANY, n_threads=1),
    "many_on_two_threads": lambda: lap.solve_batch(MANY, n_threads=2),
    "many_tiny_on_two_threads": lambda: lap.solve_batch(TINY, n_threads=2),
    "large_among_tiny": lambda: lap.solve_batch([LARGE] + [product(3)] * 50, n_threads=2),
    "large_after_tiny": lambda: lap.solve_batch([product(3)] * 50 + [LARGE], n_threads=2),
    "solve_sparse": lambda: lap.solve_sparse(SPARSE),
}


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


@pytest.mark.parametrize("name", CALLS)
def test_calls_end_soon_after_ctrl_c(name: str) -> None:
    arrived: list[float] = []

    def interrupt(*_: object) -> None:
        arrived.append(time.monotonic())
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), alarms(interrupt, DELAY):
        CALLS[name]()
    assert arrived[0] - begin < 3 * PATIENCE  # of which NumPy and SciPy take some before the solver starts
    assert time.monotonic() - arrived[0] < PATIENCE  # from the handler to the caller


def test_the_threads_serve_the_next_call() -> None:
    costs = np.random.default_rng(1).random((3000, 9, 9))
    expected = lap.solve_batch(costs, n_threads=1)
    for name in ("many_on_two_threads", "one_large_on_two_threads"):
        with pytest.raises(KeyboardInterrupt), alarms(signal.default_int_handler, DELAY):
            CALLS[name]()
        before = threading.active_count()
        actual = lap.solve_batch(costs, n_threads=2)
        assert threading.active_count() == before
        np.testing.assert_array_equal(actual[0], expected[0])
        np.testing.assert_array_equal(actual[1], expected[1])


@pytest.mark.parametrize("n_threads", [1, 2])
def test_handlers_that_raise_nothing_may_solve_problems_themselves(n_threads: int) -> None:
    costs = (np.random.default_rng(2).random((2600, 2600)) * product(2600))[None, :1600]
    small = np.random.default_rng(3).random((40, 40, 40))
    expected, expected_small = lap.solve_batch(costs, n_threads=1)[0], lap.solve_batch(small)[0]
    answers: list[NDArray[np.int64]] = []

    def solve(*_: object) -> None:
        answers.append(lap.solve_batch(small, n_threads=n_threads)[0])

    with alarms(solve, 0.03, 0.3):
        while not answers:
            actual = lap.solve_batch(costs, n_threads=n_threads)[0]
    np.testing.assert_array_equal(actual, expected)
    for answer in answers:
        np.testing.assert_array_equal(answer, expected_small)


def test_any_exception_of_a_handler_arrives() -> None:
    def fail(*_: object) -> None:
        raise OSError("the handler's own")

    with pytest.raises(OSError, match="the handler's own"), alarms(fail, DELAY):
        lap.linear_sum_assignment(LARGE)


def test_other_threads_solve_to_the_end() -> None:
    costs = product(700)
    expected = lap.linear_sum_assignment(costs)[1]
    answers: list[NDArray[np.int64]] = []
    done = threading.Event()

    def work() -> None:
        answers.append(lap.linear_sum_assignment(costs)[1])
        done.set()

    with contextlib.suppress(KeyboardInterrupt), alarms(signal.default_int_handler, 0.02):
        threading.Thread(target=work).start()
        done.wait()
    done.wait()
    np.testing.assert_array_equal(answers[0], expected)
