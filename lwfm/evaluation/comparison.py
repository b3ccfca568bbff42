"""Compare two evaluations on the same episodes: ``lwfm compare A.json B.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lwfm._common.files import atomic_path
from lwfm._common.tables import text_table
from lwfm.errors import UserError, keeping
from lwfm.evaluation.results import EvaluationResult, MethodResult, percent
from lwfm.evaluation.statistics import PairedTest, paired_test

if TYPE_CHECKING:
    from pathlib import Path

_SAME = {
    "data": ("fingerprint", "classes"),
    "options": ("queries", "episodes", "seed"),
}
"""Entries that determine the episodes, besides the numbers of ways and shots."""


@dataclass(frozen=True)
class ComparedMethod:
    """Test of one method at one number of ways and shots.

    Attributes
    ----------
    method, way, shot : str, int, int
        Method, classes, and support images of each.
    first, second : float
        Both accuracies, as fractions.
    test : PairedTest
        Of first minus second, episode by episode.
    """

    method: str
    way: int
    shot: int
    first: float
    second: float
    test: PairedTest


@dataclass(frozen=True)
class Comparison:
    """Two results on the same episodes.

    Attributes
    ----------
    first, second : str
        Files of the results.
    rows : tuple of ComparedMethod
        For every way, then shot, then method, that both results have.
    """

    first: str
    second: str
    rows: tuple[ComparedMethod, ...]

    def __str__(self) -> str:
        titles = ("way", "shot", "method", "first", "second", "difference", "bootstrap", "p")
        return (
            f"first   {self.first}\nsecond  {self.second}\n"
            "% on the same episodes; difference: first minus second, 95 % intervals, normal and bootstrap\n"
            + text_table(">><>>>>>", titles, [_cells(row) for row in self.rows])
        )

    def to_json(self) -> str:
        """Serialize as strict JSON, indented."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"


def _cells(row: ComparedMethod) -> tuple[str, ...]:
    """Format a row of the table, accuracies in percent."""
    test = row.test
    limits = "" if test.bootstrap is None else "[{:+.2f}, {:+.2f}]".format(*(100 * x for x in test.bootstrap))
    return (
        str(row.way),
        str(row.shot),
        row.method,
        percent(row.first, None),
        percent(row.second, None),
        percent(test.difference, test.interval, sign="+"),
        limits,
        "" if test.p_value is None else f"{test.p_value:.2g}",
    )


def compare(first: Path, second: Path, *, out: Path | None = None) -> Comparison:
    """Test whether two evaluations differ, episode by episode.

    Both must have been made on the same images and episodes (`lwfm evaluate` with the same data, queries,
    episodes and seed): then most of the variance from the choice of episodes cancels, and far smaller
    differences are detected than by two separate intervals.

    Parameters
    ----------
    first : Path
        Result written by `lwfm evaluate --out`.
    second : Path
        The other result.
    out : Path, optional
        JSON file for the comparison. An existing file is replaced.

    Returns
    -------
    Comparison
        Prints as a table.

    Raises
    ------
    UserError
        A file is missing or no result, or the episodes differ (naming the difference).
    """
    results = [EvaluationResult.read(path) for path in (first, second)]
    for group, names in _SAME.items():
        for name in names:
            values = [getattr(result, group).get(name) for result in results]
            if values[0] != values[1]:
                shown = "" if name == "classes" else f": {values[0]} and {values[1]}"
                raise UserError(
                    f"{first} and {second} were not made on the same episodes: they differ in {name}{shown}"
                )
    rows = [
        _compared(mine, theirs)
        for mine in results[0].methods
        for theirs in results[1].methods
        if (mine.method, mine.way, mine.shot) == (theirs.method, theirs.way, theirs.shot)
    ]
    if not rows:
        raise UserError(f"{first} and {second} have no method at the same way and shot in common")
    comparison = Comparison(str(first), str(second), tuple(rows))
    if out is not None:
        with keeping(comparison), atomic_path(out) as temporary:
            temporary.write_text(comparison.to_json(), encoding="utf-8")
    return comparison


def _compared(mine: MethodResult, theirs: MethodResult) -> ComparedMethod:
    test = paired_test(mine.episode_accuracy, theirs.episode_accuracy)
    return ComparedMethod(mine.method, mine.way, mine.shot, mine.accuracy, theirs.accuracy, test)
