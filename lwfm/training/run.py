"""A training run from its folder to its summary, whatever it trains."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import lightning

from lwfm.training.checkpoints import RunFiles, RunFolder, epoch_to_resume
from lwfm.training.trainer import ctrl_c_tells, is_first_process, make_trainer, quiet_lightning

if TYPE_CHECKING:
    from lwfm.data._datamodule_base import TrainingDataModule
    from lwfm.training.modules import Learner
    from lwfm.training.trainer import RunOptions


@dataclass(frozen=True)
class TrainingSummary:
    """What a run left behind.

    Attributes
    ----------
    best : Path
        The model of the best validation accuracy, for `lwfm evaluate`.
    last : Path
        The checkpoint from which `resume` continues.
    logs : Path
        Folder of metrics.csv and TensorBoard events of this start.
    val_accuracy, val_nearest_class_mean : float
        Of the best model, on the fixed validation episodes: the whole head, and the baseline; after
        pretraining, which leaves the head untrained, both are the baseline.
    best_epoch, epochs, steps : int
        Epoch (from 0) of the best model; epochs and steps trained, those before a resume included.
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


def begin(out: Path, run: RunOptions) -> RunFolder:
    """Open the folder of a run and seed everything; UserError for a folder in use or nothing to resume."""
    folder = RunFolder(Path(out))
    if is_first_process():
        folder.open(resume=run.resume)
    lightning.seed_everything(run.seed, workers=True, verbose=False)
    return folder


def fit(
    folder: RunFolder,
    images: TrainingDataModule,
    module: Learner,
    run: RunOptions,
    *,
    started: float,
    unused_parameters: bool,
) -> TrainingSummary:
    """Train a module on images, from the beginning or from where it stopped, and say what is left behind.

    Parameters
    ----------
    folder : RunFolder
        From :func:`begin`.
    images : TrainingDataModule
        Weights that demand a normalization of their own decide how they are scaled.
    module : Learner
        What is trained.
    run : RunOptions
        How.
    started : float
        When, by `time.monotonic`.
    unused_parameters : bool
        Whether the loss leaves some parameters out, which several processes must know.

    Raises
    ------
    UserError, KeyboardInterrupt
        As :func:`lwfm.training.train` says.
    """
    images.normalization = module.model.normalization or images.normalization
    if run.resume:
        images.first_epoch = epoch_to_resume(folder.last, module)
    files = RunFiles(folder)
    with quiet_lightning(), ctrl_c_tells(folder):
        trainer = make_trainer(
            folder, files, run, clip_norm=module.optim.clip_norm, unused_parameters=unused_parameters
        )
        start = folder.last if run.resume else None
        trainer.fit(module, datamodule=images, ckpt_path=start, weights_only=True)
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
