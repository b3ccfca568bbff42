"""Training steps and validation, as Lightning modules: episodes for LWFM-SPM, or ordinary classification."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Timer
from torch import Tensor

from lwfm._common.tensor_files import write_tensor_file
from lwfm.data import episode_labels
from lwfm.errors import UserError
from lwfm.evaluation.cached_maps import CachedMaps
from lwfm.evaluation.episodes import accuracy_of, run_episodes
from lwfm.evaluation.methods import BASELINE
from lwfm.model import LWFM, ModelConfig
from lwfm.nn import ClassLists

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LambdaLR

    from lwfm.data import ValidationPlan
    from lwfm.data.normalization import Normalization
    from lwfm.training.config import OptimConfig, SGDConfig

Images = tuple[Tensor, Tensor]
"""Images [B, 3, H, W] and the indices [B] of their classes."""


class Learner(lightning.LightningModule):
    """Base of both stages: optimizer, schedule, seeding, validation, and the stop at NaN.

    Parameters
    ----------
    model : ModelConfig
        Network to train.
    optim : SGDConfig
        Optimizer and schedule.
    classes : sequence of str
        The training classes.
    normalization : Normalization
        Channel statistics of the training images.
    steps : int
        Optimizer steps of the whole run, for the learning-rate schedule.
    seed : int
        All randomness of epoch e depends on (seed, e) only, so that a resumed run repeats it.
    validation : ValidationPlan
        Episodes measured after each epoch.
    settings : dict, optional
        Further options of the run, plain values, with which a resumed run is compared: see
        :func:`lwfm.training.checkpoints.epoch_to_resume`.

    Notes
    -----
    Logged after each epoch: ``val_accuracy`` of :attr:`method`, by which the best model is chosen, and
    ``val_nearest_class_mean`` of the baseline on the same episodes.
    """

    method: ClassVar[str] = "lwfm"
    """Whose accuracy is `val_accuracy`: one of :data:`lwfm.evaluation.methods.METHODS`."""

    def __init__(
        self,
        model: ModelConfig,
        optim: SGDConfig,
        classes: Sequence[str],
        normalization: Normalization,
        *,
        steps: int,
        seed: int,
        validation: ValidationPlan,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.optim: SGDConfig = optim
        self.steps = steps
        self.seed = seed
        self.validation = validation
        self.model = LWFM(model, classes, normalization).to(memory_format=torch.channels_last)
        self._maps: list[tuple[Tensor, ...]] = []
        # Plain values only: the checkpoint is read with weights_only=True.
        described = {"model": asdict(model), "optim": asdict(optim), **(settings or {})}
        self.save_hyperparameters({**described, "seed": seed, "classes": list(classes)})

    def configure_optimizers(self) -> Any:
        """Build SGD with Nesterov momentum, and step decay by the completed fraction of the run."""
        sgd = torch.optim.SGD(self.parameters(), **self._sgd_options())
        # Not trainer.estimated_stepping_batches: that starts the loaders before a resumed epoch is known.
        # `steps` is read at each step: it changes once the number of epochs is chosen by their time.
        schedule = torch.optim.lr_scheduler.LambdaLR(
            sgd, lambda step: self.optim.factor(max(step / self.steps, self._elapsed_fraction()))
        )
        return {"optimizer": sgd, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _sgd_options(self) -> dict[str, Any]:
        """Return the options of the optimizer."""
        return {
            "lr": self.optim.lr,
            "momentum": self.optim.momentum,
            "weight_decay": self.optim.weight_decay,
            "nesterov": self.optim.momentum > 0,
            # One pass over the weights. Not in half precision: it would undo the scaling after the clipping.
            "fused": self.device.type == "cpu" and self.trainer.precision != "16-mixed",
        }

    def on_train_start(self) -> None:
        """Apply the options of this start: a resumed optimizer and schedule hold those of the run before."""
        options, schedule = self._sgd_options(), cast("LambdaLR", self.lr_schedulers())
        schedule.base_lrs = [options["lr"]] * len(schedule.base_lrs)
        factor = schedule.lr_lambdas[0](schedule.last_epoch)
        for group in schedule.optimizer.param_groups:
            group.update(options, initial_lr=options["lr"], lr=options["lr"] * factor)

    def _elapsed_fraction(self) -> float:
        """Return the fraction of `max_time` that has passed, by the clock of rank 0 (0 without a limit).

        With clocks of their own the processes would take steps of different sizes, and their weights diverge.
        """
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]  # Trainer has them
            if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None:
                elapsed = callback.time_elapsed()
                return float(self.trainer.strategy.broadcast(elapsed / max(elapsed + left, 1e-9)))
        return 0.0

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,  # noqa: ARG002 - Lightning's signature
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,  # noqa: ARG002
    ) -> None:
        """Clip the norm here: Lightning would refuse a fused optimizer in bfloat16, which needs no scaler."""
        torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or torch.inf)

    def on_train_epoch_start(self) -> None:
        """Seed torch from the run's seed and the epoch, before the loaders draw their seeds."""
        sequence = np.random.SeedSequence([self.seed, self.current_epoch])
        torch.manual_seed(int(sequence.generate_state(1)[0]))

    def _stop_unless_finite(
        self, batch: Mapping[str, Images], batch_idx: int, values: Mapping[str, Sequence[Tensor]]
    ) -> None:
        """Raise UserError, naming the first of `values` with a NaN or an infinity, and save the batch."""
        finite = torch.stack(
            [
                torch.stack([torch.isfinite(each.detach()).all() for each in tensors]).all()
                for tensors in values.values()
            ]
        )
        if finite.all().item():  # the only wait for the device, however many values
            return
        what = next(name for name, good in zip(values, finite.tolist(), strict=True) if not good)
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
            f"the files of the epochs before are kept, and the images of that step are in {path}."
        )

    def validation_step(self, batch: Images, batch_idx: int) -> None:  # noqa: ARG002
        """Encode a batch of validation images; the episodes run when all are encoded."""
        self._maps.append(self.model.encode(batch[0]))

    def on_validation_epoch_end(self) -> None:
        """Run the fixed episodes on the maps and log both accuracies."""
        plan = self.validation
        layers = tuple(torch.cat(layer) for layer in zip(*self._maps, strict=True))
        self._maps.clear()
        maps = CachedMaps.build(layers, plan.indices, plan.images)
        shape = plan.way, plan.shot
        answers = run_episodes(self.model.head, maps, {shape: plan.episodes})[shape]
        self.log("val_accuracy", accuracy_of(answers[self.method], plan.way), prog_bar=True)
        self.log("val_nearest_class_mean", accuracy_of(answers[BASELINE], plan.way), prog_bar=True)


class _StepLists(NamedTuple):
    """Which images of a step are support images and queries, and their labels within the episodes."""

    classes: ClassLists
    support: Tensor
    """[E, S] int64: images of the step."""
    query: Tensor
    """[E, Q] int64."""
    targets: Tensor
    """[E Q] int64: class of each query within its episode."""

    @classmethod
    def make(cls, way: int, shot: int, episodes: int, images: int, device: torch.device) -> _StepLists:
        """Make the lists of episodes, support images first, of which all have as many images."""
        rows = torch.arange(images).view(episodes, -1)  # [E, S + Q]
        support, query = torch.tensor_split(rows, [way * shot], dim=1)
        targets = episode_labels(way, query.shape[1] // way).repeat(episodes)
        classes = ClassLists(episode_labels(way, shot), device=device)
        return cls(classes, *(x.contiguous().to(device) for x in (support, query, targets)))


class LWFMModule(Learner):
    """LWFM-SPM under training: ``episode_weight * CE(episodes) + CE(queries) + CE(auxiliary)``.

    The last two terms come from the linear classifier over all training classes, on the queries of the
    episodes and on ordinary training images. Each term is the mean over the episodes of a step.

    Parameters
    ----------
    optim : OptimConfig
        Loss weight, optimizer and schedule.
    way, shot : int
        Classes of the training episodes, and support images of each.
    per_step : int
        Episodes of a training step.
    model, classes, normalization, steps, seed, validation, settings
        As for :class:`Learner`.

    Notes
    -----
    Logged besides the validation: ``train_loss``, its parts, and ``train_accuracy`` on the episodes.
    """

    optim: OptimConfig

    def __init__(
        self,
        model: ModelConfig,
        optim: OptimConfig,
        classes: Sequence[str],
        normalization: Normalization,
        *,
        way: int,
        shot: int,
        per_step: int = 1,
        steps: int,
        seed: int,
        validation: ValidationPlan,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            model,
            optim,
            classes,
            normalization,
            steps=steps,
            seed=seed,
            validation=validation,
            settings=settings,
        )
        self.way = way
        self.shot = shot
        self.per_step = per_step
        self._lists: dict[tuple[int, torch.device], _StepLists] = {}

    def training_step(self, batch: dict[str, Images], batch_idx: int) -> Tensor:
        """Compute the loss of the step's episodes and auxiliary images, which pass the backbone together."""
        images, labels = batch["episode"]
        maps = self.model.encode(torch.cat([images, batch["auxiliary"][0]]))
        try:
            parts = self._losses(maps, labels, batch["auxiliary"][1])
        except ValueError:  # On the CPU the operators refuse NaN; on a GPU it reaches the loss.
            squares = [layer.detach().float().square().sum(1) for layer in maps]
            values = {"the feature maps": maps, "the squared norms of the feature maps": squares}
            self._stop_unless_finite(batch, batch_idx, values)
            raise
        loss = (
            self.optim.episode_weight * parts["episode_loss"] + parts["query_loss"] + parts["auxiliary_loss"]
        )
        self._stop_unless_finite(batch, batch_idx, {"the feature maps": maps, "the loss": [loss]})
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False)
        self.log_dict(parts, on_step=False, on_epoch=True, batch_size=len(images))
        return loss

    def _losses(self, maps: Sequence[Tensor], labels: Tensor, auxiliary_labels: Tensor) -> dict[str, Tensor]:
        """Compute the unweighted parts of the loss, and the accuracy; images of the episodes come first."""
        head, lists = self.model.head, self._lists_of(len(labels), labels.device)
        parts = (torch.split(layer, [len(labels), len(auxiliary_labels)]) for layer in maps)
        images, auxiliary = zip(*parts, strict=True)
        compared = head.compare_episodes(
            head.encode(images), lists.support, lists.query, lists.classes, features=True
        )
        logits = head.logits(compared).flatten(0, 1)  # [E Q, way]
        class_logits = head.classify_features(cast("Tensor", compared.query_features)).flatten(0, 1)
        return {
            "episode_loss": F.cross_entropy(logits, lists.targets),
            "query_loss": F.cross_entropy(class_logits, labels[lists.query.flatten()]),
            "auxiliary_loss": F.cross_entropy(head.classify(auxiliary), auxiliary_labels),
            "train_accuracy": (logits.detach().argmax(-1) == lists.targets).float().mean(),
        }

    def _lists_of(self, images: int, device: torch.device) -> _StepLists:
        """Return the lists of the episodes of a step, made at the first step on a device."""
        if (images, device) not in self._lists:
            self._lists[images, device] = _StepLists.make(self.way, self.shot, self.per_step, images, device)
        return self._lists[images, device]


class ClassificationModule(Learner):
    """Ordinary classification of the training classes, the stage before the episodes.

    The loss is the cross-entropy of the linear classifier that the head keeps for its auxiliary loss, on the
    globally averaged maps of all chosen layers; nothing else of the head is trained. Parameters are those of
    :class:`Learner`.

    Notes
    -----
    Logged besides the validation: ``train_loss``, and ``train_accuracy`` of the classifier. `val_accuracy` is
    that of nearest class mean, the head having learned nothing yet.
    """

    method = BASELINE

    def training_step(self, batch: Images, batch_idx: int) -> Tensor:
        """Compute the cross-entropy of one batch."""
        images, labels = batch
        maps = self.model.encode(images)
        logits = self.model.head.classify(maps)
        loss = F.cross_entropy(logits, labels)
        self._stop_unless_finite({"images": batch}, batch_idx, {"the loss": [loss]})
        self.log("train_loss", loss, prog_bar=True, on_step=True, on_epoch=False)
        accuracy = (logits.detach().argmax(-1) == labels).float().mean()
        self.log("train_accuracy", accuracy, on_step=False, on_epoch=True, batch_size=len(images))
        return loss
