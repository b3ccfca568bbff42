"""Loss weights, optimizer and learning rate of a training run."""

from __future__ import annotations

from dataclasses import dataclass

from lwfm.errors import UserError


@dataclass(frozen=True)
class SGDConfig:
    """Stochastic gradient descent with Nesterov momentum and step decay; defaults: from scratch.

    Attributes
    ----------
    lr : float
        Initial learning rate.
    momentum : float
        Nesterov momentum.
    weight_decay : float
        Weight decay of every parameter.
    clip_norm : float
        Maximum norm of the gradient, which is clipped to it.
    decay : float
        Factor of the learning rate at each milestone.
    milestones : tuple of float
        When the learning rate decays, as fractions of the run: of its steps, or of its `max_time` when
        that is nearer to its end.
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    clip_norm: float = 2.0
    decay: float = 0.1
    milestones: tuple[float, ...] = (0.6, 0.8)

    def __post_init__(self) -> None:
        for name in ("lr", "clip_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"optim.{name} must be positive, not {getattr(self, name)}")
        for name in ("momentum", "weight_decay", "decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"optim.{name} must not be negative, and is {getattr(self, name)}")
        if not all(0 < milestone <= 1 for milestone in self.milestones):
            raise UserError(
                f"optim.milestones must be fractions of the run, above 0 up to 1, not {self.milestones}"
            )

    def factor(self, progress: float) -> float:
        """Return the learning rate after the fraction ``progress`` (0..1) of the run, relative to the first.

        Examples
        --------
        >>> [SGDConfig(decay=0.1, milestones=(0.5, 0.8)).factor(p) for p in (0.0, 0.5, 0.7)]
        [1.0, 0.1, 0.1]
        """
        return float(self.decay ** sum(progress >= milestone for milestone in self.milestones))


@dataclass(frozen=True)
class OptimConfig(SGDConfig):
    """Loss and optimizer of training on episodes; the defaults are the paper's for miniImageNet.

    The published text gives the factor of the step decay but not when it is applied: `milestones` is
    this package's choice.

    Attributes
    ----------
    episode_weight : float
        Weight (lambda) of the episode loss in the sum with the two losses of the classifier.
    """

    episode_weight: float = 0.25
    lr: float = 0.01
    decay: float = 0.05
    milestones: tuple[float, ...] = (0.7,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.episode_weight >= 0:
            raise UserError(f"optim.episode_weight must not be negative, and is {self.episode_weight}")
