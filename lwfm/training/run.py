"""Run a Lightning training from its folder to its summary, for both stages."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lightning

from lwfm.errors import UserError
from lwfm.training.checkpoints import RunFiles, RunFolder, epoch_to_resume
from lwfm.training.run_lock import exclusive_run
from lwfm.training.trainer import explained_ctrl_c, is_first_process, make_trainer, quiet_lightning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lwfm.data._datamodule_base import TrainingDataModule
    from lwfm.training.modules import Learner
    from lwfm.training.trainer import RunOptions


@dataclass(frozen=True)
class TrainingSummary:
    """Files and results of a run.

    Attributes
    ----------
    best : Path
        Model of the best validation accuracy, for `lwfm evaluate`.
    last : Path
        Checkpoint from which `resume` continues.
    logs : Path
        Folder of metrics.csv and TensorBoard events of this start.
    val_accuracy, val_nearest_class_mean : float
        Of the best model, on the fixed validation episodes: the head and the baseline; after pretraining,
        which does not train the head, both are the baseline.
    best_epoch, epochs, steps : int
        Epoch (from 0) of the best model; epochs and steps trained, including those before a resume.
    seconds : float
        Wall time of this start.
    """

    best: Path
    last: Path
    logs: Path
    val_accuracy: float
    val_nearest_class_mean: float
    best_epoch: int
    epochs: int
    steps: int
    seconds: float


@contextmanager
def opened_run(out: Path, run: RunOptions) -> Iterator[RunFolder]:
    """Open the folder of a run, hold its lock, and seed everything.

    Of several processes that train together the first one holds the lock.

    Raises
    ------
    UserError
        For a folder in use, one that already holds a run, or nothing to resume.
    """
    folder = RunFolder(Path(out))
    with ExitStack() as stack:
        if is_first_process():
            folder.make(resume=run.resume)
            stack.enter_context(exclusive_run(folder.lock))
            folder.check(resume=run.resume)
        lightning.seed_everything(run.seed, workers=True, verbose=False)
        yield folder


def fit(
    folder: RunFolder,
    images: TrainingDataModule,
    module: Learner,
    run: RunOptions,
    *,
    started: float,
    unused_parameters: bool,
) -> TrainingSummary:
    """Train a module on images, from the beginning or resumed, and return the summary.

    Parameters
    ----------
    folder : RunFolder
        From :func:`opened_run`.
    images : TrainingDataModule
        Data; normalized as pretrained weights demand it, where they do.
    module : Learner
        Module to train.
    run : RunOptions
        Length, place and precision.
    started : float
        Start by `time.monotonic`.
    unused_parameters : bool
        Whether some parameters get no gradient, which DDP must know.

    Raises
    ------
    UserError, KeyboardInterrupt
        As :func:`lwfm.training.train` says.
    """
    images.normalization = module.model.normalization or images.normalization
    if run.resume:
        images.first_epoch = epoch_to_resume(folder.last, module)
    files = RunFiles(folder)
    with quiet_lightning(), explained_ctrl_c(folder):
        trainer = make_trainer(
            folder, files, run, clip_norm=module.optim.clip_norm, unused_parameters=unused_parameters
        )
        start = folder.last if run.resume else None
        try:
            trainer.fit(module, datamodule=images, ckpt_path=start, weights_only=True)
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if start is None or files.started or isinstance(error, UserError):
                raise
            raise UserError(f"the run cannot be resumed from {start}: {error!r}") from error
    return TrainingSummary(
        best=folder.best,
        last=folder.last,
        logs=Path(str(trainer.log_dir)),
        val_accuracy=files.best["val_accuracy"],
        val_nearest_class_mean=files.best["val_nearest_class_mean"],
        best_epoch=int(files.best["epoch"]),
        epochs=trainer.current_epoch,
        steps=trainer.global_step,
        seconds=round(time.monotonic() - started, 3),
    )
