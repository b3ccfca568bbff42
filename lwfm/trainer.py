"""Lightning's trainer as a run uses it: its logs, its limits, its manners."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from lwfm.checkpoints import AtomicCheckpointIO, RunFiles, RunFolder
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


def make_trainer(
    folder: RunFolder,
    files: RunFiles,
    *,
    epochs: int,
    max_time: float | None,
    clip_norm: float,
    accelerator: str,
    precision: Any,
    accumulate: int,
    patience: int | None,
    devices: int,
    nodes: int,
    unused_parameters: bool,
    progress: bool,
) -> lightning.Trainer:
    """Build Lightning's trainer with the run's logs, limits and files."""
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("accelerator gpu was asked for, but torch finds no CUDA device; try cpu or auto")
    csv = CSVLogger(folder.path, name=folder.logs.name)
    callbacks: list[Callback] = [files]
    if max_time is not None:
        callbacks.append(Timer(timedelta(minutes=max_time)))
    if patience is not None:
        callbacks.append(EarlyStopping("val_accuracy", mode="max", patience=patience))
    if progress:
        callbacks.append(TQDMProgressBar())
    return lightning.Trainer(
        default_root_dir=folder.path,
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        strategy=_strategy(devices * nodes, unused_parameters=unused_parameters),
        use_distributed_sampler=False,  # the data module shares the episodes out itself
        accumulate_grad_batches=accumulate,
        precision=precision,
        max_epochs=epochs,
        gradient_clip_val=clip_norm,
        callbacks=callbacks,
        logger=[csv, TensorBoardLogger(folder.path, name=folder.logs.name, version=csv.version)],
        log_every_n_steps=10,
        num_sanity_val_steps=0,
        enable_progress_bar=progress,
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
