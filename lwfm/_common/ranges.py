"""Checks of numbers that a user gives, before any work."""

from __future__ import annotations

from lwfm.errors import UserError

LARGEST_SEED = 2**32 - 1
"""What NumPy's generators, and so Lightning's seeding of everything, take at most."""


def check_at_least(least: int, /, **numbers: int) -> None:
    """Raise UserError naming the first of the numbers that is smaller than ``least``.

    Examples
    --------
    >>> check_at_least(1, episodes=600, batch_size=64)
    """
    for name, number in numbers.items():
        if number < least:
            raise UserError(f"{name} must be at least {least}, not {number}")


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise UserError for a seed that some of the random generators do not take.

    Examples
    --------
    >>> check_seed(0)
    """
    if not 0 <= seed <= LARGEST_SEED:
        raise UserError(f"{name} must be a number from 0 to {LARGEST_SEED}, not {seed}")
