"""Decoding in threads: order, bounds, errors."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lwfm.data.decode_ahead import in_threads, pixel_batches

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("ahead", [0, 1, 100])
def test_results_are_in_order(ahead: int, threads: int) -> None:
    waits = [threading.Event() for _ in range(8)]

    def square(number: int) -> int:
        waits[number].set()
        if threads > 1 and ahead > 1 and number < 7:  # later items may be done first
            waits[number + 1].wait(0.01)
        return number**2

    assert list(in_threads(square, range(8), ahead=ahead, threads=threads)) == [n**2 for n in range(8)]


@pytest.mark.parametrize("ahead", [0, 3])
def test_an_endless_stream_is_read_a_bounded_number_ahead(ahead: int) -> None:
    taken = 0

    def stream() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    results = in_threads(lambda number: number, stream(), ahead=ahead, threads=2)
    for used in range(1, 50):
        assert next(results) == used
        assert taken == used + ahead
    results.close()  # type: ignore[attr-defined]  # it is a generator


def test_the_first_error_is_raised_in_its_turn() -> None:
    def invert(number: int) -> float:
        return 1 / number

    results = in_threads(invert, [2, 1, 0, 5], ahead=3, threads=2)
    assert [next(results), next(results)] == [0.5, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_threads_end_when_the_reader_stops() -> None:
    before = threading.active_count()
    results = in_threads(lambda number: number, itertools.count(), ahead=4, threads=3)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_batches_hold_all_images_and_are_not_written_again() -> None:
    images = [np.full((2, 2, 3), number, np.uint8) for number in range(5)]
    batches = list(pixel_batches(iter(images), 2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images)
    assert list(pixel_batches([], 2)) == []
