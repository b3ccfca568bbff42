"""Read the logs of a training run: the numbers behind its curves."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


class Column(NamedTuple):
    """The values of one metric, and the steps they were logged at."""

    steps: list[int]
    values: list[float]

    def replaced_from(self, later: Column) -> Column:
        """Return these values continued by a later start, which replaces the steps that it repeated."""
        kept = sum(step < later.steps[0] for step in self.steps)
        return Column(self.steps[:kept] + later.steps, self.values[:kept] + later.values)


def log_files(logs: Path) -> list[Path]:
    """List the metrics.csv of a folder, or those of a run's starts in it (version_0, version_1, ...)."""
    own = logs / "metrics.csv"
    numbered = {
        int(path.parent.name.removeprefix("version_")): path
        for path in logs.glob("version_*/metrics.csv")
        if path.parent.name.removeprefix("version_").isdigit()
    }
    return [own] if own.is_file() else [numbered[number] for number in sorted(numbered)]


def read_log(logs: Path) -> dict[str, Column]:
    """Read every metric that a run has logged; a resumed run has a log for each start.

    Parameters
    ----------
    logs : Path
        The folder ``logs`` of a run, or one of its starts.

    Raises
    ------
    UserError
        If the folder has no readable metrics.csv.
    """
    files = log_files(logs)
    if not files:
        raise UserError(f"cannot read the training log: there is no metrics.csv in {logs}")
    columns: dict[str, Column] = {}
    for path in files:
        for name, later in _read_file(path).items():
            columns[name] = columns[name].replaced_from(later) if name in columns else later
    return columns


def _read_file(path: Path) -> dict[str, Column]:
    """Read Lightning's metrics.csv: for each column its steps and values, rows without it left out."""
    columns: dict[str, Column] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for name, value in row.items():
                    if value and name not in ("step", "epoch"):
                        column = columns.setdefault(name, Column([], []))
                        column.steps.append(int(np.int64(row["step"])))
                        column.values.append(float(value))
    except (OSError, OverflowError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UserError(f"cannot read the training log {path}: {error}") from error
    return columns
