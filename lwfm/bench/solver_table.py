"""Times of assignment solvers as a table and as a figure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from lwfm._common.tables import text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS = "lwfm"


class Problems(NamedTuple):
    """A batch of problems of ``n`` rows and columns."""

    n: int
    batch: int

    def __str__(self) -> str:
        return f"{self.n} x {self.batch}"


@dataclass(frozen=True)
class AssignmentTimes:
    """Microseconds per problem.

    Attributes
    ----------
    family : str
        Kind of cost matrices, float32.
    machine : str
        The measured device and threads.
    times : dict of str to dict of Problems to float
        By solver and batch. A solver that failed on a batch has no time for it.
    skipped : dict of str to str
        Which solvers, or solvers and batches, have no time, and why.
    """

    SUBJECT: ClassVar[str] = "Linear assignment"

    family: str
    machine: str
    times: dict[str, dict[Problems, float]]
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def numbers(self) -> str:
        """What the problems are made of."""
        return f"{self.family} costs, float32"

    @property
    def batches(self) -> list[Problems]:
        """The batches that were solved."""
        return list(self.times[OURS])

    def ratio(self, problems: Problems) -> float:
        """Return the time of the fastest other solver over that of lwfm."""
        rivals = [times for name, times in self.times.items() if name.split(",")[0] != OURS]
        return (
            min((t[problems] for t in rivals if problems in t), default=math.nan) / self.times[OURS][problems]
        )

    def __str__(self) -> str:
        title = f"microseconds per problem, {self.numbers}, {self.machine}; totals agree"
        rows = [
            (
                str(problems),
                *(f"{times[problems]:.2f}" if problems in times else "-" for times in self.times.values()),
                f"{self.ratio(problems):.2f}",
            )
            for problems in self.batches
        ]
        titles = ("n x batch", *self.times, "ratio")
        notes = [f"left out: {name}: {reason}" for name, reason in self.skipped.items()]
        return "\n".join([title, text_table(">" * len(titles), titles, rows), *notes])

    def figure(self) -> Figure:
        """Draw time per problem over n, both logarithmic, one line a solver (dashed: larger batches)."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.add_subplot()
        for number, name in enumerate(self.times):
            self._draw(axes, name, "black" if name == OURS else f"C{number}")
        sizes = sorted({problems.n for problems in self.batches})
        axes.set_xlabel("n (rows and columns)")
        axes.set_ylabel("time per problem [µs]")
        axes.set_title(f"{self.SUBJECT}, {self.numbers}\n{self.machine}", fontsize="medium")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
        return figure

    def _draw(self, axes: Axes, name: str, color: str) -> None:
        series: tuple[dict[int, float], ...] = ({}, {})  # small batches and large ones
        for problems in self.batches:
            if problems in self.times[name]:
                series[problems.n in series[0]][problems.n] = self.times[name][problems]
        for times, style in zip(series, ("-", "--"), strict=True):
            if times:
                axes.plot(
                    list(times), list(times.values()), style, marker="o", markersize=4, color=color,
                    linewidth=2.5 if name == OURS else 1.2, label=name if style == "-" else None,
                )  # fmt: skip


@dataclass(frozen=True)
class TransportTimes(AssignmentTimes):
    """Microseconds per problem; ``family`` is the kind of weights."""

    SUBJECT: ClassVar[str] = "Optimal transport"

    @property
    def numbers(self) -> str:
        """What the problems are made of."""
        return f"cosine costs, {self.family} weights, float64"
