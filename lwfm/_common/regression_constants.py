"""Constants of the head's regression, which torch and NumPy compute alike (`lwfm.nn`, `lwfm.lite`)."""

from __future__ import annotations

RIDGE = 0.3
"""Penalty of the regression; an image's statistics have length 1."""

FLOOR = 1e-3
"""Differences from the mean are divided by their length, or by this if they are smaller: rounding errors."""

_LAST, _EARLIER = (1.0, 0.25), (0.125, 0.125)
"""Shares of mean and spread in the squared length of the statistics: of the last layer, of each other."""


def statistic_lengths(layers: int) -> list[float]:
    """Return the lengths of mean and spread of each layer, whose squares sum to 1.

    Examples
    --------
    >>> [round(length**2, 2) for length in statistic_lengths(2)]
    [0.08, 0.08, 0.67, 0.17]
    """
    shares = [*_EARLIER * (layers - 1), *_LAST]
    return [(share / sum(shares)) ** 0.5 for share in shares]


def view_weights(views: int) -> list[float]:
    """Return the weights of an image and its views, of sum 1.

    Examples
    --------
    >>> view_weights(3), view_weights(0)
    ([0.25, 0.25, 0.25, 0.25], [1.0])
    """
    if views < 2:
        return [1 / (1 + views)] * (1 + views)
    return [0.25, 0.25, *[0.5 / (views - 1)] * (views - 1)]
