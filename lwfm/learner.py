"""One training step and one validation of LWFM-SPM, as a Lightning module."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from lwfm.comparison import BASELINE, CachedMaps, accuracy_of, run_episodes
from lwfm.data import episode_labels
from lwfm.errors import UserError
from lwfm.model import LWFM, ModelConfig
from lwfm.tensor_files import write_tensor_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lwfm.data import ValidationPlan
    from lwfm.normalization import Normalization


@dataclass(frozen=True)
class OptimConfig:
    """Loss and optimiser; the defaults are the paper's for miniImageNet.

    The published text gives the factor of the step decay but not when it is applied: `milestones` is
    this package's choice.

    Attributes
    ----------
    episode_weight : float
        Weight (lambda) of the episodes' loss beside the two losses of the classifier.
    lr : float
        Learning rate of SGD with Nesterov momentum.
    momentum : float
        Of SGD.
    weight_decay : float
        Of SGD, on every parameter.
    clip_norm : float
        The gradient's norm is clipped at this.
    decay : float
        Factor of the learning rate at each milestone.
    milestones : tuple of float
        When the learning rate decays, as fractions of the run: of its steps, or of its `max_time` when
        that is nearer to its end.
    """

    episode_weight: float = 0.25
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float = 2.0
    decay: float = 0.05
    milestones: tuple[float, ...] = (0.7,)

    def __post_init__(self) -> None:
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"optim.{name} must be positive, not {getattr(self, name)}")
        for name in ("episode_weight", "momentum", "weight_decay", "decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"optim.{name} must not be negative, and is {getattr(self, name)}")
        if not all(0 < milestone <= 1 for milestone in self.milestones):
            raise UserError(
                f"optim.milestones must be fractions of the run, above 0 up to 1, not {self.milestones}"
            )

    def factor(self, progress: float) -> float:
        """Learning rate after the fraction ``progress`` (0..1) of the run, relative to the first.

        Examples
        --------
        >>> [OptimConfig(decay=0.1, milestones=(0.5, 0.8)).factor(p) for p in (0.0, 0.5, 0.7)]
        [1.0, 0.1, 0.1]
        """
        return float(self.decay ** sum(progress >= milestone for milestone in self.milestones))


class LWFMModule(lightning.LightningModule):
    """LWFM-SPM under training: ``episode_weight * CE(episode) + CE(queries) + CE(auxiliary)``.

    The two last terms come from the linear classifier over all training classes, on the queries of the
    episode and on a batch of ordinary training pictures.

    Parameters
    ----------
    model, optim : ModelConfig, OptimConfig
        What to train, and how.
    classes : sequence of str
        The training classes.
    normalization : Normalization
        Of the training pictures.
    way, shot : int
        Of the training episodes.
    steps : int
        Length of the whole run, for the schedule of the learning rate.
    seed : int
        All randomness of epoch e depends on (seed, e) only, so that a resumed run repeats it.
    validation : ValidationPlan
        What is measured after each epoch.

    Notes
    -----
    Logged: ``train_loss``, its parts, ``train_accuracy``, and after each epoch ``val_accuracy`` of the
    whole head and ``val_nearest_class_mean`` of the baseline on the same episodes.
    """

    def __init__(
        self,
        model: ModelConfig,
        optim: OptimConfig,
        classes: Sequence[str],
        normalization: Normalization,
        *,
        way: int,
        shot: int,
        steps: int,
        seed: int,
        validation: ValidationPlan,
    ) -> None:
        super().__init__()
        self.optim = optim
        self.way = way
        self.shot = shot
        self.steps = steps
        self.seed = seed
        self.validation = validation
        self.model = LWFM(model, classes, normalization).to(memory_format=torch.channels_last)
        self._maps: list[tuple[Tensor, ...]] = []
        # Plain values only: the checkpoint is read with weights_only=True.
        described = {"model": asdict(model), "way": way, "shot": shot, "seed": seed, "classes": list(classes)}
        self.save_hyperparameters(described)

    def configure_optimizers(self) -> Any:
        """SGD with Nesterov momentum and step decay over the fraction of the run."""
        optim = self.optim
        sgd = torch.optim.SGD(
            self.parameters(),
            lr=optim.lr,
            momentum=optim.momentum,
            weight_decay=optim.weight_decay,
            nesterov=optim.momentum > 0,
        )
        # Not trainer.estimated_stepping_batches: that starts the loaders before a resumed epoch is known.
        steps = self.steps
        schedule = torch.optim.lr_scheduler.LambdaLR(
            sgd, lambda step: optim.factor(max(step / steps, self._elapsed_fraction()))
        )
        return {"optimizer": sgd, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _elapsed_fraction(self) -> float:
        """How much of the allowed time is spent (0 when it is not limited)."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # Trainer has them
            if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None:
                elapsed = callback.time_elapsed()
                return elapsed / max(elapsed + left, 1e-9)
        return 0.0

    def on_train_epoch_start(self) -> None:
        """Seed everything from the run's seed and the epoch, before the loaders draw theirs."""
        sequence = np.random.SeedSequence([self.seed, self.current_epoch])
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    def training_step(self, batch: dict[str, tuple[Tensor, Tensor]], batch_idx: int) -> Tensor:
        """Loss of one episode and one auxiliary batch, which pass the backbone together."""
        images, labels = batch["episode"]
        together = torch.cat([images, batch["auxiliary"][0]])
        maps = self.model.encode(together.contiguous(memory_format=torch.channels_last))
        self._stop_unless_finite("the feature maps", batch, batch_idx, *maps)
        parts = self._losses(maps, labels, batch["auxiliary"][1])
        loss = (
            self.optim.episode_weight * parts["episode_loss"] + parts["query_loss"] + parts["auxiliary_loss"]
        )
        self._stop_unless_finite("the loss", batch, batch_idx, loss)
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False)
        self.log_dict(parts, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def _stop_unless_finite(
        self, what: str, batch: dict[str, tuple[Tensor, Tensor]], batch_idx: int, *values: Tensor
    ) -> None:
        """End a run that diverged, rather than train on; its batch is kept to be looked at."""
        if all(bool(torch.isfinite(value.detach()).all()) for value in values):
            return
        path = Path(self.trainer.default_root_dir) / "diverged.safetensors"
        tensors = {
            f"{part}.{name}": tensor
            for part, pair in batch.items()
            for name, tensor in zip(("images", "labels"), pair, strict=True)
        }
        described = {"what": what, "epoch": self.current_epoch, "step": batch_idx, "seed": self.seed}
        write_tensor_file(path, tensors, described, key="lwfm_batch")
        raise UserError(
            f"training diverged: {what} became NaN or infinite at epoch {self.current_epoch}, step "
            f"{batch_idx}. Try a smaller learning rate than {self.optim.lr}, or full precision; "
            f"the files of the epochs before are kept, and the pictures of that step are in {path}."
        )

    def _losses(self, maps: Sequence[Tensor], labels: Tensor, auxiliary_labels: Tensor) -> dict[str, Tensor]:
        """Unweighted parts of the loss, and the accuracy on the episode, whose pictures come first."""
        shots, pictures, head = self.way * self.shot, len(labels), self.model.head
        logits, class_logits = head(
            tuple(layer[:shots] for layer in maps),
            episode_labels(self.way, self.shot).to(labels.device),
            tuple(layer[shots:pictures] for layer in maps),
        )
        auxiliary_logits = head.classify(tuple(layer[pictures:] for layer in maps))
        targets = episode_labels(self.way, (pictures - shots) // self.way).to(labels.device)
        return {
            "episode_loss": F.cross_entropy(logits, targets),
            "query_loss": F.cross_entropy(class_logits, labels[shots:]),
            "auxiliary_loss": F.cross_entropy(auxiliary_logits, auxiliary_labels),
            "train_accuracy": (logits.detach().argmax(-1) == targets).float().mean(),
        }

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:  # noqa: ARG002
        """Keep the maps of a batch of validation pictures; the episodes follow when all are there."""
        self._maps.append(self.model.encode(batch[0].contiguous(memory_format=torch.channels_last)))

    def on_validation_epoch_end(self) -> None:
        """Run the fixed episodes on the maps."""
        plan = self.validation
        layers = tuple(torch.cat(layer) for layer in zip(*self._maps, strict=True))
        self._maps.clear()
        maps = CachedMaps.build(layers, plan.indices, plan.pictures)
        answers = run_episodes(self.model.head, maps, plan.episodes, way=plan.way, shot=plan.shot)
        self.log("val_accuracy", accuracy_of(answers["lwfm"], plan.way), prog_bar=True)
        self.log("val_nearest_class_mean", accuracy_of(answers[BASELINE], plan.way), prog_bar=True)
