"""Encoders: networks from one kind of input to an embedding."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


class ScaledNorm(nn.Module):
    """Bring embeddings [B, C] to one length.

    Parameters
    ----------
    length : float
        The length.

    Examples
    --------
    >>> ScaledNorm(10.0)(torch.tensor([[3.0, 4.0]]))
    tensor([[6., 8.]])
    """

    def __init__(self, length: float = 1.0) -> None:
        super().__init__()
        self.length = length

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the embeddings, scaled."""
        return self.length * F.normalize(embeddings, dim=-1)


class Ensemble(nn.ModuleList):
    """Encoders of the same rows, whose embeddings are joined: squared distances are the means of theirs.

    Networks that are trained from different weights on different batches err differently, and the mean of
    their distances less than each.

    Parameters
    ----------
    modules : iterable of nn.Module
        M encoders, from rows [B, ...] to embeddings [B, dim].

    Examples
    --------
    >>> Ensemble([nn.Linear(8, 4), nn.Linear(8, 4)])(torch.rand(2, 8)).shape
    torch.Size([2, 8])
    """

    def forward(self, rows: Tensor) -> Tensor:
        """Compute the joined embeddings [B, M * dim], as long as those of one encoder."""
        embedded = torch.cat([encoder(rows) for encoder in self], dim=1)
        return embedded / math.sqrt(len(self))


class WithInput(nn.Sequential):
    """An encoder of rows, whose embeddings are joined by the rows themselves.

    What a rare class or another batch needs may be lost in learned embeddings, and is still in the rows.

    Parameters
    ----------
    *modules : nn.Module
        From rows [B, G] to embeddings [B, dim].
    length : float
        To which rows are brought; 0 leaves them out.

    Examples
    --------
    >>> WithInput(nn.Linear(8, 4), length=2.0)(torch.rand(2, 8)).shape
    torch.Size([2, 12])
    """

    def __init__(self, *modules: nn.Module, length: float) -> None:
        super().__init__(*modules)
        self.length = length

    def forward(self, rows: Tensor) -> Tensor:
        """Compute the joined embeddings [B, dim + G]."""
        embedded = rows
        for module in self:
            embedded = module(embedded)
        if not self.length:
            return embedded
        return torch.cat([embedded, self.length * F.normalize(rows, dim=1)], dim=1)


def mlp(widths: Sequence[int], *, dropout: float = 0.0) -> nn.Sequential:
    """Build linear layers with ReLU and dropout between them.

    Parameters
    ----------
    widths : sequence of int
        Dimensions of the input, of each hidden layer and of the output.
    dropout : float
        Probability, after each hidden layer.

    Examples
    --------
    >>> mlp([8, 4, 2])(torch.zeros(3, 8)).shape
    torch.Size([3, 2])
    """
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class ConvEncoder1d(nn.Module):
    """Convolutional network for waveforms, with a waveform to compare with and further values beside them.

    Four convolutions of stride 2 with batch normalization and ReLU, averages of four stretches, and two
    linear layers. Each waveform is brought to mean 0 and standard deviation 1 first (z-score). Where there is
    one to compare with, the difference of both z-scores and the waveform in units of the other's range are
    further channels.

    Parameters
    ----------
    length : int
        L, samples of a waveform, at least 64.
    compared : bool
        Whether a waveform to compare with follows the first.
    context : int
        K, further values of each row.
    dim : int
        Of the embedding, which has length 1.

    Examples
    --------
    >>> ConvEncoder1d(256, context=3, dim=32).eval()(torch.randn(2, 259)).shape
    torch.Size([2, 32])
    """

    def __init__(self, length: int, *, compared: bool = False, context: int = 0, dim: int = 32) -> None:
        super().__init__()
        self.length, self.compared = length, compared
        layers: list[nn.Module] = []
        channels = 3 if compared else 1
        for inputs, outputs, kernel in ((channels, 16, 9), (16, 32, 7), (32, 48, 5), (48, 64, 5)):
            convolution = nn.Conv1d(inputs, outputs, kernel, stride=2, padding=kernel // 2)
            layers += [convolution, nn.BatchNorm1d(outputs), nn.ReLU()]
        self.waveform = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Dropout(0.2))
        self.embedding = nn.Sequential(mlp([4 * 64 + context, 64, dim]), ScaledNorm())

    def forward(self, rows: Tensor) -> Tensor:
        """Compute the embeddings [B, dim] of rows [B, L + K] or [B, 2 L + K]."""
        waveforms = 1 + self.compared
        first, *other, context = rows.tensor_split(
            [self.length * (number + 1) for number in range(waveforms)], dim=1
        )
        channels = [standardized(first)]
        if other:
            scale = (other[0].amax(1, keepdim=True) - other[0].amin(1, keepdim=True)).clamp(min=1e-6)
            channels += [channels[0] - standardized(other[0]), first / scale]
        features = self.waveform(torch.stack(channels, dim=1))
        embedded: Tensor = self.embedding(torch.cat([features, context], dim=1))
        return embedded


def standardized(waveforms: Tensor) -> Tensor:
    """Return waveforms [..., L] with mean 0 and standard deviation 1; constant ones become 0.

    Examples
    --------
    >>> standardized(torch.tensor([[1.0, 3.0], [5.0, 5.0]]))
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    centered = waveforms - waveforms.mean(-1, keepdim=True)
    return centered / centered.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)


class GeM(nn.Module):
    """Generalized mean of maps over their positions, ``(mean x^p)^(1/p)``, with a learned p [1]_.

    Parameters
    ----------
    p : float
        At the start; 1 is the mean, infinity the maximum.

    References
    ----------
    .. [1] F. Radenovic, G. Tolias, O. Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation",
       TPAMI 41, 2019.

    Examples
    --------
    >>> GeM(1.0)(torch.ones(2, 8, 3, 3)).shape
    torch.Size([2, 8])
    """

    def __init__(self, p: float = 3.0) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))

    def forward(self, maps: Tensor) -> Tensor:
        """Compute the means [B, C] of maps [B, C, H, W]; values below 0.000001 count as that."""
        return maps.clamp(min=1e-6).pow(self.p).mean((-2, -1)).pow(1 / self.p)


class ConvEncoder2d(nn.Module):
    """Small convolutional network for gray images, which keeps where in the image something is.

    Each image is brought to mean 0 and standard deviation 1; four convolutions of stride 2 with batch
    normalization and ReLU, averages of 4 x 4 places, and two linear layers.

    Parameters
    ----------
    dim : int
        Of the embedding.
    dropout : float
        Probability, before the linear layers.

    Examples
    --------
    >>> ConvEncoder2d(32).eval()(torch.rand(2, 1, 64, 64)).shape
    torch.Size([2, 32])
    """

    def __init__(self, dim: int, dropout: float = 0.2) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, 16), (16, 32), (32, 64), (64, 64)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]
        self.maps = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Dropout(dropout))
        self.maps.to(memory_format=torch.channels_last)  # a step takes two thirds of the time on a CPU
        self.embedding = mlp([16 * 64, 128, dim], dropout=dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the embeddings [B, dim] of images [B, 1, H, W]."""
        embedded: Tensor = self.embedding(self.maps(standardized(images.flatten(1)).view_as(images)))
        return embedded


class ConvAutoencoder1d(nn.Module):
    """Convolutional autoencoder of windows of several channels, for a measure of how well it knows them.

    Three convolutions of stride 2 with ReLU and a linear layer make the embedding; a linear layer and three
    convolutions after upsampling rebuild the window. Channels are scaled by `center` and `scale` first,
    buffers that are saved with the weights.

    Parameters
    ----------
    channels, length : int
        C and W of a window; W is at least 8.
    dim : int
        Of the embedding.
    noise : float
        Standard deviation of normal noise on the scaled input in training; what is rebuilt has none.

    Examples
    --------
    >>> ConvAutoencoder1d(8, 36, dim=16).eval()(torch.randn(2, 8, 36)).shape
    torch.Size([2, 24])
    """

    center: Tensor
    scale: Tensor

    def __init__(self, channels: int, length: int, *, dim: int = 16, noise: float = 0.1) -> None:
        super().__init__()
        self.dim, self.noise, self.length, self.short = dim, noise, length, -(-length // 8)
        self.register_buffer("center", torch.zeros(channels))
        self.register_buffer("scale", torch.ones(channels))
        widths = (channels, 32, 48, 64)
        down: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            down += [nn.Conv1d(inputs, outputs, 5, stride=2, padding=2), nn.ReLU()]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(widths[-1] * self.short, dim))
        self.expand = nn.Linear(dim, widths[-1] * self.short)
        up: list[nn.Module] = []
        for inputs, outputs in pairwise(widths[:0:-1]):
            up += [nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv1d(inputs, outputs, 5, padding=2)]
        self.decoder = nn.Sequential(
            *up, nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv1d(widths[1], channels, 5, padding=2)
        )

    def forward(self, windows: Tensor) -> Tensor:
        """Compute rows [B, dim + C] of windows [B, C, W]: embeddings, and errors of channels."""
        scaled = (windows - self.center[:, None]) / self.scale[:, None]
        noisy = scaled + self.noise * torch.randn_like(scaled) if self.training else scaled
        embeddings = self.encoder(noisy)
        maps = self.expand(embeddings).unflatten(1, (-1, self.short))
        errors = (self.decoder(maps)[..., : self.length] - scaled).square().mean(2)
        return torch.cat([embeddings, errors], dim=1)


class SeparationUNet1d(nn.Module):
    """U-Net that estimates from other channels what is foreign in the first one, and subtracts it.

    It does not see the first channel, and so can remove nothing from it that the others do not explain. Two
    levels of convolutions with ReLU, joined by sums. The last convolution begins at zero: untrained, the
    first channel comes out as it is.

    Parameters
    ----------
    channels : int
        K, besides the first.
    width : int
        Maps of the first level, half those of the second.

    Examples
    --------
    >>> SeparationUNet1d(1)(torch.randn(2, 2, 64)).shape
    torch.Size([2, 2, 64])
    """

    def __init__(self, channels: int = 1, width: int = 24) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv1d(channels, width, 7, padding=3), nn.ReLU())
        self.down = nn.Sequential(nn.Conv1d(width, 2 * width, 5, stride=2, padding=2), nn.ReLU())
        self.deep = nn.Sequential(
            nn.Conv1d(2 * width, 2 * width, 9, stride=2, padding=4),
            nn.ReLU(),
            nn.Conv1d(2 * width, 2 * width, 5, padding=2),
            nn.ReLU(),
        )
        self.up = nn.Sequential(nn.Conv1d(2 * width, width, 5, padding=2), nn.ReLU())
        self.leave = nn.Conv1d(width, 1, 7, padding=3)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, waveforms: Tensor) -> Tensor:
        """Split the first channel of waveforms [B, 1 + K, W] in [B, 2, W]: what is kept, and the rest."""
        first = self.enter(waveforms[:, 1:])
        second = self.down(first)
        second = second + F.interpolate(self.deep(second), size=second.shape[-1])
        foreign = self.leave(first + F.interpolate(self.up(second), size=first.shape[-1]))[:, 0]
        return torch.stack([waveforms[:, 0] - foreign, foreign], dim=1)
