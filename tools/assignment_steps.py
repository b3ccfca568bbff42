"""Counts the steps that the assignment kernels take: their algorithms, replayed in NumPy.

How long they take depends on the numbers, so they are counted on costs of the benchmark's kind (cosines).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from lwfm.bench.solvers import make_costs

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROBLEMS = 24


@dataclass
class Steps:
    """How often a problem looks through a row of costs, and how many pairs its paths exchange."""

    reductions: float = 0  # rows looked through for their best columns
    scans: float = 0  # rows looked through on shortest paths
    flips: float = 0


@dataclass
class Replay:
    """One square problem: duals of the columns, the row of each column, and the steps so far."""

    cost: NDArray[np.float64]
    steps: Steps = field(default_factory=Steps)

    def __post_init__(self) -> None:
        n = len(self.cost)
        self.v = self.cost.min(0)
        self.row_of_column = np.full(n, -1)
        self.column_of_row = np.full(n, -1)

    def match_tight_rows(self) -> list[int]:
        """Give rows their first free tight column, as warp_assignment.cuh does; the rows left over."""
        left = []
        for row, costs in enumerate(self.cost):
            self.steps.reductions += 1
            reduced = costs - self.v
            tight = np.flatnonzero((reduced == reduced.min()) & (self.row_of_column < 0))
            if tight.size:
                self.assign(row, int(tight[0]))
            else:
                left.append(row)
        return left

    def reduce_rows(self, rows: list[int]) -> list[int]:
        """One pass of augmenting row reduction, as team_assignment.cuh does it; the rows left over."""
        left, budget = [], 3 * len(rows)
        for first in rows:
            row, strict = first, True
            while row >= 0 and strict and budget > 0:
                budget -= 1
                row, strict = self.reduce_row(row)
            if row >= 0:
                left.append(row)
        return left

    def reduce_row(self, row: int) -> tuple[int, bool]:
        """Give a row its best column at the price of the second best; the row that lost it."""
        self.steps.reductions += 1
        reduced = self.cost[row] - self.v
        column = int(reduced.argmin())
        lowered = self.v[column] - (np.partition(reduced, 1)[1] - reduced[column])
        strict = bool(lowered < self.v[column])
        if not strict:
            free = np.flatnonzero((reduced == reduced[column]) & (self.row_of_column < 0))
            if not free.size:
                return row, False
            column = int(free[0])
        self.v[column] = min(lowered, self.v[column])
        loser = int(self.row_of_column[column])
        if loser >= 0:
            self.column_of_row[loser] = -1
        self.assign(row, column)
        return loser, strict

    def assign(self, row: int, column: int) -> None:
        """Pair a row with a column."""
        self.column_of_row[row], self.row_of_column[column] = column, row

    def augment(self, start: int) -> None:
        """One shortest augmenting path."""
        n = len(self.cost)
        distance, predecessor, open_ = self.cost[start] - self.v, np.full(n, start), np.ones(n, dtype=bool)
        self.steps.scans += 1
        while True:
            column = int(np.where(open_, distance, np.inf).argmin())
            row = int(self.row_of_column[column])
            if row < 0:
                break
            self.steps.scans += 1
            open_[column] = False
            candidate = self.cost[row] - self.v - (self.cost[row, column] - self.v[column] - distance[column])
            better = open_ & (candidate < distance)
            distance[better], predecessor[better] = candidate[better], row
        self.v[~open_] += distance[~open_] - distance[column]
        row = -1
        while row != start:
            self.steps.flips += 1
            row = int(predecessor[column])
            following = int(self.column_of_row[row])
            self.assign(row, column)
            column = following


@functools.cache
def count_steps(n: int, *, of_warp: bool) -> Steps:
    """Mean steps of a problem of ``n`` rows, solved as a warp does up to 32 columns or as a team does."""
    count = max(2, min(PROBLEMS, 5000 // n))
    total = Steps()
    for cost in make_costs("cosine", count, n).astype(np.float64):
        replay = Replay(cost)
        rows = replay.match_tight_rows() if of_warp else replay.reduce_rows(list(range(n)))
        for row in rows if of_warp else replay.reduce_rows(rows):
            replay.augment(row)
        for name, value in vars(replay.steps).items():
            setattr(total, name, getattr(total, name) + value / count)
    return total
