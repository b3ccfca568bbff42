"""Images of more than 8 bits: which value is white is decided once for all images of a set.

Black is 0. White is, for integers, the largest value of the smallest usual depth (1, 2, 4, 8, 10, 12, 14, 16
bits, then any) that holds every image of the set, so that 12-bit images in 16-bit files are not nearly black;
for floats 1 where all lie in 0..1, else 255 or the largest value of the smallest depth above. Floats may
exceed their range by a tenth at either end and are clipped there: so far does bicubic resizing overshoot at a
sharp edge.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy.typing as npt

_DEPTHS = (1, 2, 4, 8, 10, 12, 14, 16)
_OVERSHOOT = 0.1
_TOO_BRIGHT = 2**32
"""One damaged float image must not make all others black."""
_DARKEST_FLOAT = 16
"""Floats up to here, but above 1, could be a dark image in 0..255 or one scaled in another way."""

ADVICE = "scale all images alike to 8 bits (0..255)"


class Brightest(NamedTuple):
    """The largest value of an image of more than 8 bits."""

    kind: Literal["integers", "floats"]
    value: float


@dataclass(frozen=True)
class WhiteLevels:
    """The value that is white in the integer and in the float images of a set; None where there are none.

    Images of 8 bits (uint8) are not concerned: their white is 255.
    """

    integers: int | None = None
    floats: float | None = None

    def joined(self, other: WhiteLevels) -> WhiteLevels:
        """Take from `other` what is not known yet."""
        return WhiteLevels(
            other.integers if self.integers is None else self.integers,
            other.floats if self.floats is None else self.floats,
        )


def find_brightest(pixels: npt.NDArray[Any]) -> Brightest:
    """Return the largest value of an image; UserError for negative, huge or NaN values, or no numbers."""
    if pixels.dtype.kind not in "iuf":
        raise UserError(f"an image consists of integers or floats, not {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    integers = pixels.dtype.kind in "iu"
    lowest = 0.0 if integers else -_OVERSHOOT * max(high, 1)
    if not (high < _TOO_BRIGHT and low >= lowest):  # NaN fails this too
        raise UserError(f"it has values from {low:g} to {high:g}, not from 0 (black) to 2**32: {ADVICE}")
    return Brightest("integers" if integers else "floats", high)


def choose_white(found: Iterable[Brightest]) -> WhiteLevels:
    """Choose the white levels of a set from the brightest value of each of its images of more than 8 bits.

    Raises
    ------
    UserError
        The brightest float is above 1 but below 16: the range of the images cannot be told.

    Examples
    --------
    >>> choose_white([Brightest("integers", 2800), Brightest("integers", 900)])
    WhiteLevels(integers=4095, floats=None)
    """
    values: dict[str, list[float]] = {"integers": [], "floats": []}
    for kind, value in found:
        values[kind].append(value)
    integers, floats = (max(values[kind], default=None) for kind in ("integers", "floats"))
    return WhiteLevels(
        None if integers is None else _largest_of_depth(integers),
        None if floats is None else _white_of_floats(floats),
    )


def _largest_of_depth(value: float, smallest: int = 1) -> int:
    depths = itertools.chain(_DEPTHS, itertools.count(_DEPTHS[-1] + 1))
    whites: Iterator[int] = (2**depth - 1 for depth in depths if depth >= smallest)
    return next(white for white in whites if white >= value)


def _white_of_floats(value: float) -> float:
    if value <= 1 + _OVERSHOOT:
        return 1.0
    if value < _DARKEST_FLOAT:
        raise UserError(f"the brightest float is {value:g}, and floats lie in 0..1 or 0..255: {ADVICE}")
    return float(_largest_of_depth(value / (1 + _OVERSHOOT), smallest=8))


def eight_bits(pixels: npt.NDArray[Any], white: WhiteLevels) -> npt.NDArray[np.uint8]:
    """Map an image of any numeric dtype to 8 bits: 0 becomes 0, the white level 255; uint8 is left as it is.

    Raises
    ------
    UserError
        The set has no white level for integers (for floats it is 1 then), the image is brighter than white,
        or :func:`find_brightest` refuses it.

    Examples
    --------
    >>> eight_bits(np.array([[0, 2047, 4095]], np.uint16), WhiteLevels(integers=4095)).tolist()
    [[0, 127, 255]]
    """
    if pixels.dtype == np.uint8:
        return pixels
    kind, value = find_brightest(pixels)
    level = white.integers if kind == "integers" else white.floats or 1.0
    if level is None:
        raise UserError(
            f"it is {pixels.dtype} with values up to {value:g}, and no example of more than 8 bits says "
            f"which value is white: {ADVICE}"
        )
    if value > level * (1 if kind == "integers" else 1 + _OVERSHOOT):
        raise UserError(f"it has values up to {value:g}, and white is {level:g} in its set: {ADVICE}")
    scaled: npt.NDArray[np.float64] = np.multiply(pixels, 255 / level, dtype=np.float64)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)
