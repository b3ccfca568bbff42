"""Lightning's trainer as a run uses it: its logs, its limits, its manners."""

from __future__ import annotations

import logging
import math
import signal
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import lightning
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lwfm._common.devices import Accelerator, choose_device
from lwfm.errors import UserError
from lwfm.training.checkpoints import AtomicCheckpointIO, RunFiles, RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator


Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class RunOptions:
    """How long a run trains, where, and in what numbers; :func:`lwfm.training.train` explains each."""

    epochs: int
    max_time: float | None
    seed: int
    resume: bool
    decoded: str
    workers: int
    accelerator: Accelerator
    precision: Precision
    accumulate: int
    patience: int | None
    devices: int
    nodes: int
    progress: bool

    @property
    def processes(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes

    def steps(self, batches: int) -> int:
        """Count the optimizer's steps in the whole run, at so many batches (of all processes) an epoch."""
        return self.epochs * math.ceil(batches / (self.accumulate * self.processes))

    def check(self, **counts: int) -> None:
        """Refuse, before any work, what would fail after it; ``counts`` must be at least 1, too."""
        counts |= {"epochs": self.epochs, "accumulate": self.accumulate}
        counts |= {"devices": self.devices, "nodes": self.nodes}
        counts |= {} if self.patience is None else {"patience": self.patience}
        for name, value in counts.items():
            if value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        if self.max_time is not None and not self.max_time > 0:
            raise UserError(f"max_time must be a positive number of minutes, not {self.max_time}")
        choose_device(self.accelerator)

    def decoded_folder(self, out: Path) -> Path | None:
        """Say where the decoded images of a run in `out` are kept, if they are."""
        if self.decoded == "none":
            return None
        return out.absolute().parent / "decoded-images" if self.decoded == "auto" else Path(self.decoded)


def make_trainer(
    folder: RunFolder, files: RunFiles, run: RunOptions, *, clip_norm: float, unused_parameters: bool
) -> lightning.Trainer:
    """Build Lightning's trainer with the run's logs, limits and files."""
    csv = CSVLogger(folder.path, name=folder.logs.name)
    callbacks: list[Callback] = [files]
    if run.max_time is not None:
        callbacks.append(Timer(timedelta(minutes=run.max_time)))
    if run.patience is not None:
        callbacks.append(EarlyStopping("val_accuracy", mode="max", patience=run.patience))
    if run.progress:
        callbacks.append(TQDMProgressBar())
    return lightning.Trainer(
        default_root_dir=folder.path,
        accelerator=run.accelerator,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=_strategy(run.processes, unused_parameters=unused_parameters),
        use_distributed_sampler=False,  # the data module shares the batches out itself
        accumulate_grad_batches=run.accumulate,
        precision=run.precision,
        max_epochs=run.epochs,
        gradient_clip_val=clip_norm,
        callbacks=callbacks,
        logger=[csv, TensorBoardLogger(folder.path, name=folder.logs.name, version=csv.version)],
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        enable_progress_bar=run.progress,
        enable_model_summary=False,
        plugins=[AtomicCheckpointIO()],
    )


def _strategy(processes: int, *, unused_parameters: bool) -> str:
    if processes == 1:
        return "auto"
    return "ddp_find_unused_parameters_true" if unused_parameters else "ddp"


def is_first_process() -> bool:
    """Whether this is the only process of a run, or the one of several that writes its files."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's advertisements and its advice about workers off the screen."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*callbacks used to create the checkpoint.*Timer.*")
            warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated.*")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def ctrl_c_tells(folder: RunFolder) -> Iterator[None]:
    """Turn Lightning's answer to Ctrl-C (it exits) back into KeyboardInterrupt, with a useful message."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        if folder.last.is_file():
            message = f"stopped; {folder.last} is whole: run again with resume to continue after its epoch"
        else:
            message = f"stopped in the first epoch: {folder.path} holds no checkpoint yet"
        raise KeyboardInterrupt(message) from stop
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)
