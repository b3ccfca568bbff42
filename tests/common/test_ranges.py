"""Checks of numbers that a user gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lwfm._common.ranges import check_between, check_counts, check_positive, check_seed
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("number", [0, -1, 1.0, True, "2", None, float("nan")], ids=repr)
def test_counts_are_whole_numbers_from_1(number: Any) -> None:
    check_counts(steps=1, k=np.int64(7))
    with pytest.raises(UserError, match="k must be a whole number of at least 1, not"):
        check_counts(steps=1, k=number)


@pytest.mark.parametrize("number", [-0.1, 1.1, float("nan"), float("inf"), False, "0.5", None], ids=repr)
def test_shares_are_numbers_within_the_limits(number: Any) -> None:
    check_between(0, 1, first=0, last=1, single=np.float32(0.5))
    with pytest.raises(UserError, match="dropout must be a number from 0 to 1, not"):
        check_between(0, 1, dropout=number)


def test_a_range_without_end_excludes_infinity() -> None:
    check_between(0, float("inf"), margin=1e9)
    with pytest.raises(UserError, match="margin must be a number of at least 0, not inf"):
        check_between(0, float("inf"), margin=float("inf"))


@pytest.mark.parametrize("number", [0, -1, float("nan"), float("inf"), True, "1", None], ids=repr)
def test_rates_are_above_0(number: Any) -> None:
    check_positive(learning_rate=1e-9)
    with pytest.raises(UserError, match="learning_rate must be a number above 0, not"):
        check_positive(learning_rate=number)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "1", None, True], ids=repr)
def test_seeds_are_those_of_all_generators(seed: Any) -> None:
    check_seed(0)
    check_seed(2**32 - 1)
    with pytest.raises(UserError, match="seed must be a whole number from 0 to 4294967295, not"):
        check_seed(seed)


@pytest.mark.parametrize(
    "check", [check_counts, check_positive, check_seed], ids=lambda check: check.__name__
)
def test_arrays_are_no_numbers(check: Callable[..., None]) -> None:
    with pytest.raises(UserError):
        check(seed=np.ones(3))
