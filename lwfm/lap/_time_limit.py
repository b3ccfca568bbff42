"""The time limit of a call; part of :mod:`lwfm.lap`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lwfm.lap._arguments import Reals


class TimeLimitError(TimeoutError):
    """The time limit of a call was reached before its answer was found.

    Attributes
    ----------
    bound : float, or array [B]
        What is known about the answer: a lower bound on it (when maximizing: an upper bound), up to rounding;
        infinite where nothing is known yet. For a batch one per problem, of those that were solved the answer
        itself. The functions say what their bound is about.

    Examples
    --------
    >>> import numpy as np
    >>> from lwfm.lap import TimeLimitError, linear_sum_assignment
    >>> line = np.arange(3000.0)
    >>> try:
    ...     answer = linear_sum_assignment(np.multiply.outer(line, line), time_limit=0.05)
    ... except TimeLimitError as error:
    ...     print(error.bound <= (line * line[::-1]).sum())
    True
    """

    def __init__(self, message: str, bound: float | Reals) -> None:
        super().__init__(message)
        self.bound = bound

    def __reduce__(self) -> tuple[type[TimeLimitError], tuple[str, float | Reals]]:
        return type(self), (str(self), self.bound)


def as_time_limit(time_limit: float | None) -> float | None:
    """Return the seconds that a call may take, None for any."""
    if time_limit is None:
        return None
    needed = f"time_limit must be a positive number of seconds, or None for no limit, got {time_limit!r}"
    if isinstance(time_limit, (bool, str, bytes)):
        raise TypeError(needed)
    try:
        seconds = float(time_limit)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(needed) from None
    if not seconds > 0:
        raise ValueError(needed)
    return None if math.isinf(seconds) else seconds


def unknown_bounds(count: int, maximize: bool) -> Reals:
    """Return bounds [B] that say nothing."""
    return np.full(count, math.inf if maximize else -math.inf)


def time_is_up(time_limit: float | None, bounds: Reals, single: bool) -> TimeLimitError:
    """Return the error of a call that has not ended in time."""
    message = f"the time limit of {time_limit} s was reached before the answer was found"
    if single:
        return TimeLimitError(f"{message}; what is known by now is its bound, {bounds[0]}", float(bounds[0]))
    return TimeLimitError(f"{message}; what is known by now are the bounds of the problems", bounds)
