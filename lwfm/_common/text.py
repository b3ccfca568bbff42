"""Text from outside, such as file names, on one line that every file and terminal can take."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESCAPED = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, undecodable bytes of file names, and line separators."""


def one_line(text: str) -> str:
    r"""Return text with control characters and undecodable bytes as escapes.

    Examples
    --------
    >>> print(one_line("two\nlines, \udcff, 猫"))
    two\nlines, \udcff, 猫
    """
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in _ESCAPED else c for c in text)


def listed(items: Sequence[str], most: int, *, separator: str = ", ", last: str = " ") -> str:
    """Join the first `most` items, and count those left out.

    Parameters
    ----------
    items
        All of them, in order.
    most
        How many are named.
    separator, last
        Text between the items, and before the count.

    Examples
    --------
    >>> listed(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f"{last}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(items[:most]) + more
