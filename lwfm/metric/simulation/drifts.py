"""Faults put into recorded series that have none labeled: slow changes of one channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lwfm._common.ranges import check_counts
from lwfm.errors import UserError
from lwfm.metric.data.scada import NORMAL, Series

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS = ("drift", "gain", "noise", "frozen")
"""An offset that grows to two standard deviations, a factor that sinks to 0.6, noise that grows to one
standard deviation, and a sensor that repeats its last value."""


def inject_drifts(series: Series, kinds: Sequence[str], count: int, length: int, seed: int) -> Series:
    """Return a series with changes at random times and in random channels; the old one is left as it is.

    Parameters
    ----------
    series : Series
        Taken for healthy.
    kinds : sequence of str
        Among :data:`KINDS`, dealt in turn.
    count, length : int
        Number of changes, and samples of each: it grows over the first half and then stays.
    seed : int
        The same seed gives the same bits.

    Raises
    ------
    UserError
        Where the series is too short for them and as much healthy time between.

    Examples
    --------
    >>> values = np.random.default_rng(0).random((400, 2), np.float32)
    >>> plain = Series("a", ("power", "wind"), 600.0 * np.arange(400), values, np.full(400, ""))
    >>> changed = inject_drifts(plain, ["frozen"], count=1, length=50, seed=0)
    >>> int((changed.values != plain.values).any(1).sum()), int((changed.kinds == "frozen").sum())
    (49, 50)
    """
    check_counts(count=count, length=length)
    random = np.random.default_rng(seed)
    free = len(series.times) - 2 * count * length - length
    if free < 0:
        raise UserError(
            f"{series.name} has {len(series.times)} samples, too few for {count} injected faults of {length}"
        )
    values, labels = series.values.copy(), np.full(len(series.times), NORMAL, dtype="U16")
    spread, mean = np.nanstd(values, axis=0), np.nanmean(values, axis=0)
    starts = length + np.sort(random.integers(0, free + 1, count)) + 2 * length * np.arange(count)
    ramp = np.minimum(np.arange(length) / (length / 2), 1)
    for number, start in enumerate(starts.tolist()):
        kind, channel = kinds[number % len(kinds)], int(random.integers(values.shape[1]))
        part = values[start : start + length, channel]
        if kind == "drift":
            part += random.choice([-2.0, 2.0]) * ramp * spread[channel]
        elif kind == "gain":
            part[:] = mean[channel] + (part - mean[channel]) * (1 - 0.4 * ramp)
        elif kind == "noise":
            part += ramp * spread[channel] * random.standard_normal(length)
        else:
            part[:] = part[0]
        labels[start : start + length] = kind
    return Series(series.name, series.channels, series.times, values, labels)
