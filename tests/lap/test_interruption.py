"""Ctrl-C during a call of lwfm.lap: it ends soon, raises what the handler raises and frees its threads."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.sparse import csr_array

from lwfm import lap
from tests.helpers.interruption import DELAY, alarms, check_ctrl_c_ends, needs_timers, product

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

pytestmark = needs_timers

LARGE = product(5000)
MANY = np.broadcast_to(product(900), (500, 900, 900))
TINY = np.broadcast_to(np.random.default_rng(0).random((25, 25)), (1_500_000, 25, 25))
RANDOM = np.random.default_rng(1).random((1500, 1500))
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
    "k_best": lambda: lap.k_best(LARGE, 3),
    "k_best_of_many_on_two_threads": lambda: lap.k_best(TINY, 1000, n_threads=2),
    "many_best": lambda: lap.k_best(RANDOM, 10**9),
    "iter_best": lambda: list(lap.iter_best(RANDOM)),
    "bottleneck": lambda: lap.bottleneck(MANY, n_threads=1),
    "bottleneck_of_one": lambda: lap.bottleneck(LARGE),
    "lexicographic_bottleneck": lambda: lap.bottleneck(RANDOM, lexicographic=True),
    "solve_sparse": lambda: lap.solve_sparse(SPARSE),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_end_soon_after_ctrl_c(name: str) -> None:
    check_ctrl_c_ends(CALLS[name])


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
