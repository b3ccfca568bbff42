"""Text from outside, such as file names, on one line that every file and terminal can take."""

from __future__ import annotations

import unicodedata

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
