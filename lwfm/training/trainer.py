"""Build the Lightning Trainer of a run: options, loggers, callbacks, limits, warning filters."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lwfm._common.devices import Accelerator, choose_device
from lwfm._common.ranges import check_at_least, check_seed
from lwfm.errors import UserError
from lwfm.training.checkpoints import AtomicCheckpointIO, RunFiles, RunFolder
from lwfm.training.time_budget import EpochsThatFit

if TYPE_CHECKING:
    from collections.abc import Iterator


Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class RunOptions:
    """Length, place and precision of a run: what :func:`lwfm.training.train` and `pretrain` share.

    Attributes
    ----------
    epochs : int, optional
        Number of epochs, each followed by a validation; None: as many as fit into `max_time`, by the time
        that the first batches take.
    max_time : float, optional
        Minutes after which training ends (with a last validation), at the latest; the learning rate then
        decays by time. Counts the time before a resume.
    seed : int
        Of the weights, the episodes, the order of images and the augmentation. On one machine, CPU runs
        repeat exactly.
    resume : bool
        Continue the run in `out` after its last whole epoch. Options of its length (`epochs`, `max_time`,
        `patience`), of the optimizer and `precision` may differ: they take effect, and a warning names
        them. Other options that decide the result must be those of the run.
    decoded : str
        Folder that keeps the images decoded, one file for each split, so that later epochs and runs need
        not decode them; files are made again when the images change. auto: `decoded-images` beside
        `out`; none: decode each image whenever it is needed. Images are kept at twice the size that the
        network reads: larger ones are reduced.
    workers : int
        Processes that decode and augment images; 0 uses this one.
    accelerator : str
        Where to compute: auto takes a GPU when there is one.
    precision : str
        Number format; mixed precision is faster on a GPU.
    accumulate : int
        Batches (of `train`: of `episodes.per_step` episodes) whose gradients are averaged before each step
        of the optimizer.
    patience : int, optional
        Stop early when this many epochs in a row have not improved the validation accuracy.
    devices : int
        GPUs, or processes on the CPU, that share the batches of each step (Lightning's DDP): with n of them
        a step averages n batches, like `accumulate` n in one process.
    nodes : int
        Machines with `devices` each; start the same command on every one, as Lightning's manual says.
    progress : bool
        Whether a progress bar is shown on a terminal; files and pipes receive none.
    """

    epochs: int | None
    max_time: float | None = None
    seed: int = 0
    resume: bool = False
    decoded: str = "auto"
    workers: int = 0
    accelerator: Accelerator = "auto"
    precision: Precision = "32-true"
    accumulate: int = 1
    patience: int | None = None
    devices: int = 1
    nodes: int = 1
    progress: bool = True

    @property
    def processes(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes

    def steps(self, batches: int) -> int:
        """Return the optimizer steps of the whole run, for this many batches (of all processes) an epoch.

        As long as the number of epochs is open, it is without bound: the schedule then follows the clock.
        """
        if self.epochs is None:
            return sys.maxsize
        return self.epochs * math.ceil(batches / (self.accumulate * self.processes))

    def settings(self) -> dict[str, Any]:
        """Return what decides the result, for the comparison with the run that is resumed."""
        return {
            "epochs": self.epochs,
            "max_time": self.max_time,
            "patience": self.patience,
            "precision": self.precision,
            "accumulate * devices * nodes": self.accumulate * self.processes,
        }

    def check(self, **counts: int) -> None:
        """Raise UserError for options out of range; further ``counts`` must be at least 1, too."""
        if self.epochs is None and self.max_time is None:
            raise UserError("--epochs null trains as long as --max_time allows: give --max_time, in minutes")
        counts |= {} if self.epochs is None else {"epochs": self.epochs}
        counts |= {"accumulate": self.accumulate}
        counts |= {"devices": self.devices, "nodes": self.nodes}
        counts |= {} if self.patience is None else {"patience": self.patience}
        check_at_least(1, **counts)
        check_at_least(0, workers=self.workers)
        check_seed(self.seed)
        if self.max_time is not None and not self.max_time > 0:
            raise UserError(f"max_time must be a positive number of minutes, not {self.max_time}")
        choose_device(self.accelerator)

    def decoded_folder(self, out: Path) -> Path | None:
        """Return the folder of the decoded images of a run in `out`; None where they are not kept."""
        if self.decoded == "none":
            return None
        return out.absolute().parent / "decoded-images" if self.decoded == "auto" else Path(self.decoded)


class Patience(EarlyStopping):
    """Stop when this many epochs in a row have not improved the validation accuracy.

    Parameters
    ----------
    epochs : int
        Applies to a resumed run, too, whatever it was before.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__("val_accuracy", mode="max", patience=epochs)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the epochs without gain, not the patience."""
        super().load_state_dict({**state_dict, "patience": self.patience})


def make_trainer(
    folder: RunFolder, files: RunFiles, run: RunOptions, *, clip_norm: float, unused_parameters: bool
) -> lightning.Trainer:
    """Build Lightning's trainer with the run's logs, limits and files."""
    csv = CSVLogger(folder.path, name=folder.logs.name)
    callbacks: list[Callback] = [files]
    if run.max_time is not None:
        callbacks.append(Timer(timedelta(minutes=run.max_time)))
    if run.max_time is not None and run.epochs is None:
        callbacks.append(EpochsThatFit(run.max_time))
    if run.patience is not None:
        callbacks.append(Patience(run.patience))
    shown = run.progress and sys.stdout.isatty()
    if shown:
        callbacks.append(TQDMProgressBar())
    return lightning.Trainer(
        default_root_dir=folder.path,
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=_strategy(run.processes, unused_parameters=unused_parameters),
        use_distributed_sampler=False,  # the data module shards the batches itself
        accumulate_grad_batches=run.accumulate,
        precision=run.precision,
        max_epochs=-1 if run.epochs is None else run.epochs,
        gradient_clip_val=clip_norm,
        callbacks=callbacks,
        logger=[csv, TensorBoardLogger(folder.path, name=folder.logs.name, version=csv.version)],
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        enable_progress_bar=shown,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
    )


def _strategy(processes: int, *, unused_parameters: bool) -> str:
    if processes == 1:
        return "auto"
    return "ddp_find_unused_parameters_true" if unused_parameters else "ddp"


def is_first_process() -> bool:
    """Return whether this process writes the files of the run (rank 0 of the first machine)."""
    machine = os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0"))  # as Lightning reads it
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0 and int(machine) == 0


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's advertisements and its advice about workers."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*")
            warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def explained_ctrl_c(folder: RunFolder) -> Iterator[None]:
    """Turn the SystemExit of Lightning's Ctrl-C handler into KeyboardInterrupt, saying what is kept."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if folder.last.is_file():
            message = (
                f"stopped; {folder.last} is whole: run again with --resume true (resume=True in Python) "
                "to continue after its epoch"
            )
        else:
            message = (
                f"stopped in the first epoch: {folder.path} holds no checkpoint yet; "
                "the same command starts anew there"
            )
        raise KeyboardInterrupt(message) from stop
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
