"""The files of a training run: written whole, read without pickle, never overwritten by accident."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_warn

from lwfm._common.files import write_bytes_atomically
from lwfm.errors import UserError
from lwfm.model import save_model
from lwfm.model.network import load_parameters

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from lightning import LightningModule, Trainer

    from lwfm.training.modules import Learner


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files in a run folder.

    Attributes
    ----------
    path : Path
        The folder.
    """

    path: Path

    @property
    def best(self) -> Path:
        """Model of the best validation accuracy, for :func:`lwfm.model.load_model`."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """Everything needed to continue after the last whole epoch."""
        return self.path / "last.ckpt"

    @property
    def logs(self) -> Path:
        """Folder of version_0, version_1, ... for each start, with metrics.csv and TensorBoard events."""
        return self.path / "logs"

    @property
    def lock(self) -> Path:
        """Lock file, see :func:`lwfm.training.run_lock.exclusive_run`."""
        return self.path / "run.lock"

    def make(self, *, resume: bool) -> None:
        """Make the folder; UserError when that is impossible, or when it is to be resumed and missing."""
        if resume and not self.path.is_dir():
            raise self._nothing_to_resume()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot make the folder {self.path}: {error.strerror}") from error

    def check(self, *, resume: bool) -> None:
        """Check that the folder is new, or, when resuming, that it holds a run; UserError otherwise.

        Only the process that holds the lock may call it: half-written files are removed.
        """
        present = [file.name for file in (self.best, self.last, self.logs) if file.exists()]
        only_logs = present == [self.logs.name]
        if present and not only_logs and not self.last.is_file():
            raise UserError(
                f"{self.path} already holds {', '.join(present)}, but there is no {self.last.name} to resume "
                "from; remove those files to start anew, or choose another folder for --out"
            )
        if resume and not self.last.is_file():
            raise self._nothing_to_resume()
        if only_logs:
            warnings.warn(
                f"{self.path} holds only the logs of a run stopped in its first epoch: training starts anew",
                stacklevel=2,
            )
        elif present and not resume:
            raise UserError(
                f"{self.path} already holds a run ({', '.join(present)}): continue it with --resume true "
                "(resume=True in Python), or choose another folder for --out"
            )
        try:
            for half_written in self.path.glob(".*.part.*"):  # by a process that was killed
                half_written.unlink()
        except OSError as error:
            raise UserError(f"cannot remove {half_written}: {error.strerror}") from error

    def _nothing_to_resume(self) -> UserError:
        return UserError(
            f"nothing to resume: {self.last} is missing (a run writes it after its first epoch); start anew, "
            "without --resume"
        )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints atomically, and read tensors and plain values only (no pickle)."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write through :func:`lwfm._common.files.atomic_path`."""
        if storage_options is not None:
            raise TypeError("storage_options are not supported")
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_bytes_atomically(path, buffer.getbuffer())

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,
        weights_only: bool | None = None,  # noqa: ARG002 (part of the interface; nothing else is read here)
    ) -> dict[str, Any]:
        """Read a checkpoint; UserError when it is damaged or holds more than tensors and plain values."""
        try:
            checkpoint = dict(torch.load(path, map_location=map_location, weights_only=True))
        except Exception as error:  # torch.load may raise anything on a damaged file
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"cannot read the checkpoint {path}: {first_line}") from error
        return checkpoint


_MAY_CHANGE = ("epochs", "max_time", "patience", "precision", "optim")
"""Options, and a group of options, that take effect when a run is resumed with others."""


def epoch_to_resume(path: Path, module: Learner) -> int:
    """Return the epoch after a checkpoint's, and warn of options that the resumed run changes.

    Raises
    ------
    UserError
        The checkpoint cannot be read, an option that must stay as it was has changed, or the run has more
        epochs already than it is now to have.
    """
    checkpoint = AtomicCheckpointIO().load_checkpoint(path, map_location="cpu")
    settings, options = (_flatten(dict(x)) for x in (checkpoint.get("hyper_parameters", {}), module.hparams))
    changed = []
    for name in {**settings, **options}:
        before, now = settings.get(name), options.get(name)
        if before == now:
            continue
        shown = "" if name == "classes" else f": it was {before!r} and is now {now!r}"
        if name.split(".")[0] not in _MAY_CHANGE:
            raise UserError(f"{path} is of a run with another {name}{shown}; repeat its options to resume it")
        changed.append(f"{name}{shown}")
    try:
        first, epochs = int(checkpoint["epoch"]) + 1, options.get("epochs")
        load_parameters(module, dict(checkpoint["state_dict"]), source=str(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is not a whole checkpoint of lwfm: {error!r}") from error
    if epochs is not None and first > epochs:
        raise UserError(f"{path} is of a run that has {first} epochs already: epochs must not be {epochs}")
    if changed:
        rank_zero_warn(f"the run is resumed with other options: {'; '.join(changed)}", stacklevel=2)
    return first


def _flatten(settings: dict[str, Any]) -> dict[str, Any]:
    """Return all options in one dictionary, those of groups as ``model.NAME``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        group = value if isinstance(value, dict) else None
        flat |= {name: value} if group is None else {f"{name}.{key}": each for key, each in group.items()}
    return flat


class RunFiles(Checkpoint):
    """Write best.safetensors (by validation accuracy) and last.ckpt (after each epoch)."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.best: dict[str, float] = {}
        self.started = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Note that the state of the run is restored, where it is resumed."""
        self.started = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Export the model when it is the best so far."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if "val_" in name}
        if metrics["val_accuracy"] > self.best.get("val_accuracy", -1.0):
            self.best = {**metrics, "epoch": trainer.current_epoch}
            if trainer.is_global_zero:
                save_model(pl_module.model, self.folder.best)  # type: ignore[arg-type]  # a Learner's

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:  # noqa: ARG002
        """Write everything needed to continue from here."""
        trainer.save_checkpoint(self.folder.last)

    def state_dict(self) -> dict[str, Any]:
        """Return the metrics of the best model, which a resumed run compares with."""
        return dict(self.best)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned."""
        self.best = dict(state_dict)
