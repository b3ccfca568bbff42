"""Checks of numbers that a user gives, before any work."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

from lwfm.errors import UserError

LARGEST_SEED = 2**32 - 1
"""What NumPy's generators, and so Lightning's seeding of everything, take at most."""


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)


def _is_finite(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def check_at_least(least: int, /, **numbers: int) -> None:
    """Raise UserError naming the first of the numbers that is smaller than ``least``.

    Examples
    --------
    >>> check_at_least(1, episodes=600, batch_size=64)
    """
    for name, number in numbers.items():
        if number < least:
            raise UserError(f"{name} must be at least {least}, not {number}")


def check_counts(**numbers: Any) -> None:
    """Raise UserError naming the first of the values that is not a whole number of at least 1.

    Examples
    --------
    >>> check_counts(steps=600, batch_size=64)
    """
    for name, number in numbers.items():
        if not _is_whole(number) or number < 1:
            raise UserError(f"{name} must be a whole number of at least 1, not {number!r}")


def check_between(low: float, high: float, /, **numbers: Any) -> None:
    """Raise UserError naming the first of the values that is not a finite number from low to high.

    Examples
    --------
    >>> check_between(0, 1, dropout=0.5)
    """
    for name, number in numbers.items():
        if not _is_finite(number) or not low <= number <= high:
            limits = f"of at least {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise UserError(f"{name} must be a number {limits}, not {number!r}")


def check_positive(**numbers: Any) -> None:
    """Raise UserError naming the first of the values that is not a finite number above 0.

    Examples
    --------
    >>> check_positive(learning_rate=1e-3)
    """
    for name, number in numbers.items():
        if not _is_finite(number) or number <= 0:
            raise UserError(f"{name} must be a number above 0, not {number!r}")


def check_seed(seed: Any, name: str = "seed") -> None:
    """Raise UserError unless a seed is a whole number that all of the random generators take.

    Examples
    --------
    >>> check_seed(0)
    """
    if not _is_whole(seed) or not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"{name} must be a whole number from 0 to {LARGEST_SEED}, not {seed}")
