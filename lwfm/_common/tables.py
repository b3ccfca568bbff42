"""Tables as plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lwfm._common.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def text_table(align: str, titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of columns that are two spaces apart and as wide as their longest cell.

    Parameters
    ----------
    align : str
        For each column ``<`` (left) or ``>`` (right).
    titles : sequence of str
        First line.
    rows : iterable of sequence of str
        Cells of each further line, as many as there are titles. A line break in a cell is shown as an escape.

    Examples
    --------
    >>> print(text_table("<>", ("name", "n"), [("a", "1000"), ("longer", "2")]))
    name       n
    a       1000
    longer     2
    """
    lines = [[one_line(cell) for cell in line] for line in (titles, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(line, align, widths, strict=True)
        ).rstrip()
        for line in lines
    )
