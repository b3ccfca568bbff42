"""Times of the head's forms as a table and as a figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lwfm._common.tables import text_table
from lwfm.bench.head_cases import DIMS, Case, product_flops

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

PASSES = ("forward", "forward+backward")
SQUARE = 1536
"""Rows and columns of the product that bounds the rate of ``torch.matmul`` on a machine."""


class Row(NamedTuple):
    """A measurement: seconds of a step, and the bytes of memory that it adds."""

    case: Case
    backward: bool
    form: str
    seconds: float
    memory: int | None


@dataclass(frozen=True)
class MatchingTimes:
    """Times and memory of every form of the head.

    Attributes
    ----------
    machine : str
        The measured device, torch and threads.
    rows : tuple of Row
        By case, pass and form.
    peak_rate : float
        Floating-point operations a second of a large square ``torch.matmul``.
    skipped : dict of str to str
        Which forms of which cases and passes are missing, and why.
    """

    machine: str
    rows: tuple[Row, ...]
    peak_rate: float
    skipped: dict[str, str] = field(default_factory=dict)

    def seconds(self, case: Case, backward: bool, form: str) -> float:
        """Return the time of one measurement."""
        return next(row.seconds for row in self.rows if row[:3] == (case, backward, form))

    def __str__(self) -> str:
        queries = ", ".join(map(str, sorted({row.case.queries for row in self.rows})))
        lines = [
            f"layers {list(DIMS)}, {queries} queries per class, float32, {self.machine}; "
            "logits and gradients agree; MB: the most memory that a step adds",
            text_table(
                ">>>>>>>", ("case", "pass", "form", "ms", "/ head", "/ products", "MB"), self._cells()
            ),
            f"torch.matmul of {SQUARE} x {SQUARE} x {SQUARE}: {self.peak_rate / 1e9:.0f} GFLOP/s",
        ]
        lines += [self._roofline(row) for row in self.rows if row.form == "products"]
        return "\n".join(lines + [f"left out: {name}: {reason}" for name, reason in self.skipped.items()])

    def _cells(self) -> Iterator[tuple[str, ...]]:
        for case, backward, form, seconds, memory in self.rows:
            head, products = (self.seconds(case, backward, name) for name in ("head", "products"))
            measured = (f"{1e3 * seconds:.3f}", f"{seconds / head:.2f}", f"{seconds / products:.2f}")
            yield (
                str(case),
                PASSES[backward],
                form,
                *measured,
                "-" if memory is None else f"{memory / 1e6:.0f}",
            )

    def _roofline(self, row: Row) -> str:
        """Describe the rate of the products, and the share of the head outside its own products."""
        rate = product_flops(row.case, backward=row.backward) / row.seconds
        own = product_flops(row.case, backward=row.backward, correlations=1) / rate
        head = self.seconds(row.case, row.backward, "head")
        return (
            f"{row.case!s:>10} {PASSES[row.backward]:>16}  products: {rate / 1e9:.0f} GFLOP/s; the head's "
            f"take {1e3 * own:.1f} ms at that rate, {max(0.0, 1 - own / head):.0%} of its time is outside"
        )

    def figure(self) -> Figure:
        """Draw the time of every form over the cases, forward and forward + backward."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4.5), layout="constrained")
        names = list(dict.fromkeys(row.form for row in self.rows))
        cases = list(dict.fromkeys(row.case for row in self.rows))
        width = 0.8 / len(names)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, backward in zip(panels, (False, True), strict=True):
            for n, name in enumerate(names):
                rows = [row for row in self.rows if row.form == name and row.backward == backward]
                places = [cases.index(row.case) + (n - (len(names) - 1) / 2) * width for row in rows]
                axes.bar(places, [1e3 * row.seconds for row in rows], width, label=name)
            axes.set_yscale("log")
            axes.set_xticks(range(len(cases)), [str(case) for case in cases], rotation=45, ha="right")
            axes.set_title(PASSES[backward])
            axes.set_xlabel("way x shot x F")
            axes.grid(axis="y", alpha=0.3)
        panels[0].set_ylabel("time of a step [ms]")
        panels[0].legend()
        figure.suptitle(f"The head on layers {list(DIMS)}, {self.machine}")
        return figure
