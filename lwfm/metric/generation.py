"""Generated windows, where too few were recorded: a Wasserstein GAN with gradient penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn

from lwfm._common.devices import choose_device
from lwfm._common.progress import progress
from lwfm._common.ranges import check_counts, check_positive
from lwfm.errors import UserError
from lwfm.metric.module import seeded

if TYPE_CHECKING:
    from lwfm._common.devices import Accelerator

_LATENT, _WIDTH, _CRITIC_STEPS, _PENALTY = 32, 32, 3, 10.0


class WGANGP1d:
    """Wasserstein GAN with gradient penalty [1]_ of windows of several channels.

    Channels are scaled by the mean and standard deviation of the windows. The critic has 3 steps for each of
    the generator, the penalty has weight 10, both are trained by Adam (0, 0.9).

    Parameters
    ----------
    steps, batch_size, learning_rate : int, int, float
        Steps of the generator.
    seed : int
        Of weights, batches and samples; runs on the CPU repeat exactly.
    accelerator : {"auto", "cpu", "gpu"}
        Where to compute.

    References
    ----------
    .. [1] I. Gulrajani and others, "Improved Training of Wasserstein GANs", NeurIPS 2017.

    Examples
    --------
    >>> WGANGP1d(steps=2).fit(torch.randn(20, 3, 16)).sample(5).shape
    torch.Size([5, 3, 16])
    """

    def __init__(
        self,
        steps: int = 100,
        batch_size: int = 32,
        learning_rate: float = 2e-3,
        seed: int = 0,
        accelerator: Accelerator = "auto",
    ) -> None:
        check_counts(steps=steps, batch_size=batch_size)
        check_positive(learning_rate=learning_rate)
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.seed, self.accelerator = seed, accelerator

    def fit(self, windows: Tensor) -> Self:
        """Train on windows [N, C, W], at least two.

        Raises
        ------
        UserError
            For windows of another shape, or a loss that becomes infinite.
        """
        if windows.ndim != 3 or len(windows) < 2:
            raise UserError(f"at least two windows [N, C, W] are needed, not {list(windows.shape)}")
        device = choose_device(self.accelerator)
        self.center_ = windows.mean((0, 2), keepdim=True)
        self.scale_ = windows.std((0, 2), keepdim=True).clamp(min=1e-6)
        real = ((windows - self.center_) / self.scale_).to(device)
        with seeded(self.seed) as random:
            self.generator_ = _generator(*real.shape[1:]).to(device)
            critic = _critic(*real.shape[1:]).to(device)
            # The first of Adam's means is off: the critic's loss moves, as the authors found.
            makers = [
                torch.optim.Adam(net.parameters(), self.learning_rate, (0.0, 0.9))
                for net in (self.generator_, critic)
            ]
            size = (self.steps, _CRITIC_STEPS, self.batch_size)
            batches = torch.as_tensor(random.integers(0, len(real), size))
            for each in progress(batches, "generator", "step"):
                for rows in each:
                    _step(makers[1], _critic_loss(critic, real[rows.to(device)], self.generator_))
                made = self.generator_(torch.randn(self.batch_size, _LATENT, device=device))
                _step(makers[0], -critic(made).mean())
        self.generator_.cpu().eval()
        return self

    @torch.inference_mode()
    def sample(self, count: int) -> Tensor:
        """Return `count` windows [count, C, W]; the same ones at every call."""
        check_counts(count=count)
        with seeded(self.seed):
            made: Tensor = self.generator_(torch.randn(count, _LATENT))
        return made * self.scale_ + self.center_


def _generator(channels: int, length: int) -> nn.Module:
    short = -(-length // 4)
    return nn.Sequential(
        nn.Linear(_LATENT, _WIDTH * short),
        nn.Unflatten(1, (_WIDTH, short)),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv1d(_WIDTH, _WIDTH, 5, padding=2),
        nn.ReLU(),
        nn.Upsample(size=length),
        nn.Conv1d(_WIDTH, channels, 5, padding=2),
    )


def _critic(channels: int, length: int) -> nn.Module:
    short = -(-length // 4)
    return nn.Sequential(
        nn.Conv1d(channels, _WIDTH, 5, stride=2, padding=2),
        nn.LeakyReLU(0.2),
        nn.Conv1d(_WIDTH, _WIDTH, 5, stride=2, padding=2),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(_WIDTH * short, 1),
    )


def _critic_loss(critic: nn.Module, real: Tensor, generator: nn.Module) -> Tensor:
    with torch.no_grad():
        made = generator(torch.randn(len(real), _LATENT, device=real.device))
    share = torch.rand(len(real), 1, 1, device=real.device)
    between = (share * real + (1 - share) * made).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
    found: Tensor = critic(made).mean() - critic(real).mean() + _PENALTY * penalty
    return found


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    if not torch.isfinite(loss):
        raise UserError("training of the generator diverged: try a smaller learning rate")
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch's types
    optimizer.step()
