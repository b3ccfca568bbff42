"""Predictions for many images as a table, a CSV or a JSON file."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm._common.files import atomic_path
from lwfm._common.tables import text_table
from lwfm.errors import UserError

if TYPE_CHECKING:
    from lwfm.classifier.decision import Decision

COLUMNS = ("image", "label", "best", "probability", "runner_up", "runner_up_probability", "most_similar")
"""Columns of the CSV file and names in the JSON file."""

_FORMATS = (".csv", ".json")


def check_suffix(out: Path | None) -> None:
    """Raise UserError, before any work, for a file that :meth:`Answers.write` could not write."""
    if out is not None and (out.suffix.lower() not in _FORMATS or out.is_dir()):
        raise UserError(f"--out must be the name of a .csv or .json file, not {out}")


@dataclass(frozen=True)
class Answers:
    """Predictions for some images.

    Attributes
    ----------
    images : tuple of Path
        The files.
    decisions : tuple of Decision
        One for each.
    network : str
        The network, by name and weights.
    examples : int
        Number of support images.
    calibrated_on : int
        Held-out shots behind the probabilities; 0: they are not calibrated.
    """

    images: tuple[Path, ...]
    decisions: tuple[Decision, ...]
    network: str
    examples: int
    calibrated_on: int

    def rows(self) -> list[dict[str, str | float]]:
        """Return a dictionary with the keys :data:`COLUMNS` for each image."""
        return [
            {
                "image": str(image),
                "label": decision.label,
                "best": decision.best,
                "probability": round(decision.probability, 6),
                "runner_up": decision.runner_up,
                "runner_up_probability": round(decision.runner_up_probability, 6),
                "most_similar": decision.support_name,
            }
            for image, decision in zip(self.images, self.decisions, strict=True)
        ]

    def write(self, out: Path) -> None:
        r"""Write a .csv or .json file, completely or not at all.

        Bytes of file names that are not UTF-8 become escapes such as ``\udcff``, which a reader of JSON turns
        into the name that Python uses.
        """
        with (
            atomic_path(out) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,
        ):
            if out.suffix.lower() == ".json":
                heading = {"network": self.network, "calibrated_on": self.calibrated_on}
                json.dump({**heading, "answers": self.rows()}, file, indent=1, ensure_ascii=False)
                file.write("\n")
            else:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                writer.writerows(self.rows())

    def __str__(self) -> str:
        titles = ("image", "class", "", "runner-up", "", "most similar example")
        rows = []
        for image, decision in zip(self.images, self.decisions, strict=True):
            example = Path(decision.support_name)
            second = (f"{decision.best} (best)", "")  # of an image answered with unknown
            if decision.label == decision.best:
                second = (str(decision.runner_up), f"{100 * decision.runner_up_probability:.0f} %")
            row = (str(image), str(decision.label), f"{100 * decision.probability:.0f} %", *second)
            rows.append((*row, str(Path(example.parent.name, example.name))))
        calibration = (
            f"probabilities calibrated on {self.calibrated_on} held-out examples"
            if self.calibrated_on
            else "probabilities not calibrated: that takes two examples of every class and ten in all"
        )
        table = text_table("<<><><", titles, rows)
        return f"{table}\n{self.examples} examples, {self.network}; {calibration}"
