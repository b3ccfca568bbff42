"""The table of an experiment: accuracies, intervals and differences of its rows, and their commands."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from lwfm._common.files import atomic_path
from lwfm._common.records import build_record, read_json
from lwfm.errors import UserError
from lwfm.evaluation.results import percent
from lwfm.evaluation.statistics import interval_over_runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lwfm.experiments.plan import DataChoice, Plan

_MEANS = "Mean difference to the first row over the data sets"


@dataclass(frozen=True)
class RowResult:
    """One row on one data set, of one seed, at one number of shots.

    Attributes
    ----------
    row, network, data : str
        Names in the plan.
    seed, shot : int
        Seed of the training; shots of the evaluation.
    method : str
        Method of the evaluation's result.
    accuracies : tuple of float
        Accuracy of each episode, 0 to 1.
    train, evaluate : str
        The commands that train the network (empty where it is not trained) and evaluate the row.
    """

    row: str
    network: str
    data: str
    seed: int
    shot: int
    method: str
    accuracies: tuple[float, ...]
    train: str
    evaluate: str

    def write(self, path: Path) -> None:
        """Write the result as JSON, completely or not at all."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path, episodes: int) -> RowResult:
        """Read a result of so many episodes that :meth:`write` wrote; UserError for a damaged file."""
        try:
            found = build_record(cls, read_json(path))
        except UserError as error:
            raise UserError(f"the row {path} is damaged ({error}): delete the file") from error
        if len(found.accuracies) != episodes or not all(0 <= each <= 1 for each in found.accuracies):
            raise UserError(
                f"the row {path} is damaged (it must have {episodes} accuracies, in 0..1): delete the file"
            )
        return found


@dataclass(frozen=True)
class Cell:
    """A row at one number of shots, over all its seeds; accuracies are fractions.

    Attributes
    ----------
    row, data, way, shot : str, str, int, int
        Row, data set, and numbers of ways and of shots.
    seeds : list of int
        The finished seeds.
    accuracy, interval : float
        Mean over seeds and episodes and half width of its 95 % interval; null for a single episode.
    difference, difference_interval : float
        The same of the difference to the first row, paired by seed and episode; null where that is missing.
    differences : list of float
        That difference for each seed.
    train, evaluate : str
        Commands of its first seed.
    """

    row: str
    data: str
    way: int
    shot: int
    seeds: list[int]
    accuracy: float
    interval: float | None
    difference: float | None
    difference_interval: float | None
    differences: list[float]
    train: str
    evaluate: str


@dataclass(frozen=True)
class ExperimentTable:
    """Finished rows of an experiment.

    Attributes
    ----------
    cells : list of Cell
        In the order of the plan: data set, row, shot.
    rows : list of str
        Titles of the plan's rows; differences are to the first.
    episodes : int
        Of each evaluation.
    """

    cells: list[Cell]
    rows: list[str]
    episodes: int

    def markdown(self) -> str:
        """Render as Markdown: a table for each data set, with its commands, then the mean over these."""
        parts = []
        for data in dict.fromkeys(cell.data for cell in self.cells):
            parts += [f"## {data}", "", *self._table(data), "", "Commands (first seed):", ""]
            parts += [*self._commands(data), ""]
        if means := self._means():
            parts += [f"## {_MEANS}", "", *means, ""]
        return "\n".join(parts)

    def __str__(self) -> str:  # the tables alone, without the commands
        names = dict.fromkeys(cell.data for cell in self.cells)
        tables = ["\n".join([name, *self._table(name)]) for name in names]
        if means := self._means():
            tables.append("\n".join([_MEANS, *means]))
        return "\n\n".join(tables)

    def _table(self, data: str) -> list[str]:
        cells = {(cell.row, cell.shot): cell for cell in self.cells if cell.data == data}
        shots = sorted({shot for _, shot in cells})
        ways = {cell.shot: cell.way for cell in cells.values()}
        titles = [f"{ways[shot]}-way {shot}-shot (%) | minus the first" for shot in shots]
        lines = [f"| row | seeds | {' | '.join(titles)} |", "|---|---|" + "---|---|" * len(shots)]
        for row in self.rows:
            of_row = [cells.get((row, shot)) for shot in shots]
            if not any(of_row):
                continue
            seeds = next(len(cell.seeds) for cell in of_row if cell)
            words = [row, str(seeds)]
            for cell in of_row:
                words += (
                    ["", ""] if cell is None else [percent(cell.accuracy, cell.interval), self._gain(cell)]
                )
            lines.append(f"| {' | '.join(words)} |")
        return lines

    def _means(self) -> list[str]:
        """Return the table of differences to the first row, averaged over the data sets of each shot.

        Only rows that every data set with that number of shots has are averaged. Empty for one data set.
        """
        shots = sorted({cell.shot for cell in self.cells})
        of_shot = {shot: {cell.data for cell in self.cells if cell.shot == shot} for shot in shots}
        shots = [shot for shot in shots if len(of_shot[shot]) > 1]
        if not shots:
            return []
        titles = [f"{shot}-shot, {len(of_shot[shot])} sets" for shot in shots]
        lines = [f"| row | {' | '.join(titles)} |", "|---|" + "---|" * len(shots)]
        for row in self.rows[1:]:
            words = [row]
            for shot in shots:
                cells = [cell for cell in self.cells if (cell.row, cell.shot) == (row, shot)]
                whole = {cell.data for cell in cells if cell.difference is not None} == of_shot[shot]
                words.append(percent(*mean_difference(cells), sign="+") if whole else "")
            if any(words[1:]):
                lines.append(f"| {' | '.join(words)} |")
        return lines

    def _gain(self, cell: Cell) -> str:
        if cell.difference is None or cell.row == self.rows[0]:
            return ""
        return percent(cell.difference, cell.difference_interval, sign="+")

    def _commands(self, data: str) -> list[str]:
        cells = [cell for cell in self.cells if cell.data == data]
        lines = ["```sh", *dict.fromkeys(cell.train for cell in cells if cell.train)]
        for cell in cells:
            lines += [f"# {cell.row}, {cell.shot}-shot", cell.evaluate]
        return [*lines, "```"]

    def write(self, folder: Path) -> None:
        """Write table.md and table.json."""
        with atomic_path(folder / "table.md") as temporary:
            temporary.write_text(self.markdown(), encoding="utf-8", errors="backslashreplace")
        with atomic_path(folder / "table.json") as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1, allow_nan=False) + "\n", encoding="utf-8")


def mean_difference(cells: Sequence[Cell]) -> tuple[float, float | None]:
    """Return the mean of differences over data sets, and half width of its interval for new episodes.

    The sets themselves are not taken as drawn at random: their episodes alone are.
    """
    mean = math.fsum(cell.difference or 0.0 for cell in cells) / len(cells)
    widths = [cell.difference_interval for cell in cells if cell.difference_interval is not None]
    return mean, math.hypot(*widths) / len(cells) if len(widths) == len(cells) else None


def make_table(plan: Plan, data: Mapping[str, DataChoice], results: Sequence[RowResult]) -> ExperimentTable:
    """Build the table of the finished rows."""
    found = {(each.data, each.row, each.shot, each.seed): each for each in results}
    cells = []
    for name, choice in data.items():
        for row in plan.rows:
            for shot in sorted(choice.queries):
                seeds = [seed for seed in plan.seeds if (name, row.name, shot, seed) in found]
                if not seeds:
                    continue
                mine = [found[name, row.name, shot, seed] for seed in seeds]
                first = [found.get((name, plan.rows[0].name, shot, seed)) for seed in seeds]
                accuracy = interval_over_runs([each.accuracies for each in mine])
                pairs = [
                    [a - b for a, b in zip(one.accuracies, other.accuracies, strict=True)]
                    for one, other in zip(mine, first, strict=True)
                    if other is not None
                ]
                gain = interval_over_runs(pairs) if pairs else (None, None)
                cells.append(
                    Cell(
                        row=row.name,
                        data=name,
                        way=choice.way or plan.way,
                        shot=shot,
                        seeds=seeds,
                        accuracy=accuracy[0],
                        interval=accuracy[1],
                        difference=gain[0],
                        difference_interval=gain[1],
                        differences=[math.fsum(pair) / len(pair) for pair in pairs],
                        train=mine[0].train,
                        evaluate=mine[0].evaluate,
                    )
                )
    return ExperimentTable(cells, [row.name for row in plan.rows], plan.episodes)
