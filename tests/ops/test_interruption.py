"""Ctrl-C during lwfm.ops.linear_assignment: it ends soon and raises what the handler raises."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from lwfm import _ops
from lwfm._common.devices import torch_threads
from lwfm.ops import linear_assignment
from tests.helpers.interruption import DELAY, alarms, check_ctrl_c_ends, needs_timers, product

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = needs_timers

LARGE = torch.from_numpy(product(5000))
MANY = torch.from_numpy(product(900)).expand(500, 900, 900)
TINY = torch.rand(25, 25, generator=torch.Generator().manual_seed(0)).expand(1_500_000, 25, 25)
# On two threads one problem each, of which the caller's is solved at once.
UNEQUAL = torch.stack([torch.eye(2500), LARGE[:2500, :2500].flip(0)])
CALLS: dict[str, tuple[int, Callable[[], object]]] = {
    "one_large": (1, lambda: linear_assignment(LARGE)),
    "one_large_on_two_threads": (2, lambda: linear_assignment(LARGE)),
    "integers": (1, lambda: linear_assignment(LARGE.to(torch.int64))),
    "low_precision": (1, lambda: linear_assignment(LARGE.bfloat16())),
    "transposed": (1, lambda: linear_assignment(LARGE.mT[:, :4900])),
    "many": (1, lambda: linear_assignment(MANY)),
    "many_on_two_threads": (2, lambda: linear_assignment(MANY)),
    "many_tiny_on_two_threads": (2, lambda: linear_assignment(TINY)),
    "large_on_the_other_thread": (2, lambda: linear_assignment(UNEQUAL)),
    "vmap": (1, lambda: torch.vmap(linear_assignment)(MANY)),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_end_soon_after_ctrl_c(name: str) -> None:
    threads, call = CALLS[name]
    with torch_threads(threads):
        check_ctrl_c_ends(call)


@pytest.mark.parametrize("name", ["many_on_two_threads", "one_large_on_two_threads"])
def test_the_threads_serve_the_next_call(name: str) -> None:
    costs = torch.rand(3000, 9, 9, generator=torch.Generator().manual_seed(1))
    expected = linear_assignment(costs)
    with torch_threads(2):
        with pytest.raises(KeyboardInterrupt), alarms(signal.default_int_handler, DELAY):
            CALLS[name][1]()
        assert torch.equal(linear_assignment(costs), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_handlers_that_raise_nothing_may_solve_problems_themselves(threads: int) -> None:
    costs = torch.rand(2600, 2600, generator=torch.Generator().manual_seed(2))
    costs = (costs * LARGE[:2600, :2600])[None, :1600]
    small = torch.rand(40, 40, 40, generator=torch.Generator().manual_seed(3))
    expected, expected_small = linear_assignment(costs), linear_assignment(small)
    answers: list[Tensor] = []
    with torch_threads(threads), alarms(lambda *_: answers.append(linear_assignment(small)), 0.03, 0.3):
        while not answers:
            actual = linear_assignment(costs)
    assert torch.equal(actual, expected)
    for answer in answers:
        assert torch.equal(answer, expected_small)


def test_any_exception_of_a_handler_arrives() -> None:
    def fail(*_: object) -> None:
        raise OSError("the handler's own")

    with pytest.raises(OSError, match="the handler's own") as raised, alarms(fail, DELAY):
        linear_assignment(LARGE)
    assert raised.value.__context__ is None  # and not torch's error


def test_other_threads_solve_to_the_end() -> None:
    costs = LARGE[:700, :700]
    expected = linear_assignment(costs)
    answers: list[Tensor] = []
    done = threading.Event()

    def work() -> None:
        answers.append(linear_assignment(costs))
        done.set()

    with contextlib.suppress(KeyboardInterrupt), alarms(signal.default_int_handler, 0.02):
        threading.Thread(target=work).start()
        done.wait()
    done.wait()
    assert torch.equal(answers[0], expected)


@pytest.mark.parametrize("how", ["operator", "compiled"])
def test_calls_without_the_function_run_to_the_end(how: str) -> None:
    """Nothing would raise the handler's exception in place of the operator's error."""
    costs = LARGE[:1500, :1500]
    call: Callable[..., object] = torch.ops.lwfm.linear_assignment.default
    if how == "compiled":
        call = torch.compile(linear_assignment, fullgraph=True, backend="eager")
        call(costs)
    with pytest.raises(KeyboardInterrupt), alarms(signal.default_int_handler, 0.05):
        call(costs)


def test_results_and_errors_of_a_call_pass_unchanged() -> None:
    assert _ops.call_interruptibly(divmod, 7, 3) == (2, 1)
    with pytest.raises(ZeroDivisionError):
        _ops.call_interruptibly(divmod, 7, 0)
    with pytest.raises(TypeError, match="needs a function"):
        _ops.call_interruptibly()  # type: ignore[call-arg]
