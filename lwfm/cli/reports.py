"""Print results of commands, where that is more than the result's text."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lwfm.training import TrainingSummary


def print_training(summary: TrainingSummary) -> None:
    """Print what training reached, and draw its curves."""
    nearest = f" (nearest class mean {100 * summary.val_nearest_class_mean:.1f} %)"
    _print_run(summary, measured=nearest, following=f"lwfm evaluate --checkpoint {summary.best}")


def print_pretraining(summary: TrainingSummary) -> None:
    """Print what pretraining reached, and draw its curves."""
    following = f"lwfm train --model.weights {summary.best}, with the same model.backbone and layers"
    _print_run(summary, measured=" by nearest class mean", following=following)


def _print_run(summary: TrainingSummary, *, measured: str, following: str) -> None:
    from lwfm.figures import curves_figure, save_figure
    from lwfm.training.trainer import is_first_process

    if not is_first_process():
        return
    curves = summary.best.parent / "curves.png"
    print(
        f"trained {summary.steps} steps, {summary.epochs} epochs, in {summary.seconds:.0f} s\n"
        f"best epoch {summary.best_epoch}: accuracy {100 * summary.val_accuracy:.1f} % on unseen validation "
        f"classes{measured}\n"
        f"model   {summary.best}\nlogs    {summary.logs}\ncurves  {curves}\n"
        f"next:   {following}",
        flush=True,
    )
    save_figure(curves_figure(summary.logs.parent), curves)  # of all starts


def print_on_first_process(result: object) -> None:
    """Print a result once, although several processes started by torchrun have it."""
    if os.environ.get("RANK", "0") == "0":
        print(result)
