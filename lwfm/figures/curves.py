"""The curves of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from lwfm.figures.logs import read_log

if TYPE_CHECKING:
    from pathlib import Path


def curves_figure(logs: Path) -> Figure:
    """Draw loss and validation accuracy over the steps of a run from its ``metrics.csv``.

    Parameters
    ----------
    logs : Path
        The folder that `lwfm train` logged to: ``logs`` with all starts of the run, or one of them.

    Raises
    ------
    UserError
        If the folder has no readable metrics.csv.
    """
    columns = read_log(logs)
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    for axes, unit, scale in ((loss, "loss", 1.0), (accuracy, "accuracy", 100.0)):
        for name, (steps, values) in columns.items():
            shown = name.startswith("val_") if unit == "accuracy" else "loss" in name
            if shown and len(values):
                label = name.removeprefix("val_").removeprefix("train_").replace("_", " ")
                marker = "o" if len(values) == 1 else None  # a line of one point would not be seen
                axes.plot(steps, np.asarray(values) * scale, label=label, linewidth=1.2, marker=marker)
        axes.set_xlabel("step (episode)")
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(fontsize=8)
    loss.set_ylabel("training loss")
    accuracy.set_ylabel("accuracy on unseen validation classes (%)")
    return figure
