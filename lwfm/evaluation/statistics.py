"""Means over episodes, their confidence intervals, and paired tests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_NORMAL_975 = 1.959963984540054  # quantile of the normal distribution: two-sided 95 % intervals
_STUDENT_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""Quantiles of Student's distribution with 1 to 10 degrees of freedom."""
RESAMPLES = 10_000


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and half width of its 95 % interval (normal approximation; None for a single value).

    Examples
    --------
    >>> mean, interval = mean_and_interval([0.0, 1.0, 0.0, 1.0])
    >>> round(mean, 3), round(interval, 3)
    (0.5, 0.566)
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, _NORMAL_975 * math.sqrt(variance / count)


def _student_975(freedom: int) -> float:
    if freedom <= len(_STUDENT_975):
        return _STUDENT_975[freedom - 1]
    return _NORMAL_975 * (1 + (_NORMAL_975**2 + 1) / (4 * freedom))  # to half a per cent


def interval_over_runs(values: Sequence[Sequence[float]]) -> tuple[float, float | None]:
    """Return the mean over runs and episodes, and half width of its 95 % interval for new runs and episodes.

    The variance of the mean is that over the runs plus that over the episodes: slightly too large, because
    the means of the runs vary with their episodes too. For a single run only the variance over the episodes
    is known. With few runs the quantile is Student's.

    Parameters
    ----------
    values : sequence of sequence of float
        For each run, one value of each of the same episodes.

    Examples
    --------
    >>> mean, interval = interval_over_runs([[0.0, 1.0, 0.0, 1.0], [0.25, 1.0, 0.25, 1.0]])
    >>> round(mean, 4), round(interval, 2)
    (0.5625, 0.94)
    """
    episodes = [math.fsum(column) / len(values) for column in zip(*values, strict=True)]
    mean, interval = mean_and_interval(episodes)
    if len(values) == 1 or interval is None:
        return mean, interval
    means = np.array([math.fsum(run) / len(run) for run in values])
    over_runs = _student_975(len(means) - 1) * float(means.std(ddof=1)) / math.sqrt(len(means))
    return mean, math.hypot(interval, over_runs)


def bootstrap_interval(values: Sequence[float], *, seed: int = 0) -> tuple[float, float] | None:
    """Return the limits of the 95 % percentile bootstrap interval of the mean [1]_; None for a single value.

    Accuracies of episodes take few different values, so each of the 10 000 resamples is one draw of how often
    each value occurs: the same distribution as drawing the episodes one by one, at a fraction of the work.

    Parameters
    ----------
    values : sequence of float
        One for each episode.
    seed : int
        Seed of the resampling.

    References
    ----------
    .. [1] B. Efron, "Bootstrap Methods: Another Look at the Jackknife", Annals of Statistics 7, 1979.

    Examples
    --------
    >>> bootstrap_interval([0.5] * 10)
    (0.5, 0.5)
    """
    count = len(values)
    if count < 2:
        return None
    levels, occurrences = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(count, occurrences / count, size=RESAMPLES)
    low, high = np.quantile(drawn @ levels / count, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class PairedTest:
    """Difference of two results on the same episodes.

    Attributes
    ----------
    difference : float
        Mean of first minus second.
    interval : float or None
        Half width of its 95 % interval (normal); None for a single episode.
    bootstrap : tuple of float or None
        Limits of its 95 % bootstrap interval.
    p_value : float or None
        Two-sided, of the hypothesis that there is no difference: paired z test, for many episodes the same as
        the paired t test.
    """

    difference: float
    interval: float | None
    bootstrap: tuple[float, float] | None
    p_value: float | None


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Test the difference of accuracies episode by episode.

    Parameters
    ----------
    first, second : sequence of float
        Accuracy of the same episodes, in the same order.

    Raises
    ------
    ValueError
        The lengths differ.

    Examples
    --------
    >>> test = paired_test([0.6, 0.8, 0.7, 0.9], [0.5, 0.7, 0.7, 0.8])
    >>> round(test.difference, 3), test.p_value < 0.05
    (0.075, True)
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, interval = mean_and_interval(differences)
    p_value = None
    if interval is not None:
        # Rounding alone must not make equal answers differ.
        error = interval / _NORMAL_975
        equal = abs(mean) <= 1e-12
        p_value = 1.0 if equal else (math.erfc(abs(mean) / error / math.sqrt(2)) if error > 0 else 0.0)
    return PairedTest(mean, interval, bootstrap_interval(differences), p_value)
