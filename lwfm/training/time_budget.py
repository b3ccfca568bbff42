"""As many epochs as fit into a number of minutes, by the measured time of the first steps."""

from __future__ import annotations

import math
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from tqdm import tqdm

if TYPE_CHECKING:
    import lightning

    from lwfm.training.modules import Learner

WARM_UP, TIMED = 2, 5
"""Batches before the clock runs, and batches that it measures."""

TRAINING_SHARE = 0.9
"""Share of the time for training; the rest is for the validations."""


class EpochsThatFit(Callback):
    """Choose the number of epochs of a run once its first batches were timed.

    The schedule of the learning rate then spans these epochs. The choice is kept in the checkpoint, so that a
    resumed run keeps its schedule, unless it has other `minutes`: then it chooses anew.

    Parameters
    ----------
    minutes : float
        Wall time of the run, validations included.
    """

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        self.epochs: int | None = None
        self._batches = 0
        self._began = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the choice (None before it was made) and the seconds that it is for."""
        return {"epochs": self.epochs, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the choice of the run that is resumed, if it is for the same time."""
        if state_dict["seconds"] == self.seconds:
            self.epochs = state_dict["epochs"]

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Apply the choice of a resumed run."""
        if self.epochs is not None:
            self._apply(trainer, pl_module, self.epochs)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object
    ) -> None:
        """Time the first batches, then choose."""
        if self.epochs is not None:
            return
        self._batches += 1
        if self._batches == WARM_UP:
            self._began = monotonic()
        elif self._batches == WARM_UP + TIMED:
            seconds = (monotonic() - self._began) / TIMED
            epoch = seconds * int(trainer.num_training_batches)
            fitting = max(int(TRAINING_SHARE * self.seconds / epoch), trainer.current_epoch + 1)
            self.epochs = int(trainer.strategy.broadcast(fitting))
            self._apply(trainer, pl_module, self.epochs)
            _announce(seconds, self.epochs, int(trainer.num_training_batches), self.seconds)

    def _apply(self, trainer: lightning.Trainer, module: lightning.LightningModule, epochs: int) -> None:
        trainer.fit_loop.max_epochs = epochs
        steps = math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches)
        cast("Learner", module).steps = epochs * steps


@rank_zero_only
def _announce(batch: float, epochs: int, batches: int, limit: float) -> None:
    plan = f"training {epochs} epoch{'s'[: epochs - 1]} of {batches} batches"
    if batch * batches * epochs > limit:
        plan = f"fewer than the {batches} batches of an epoch"
    tqdm.write(f"a batch takes {batch:.2f} s: {plan} within {limit / 60:g} min")
