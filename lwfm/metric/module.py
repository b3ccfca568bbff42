"""Training of an encoder by a loss on its embeddings: one Lightning module, and the batches it sees."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lwfm._common.progress import progress
from lwfm.errors import UserError
from lwfm.training.trainer import quiet_lightning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy.typing as npt
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    Indices = npt.NDArray[np.int64]


class MetricModule(lightning.LightningModule):
    """An encoder under training.

    Parameters
    ----------
    encoder : nn.Module
        Inputs [B, ...] to embeddings [B, dim].
    loss : nn.Module
        ``loss(embeddings, labels)``, as those of pytorch-metric-learning; its parameters are trained too.
    optimizer : callable
        Parameters to an optimizer.
    schedule : callable, optional
        The optimizer to a schedule of its learning rate, by step.
    augment : callable, optional
        Inputs [B, ...] to varied inputs, drawn from torch's generator.
    """

    def __init__(
        self,
        encoder: nn.Module,
        loss: nn.Module,
        *,
        optimizer: Callable[[Any], Optimizer],
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.loss = encoder, loss
        self._optimizer, self._schedule, self._augment = optimizer, schedule, augment

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the loss of inputs [B, ...] and labels [B]; UserError when it is NaN or infinite."""
        inputs, labels = batch
        loss: Tensor = self.loss(self.encoder(self._augment(inputs) if self._augment else inputs), labels)
        if not torch.isfinite(loss):
            raise UserError(
                f"training diverged: the loss became NaN or infinite at step {batch_idx}; "
                "try a smaller learning rate"
            )
        return loss

    def configure_optimizers(self) -> Any:
        """Build the optimizer and its schedule."""
        optimizer = self._optimizer(self.parameters())
        if self._schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self._schedule(optimizer), "interval": "step"},
        }


@contextmanager
def seeded(seed: int) -> Iterator[np.random.Generator]:
    """Seed torch for a block, yield a NumPy generator of the same seed; torch's state is restored after."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield np.random.default_rng(seed)


def train(
    module: MetricModule, inputs: Tensor, labels: Tensor, batches: Indices, device: torch.device
) -> None:
    """Train a module on batches of inputs that are in memory, with a progress bar; leave it on the CPU.

    Parameters
    ----------
    module : MetricModule
        Ends in evaluation mode.
    inputs, labels : Tensor
        [N, ...] and [N] int64.
    batches : ndarray
        [steps, B] int64: the rows of each step.
    device : torch.device
        Where to compute.
    """
    shown: Any = progress(torch.as_tensor(batches), "training", "step")
    loader: DataLoader[Any] = DataLoader(_Rows(inputs, labels), sampler=shown, batch_size=None)
    with quiet_lightning():
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, loader)
    module.cpu().eval()


class _Rows(TensorDataset):
    """Rows by their indices, a whole batch at a time."""

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)


@torch.inference_mode()
def embed(
    encoder: nn.Module, inputs: Tensor, *, device: torch.device, batch_size: int = 2048
) -> npt.NDArray[np.float32]:
    """Compute the embeddings [N, dim] of inputs [N, ...] in batches, with a progress bar."""
    encoder.to(device).eval()
    batches = progress(torch.split(inputs, batch_size), "embedding", "batch")
    embedded = [encoder(batch.to(device)).float().cpu() for batch in batches]
    encoder.cpu()
    return torch.cat(embedded).numpy()


def weighted_batches(
    weights: npt.NDArray[np.float64], batch_size: int, steps: int, random: np.random.Generator
) -> Indices:
    """Draw batches [steps, batch_size] of rows with probabilities in proportion to weights [N]."""
    return random.choice(len(weights), (steps, batch_size), p=weights / weights.sum())


def balanced_weights(
    labels: Indices, groups: npt.NDArray[Any], *, most: int = 200
) -> npt.NDArray[np.float64]:
    """Return the probability of each row, equal in sum for all classes and nearly so for all groups.

    Within a class the weight of a group (such as a patient) grows with its number of rows, up to `most`:
    otherwise few groups with many rows of a class would dominate that class.

    Parameters
    ----------
    labels, groups : ndarray
        [N]: the class, and the group, of each row.
    most : int
        Rows of a class beyond which the weight of a group does not grow.

    Returns
    -------
    ndarray
        [N] float64 of sum 1.

    Examples
    --------
    >>> balanced_weights(np.array([0, 0, 1]), np.array(["a", "b", "a"])).tolist()
    [0.25, 0.25, 0.5]
    """
    _, codes = np.unique(groups, return_inverse=True)
    pairs, cell, counts = np.unique(np.c_[labels, codes], axis=0, return_inverse=True, return_counts=True)
    share = np.minimum(counts, most).astype(np.float64)
    classes = np.unique(labels)
    for label in classes:
        share[pairs[:, 0] == label] /= share[pairs[:, 0] == label].sum() * len(classes)
    return np.asarray((share / counts)[cell.reshape(-1)], dtype=np.float64)


def shuffled_batches(rows: int, batch_size: int, epochs: int, random: np.random.Generator) -> Indices:
    """Draw batches [steps, batch_size] in which an epoch has every row once, but for an incomplete batch."""
    size = min(batch_size, rows)
    steps = rows // size
    return np.concatenate(
        [random.permutation(rows)[: steps * size].reshape(steps, size) for _ in range(epochs)]
    )


def class_batches(
    labels: Indices, classes: int, shots: int, steps: int, random: np.random.Generator
) -> Indices:
    """Draw batches [steps, classes * shots] of `shots` rows of each of `classes` random classes."""
    rows = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    drawn = [
        [
            random.choice(rows[i], shots, replace=len(rows[i]) < shots)
            for i in random.choice(len(rows), min(classes, len(rows)), replace=False)
        ]
        for _ in range(steps)
    ]
    return np.array(drawn, dtype=np.int64).reshape(steps, -1)
