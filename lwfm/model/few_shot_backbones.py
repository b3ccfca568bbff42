"""The two networks of the few-shot literature that no library ships: ResNet-12 and Conv-4.

Both read ``[B, 3, H, W]`` and consist of four blocks numbered 1 to 4, each of which halves the
resolution. Parameter names are those of the published checkpoints.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn


class ResNetBlock(nn.Module):
    """Three 3 x 3 convolutions with a projected shortcut, leaky ReLU (0.1) and 2 x 2 max pooling."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv3 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.downsample = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)
        )
        self.relu = nn.LeakyReLU(0.1)
        self.maxpool = nn.MaxPool2d(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[B, channels_in, H, W]`` to ``[B, channels_out, H // 2, W // 2]``."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out)) + self.downsample(x)
        pooled: torch.Tensor = self.maxpool(self.relu(out))
        return pooled


class FourBlocks(nn.Module):
    """Four blocks in sequence; returns the outputs of the chosen ones.

    Parameters
    ----------
    blocks
        The four blocks; they become ``layer1`` to ``layer4``.
    layers
        Ascending block numbers, 1 to 4. Later blocks are not run.
    """

    def __init__(self, blocks: list[nn.Sequential], layers: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = layers
        for number, block in enumerate(blocks, start=1):
            self.add_module(f"layer{number}", block)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the maps ``[B, C_l, H_l, W_l]`` of the chosen blocks."""
        maps = []
        for number in range(1, self.layers[-1] + 1):
            x = self.get_submodule(f"layer{number}")(x)
            if number in self.layers:
                maps.append(x)
        return tuple(maps)


RESNET12_WIDTHS = (64, 160, 320, 640)
CONV4_WIDTHS = (64, 64, 64, 64)


def resnet12(layers: tuple[int, ...]) -> FourBlocks:
    """Build ResNet-12 with 64-160-320-640 channels [1]_, without DropBlock.

    References
    ----------
    .. [1] K. Lee and others, "Meta-Learning with Differentiable Convex Optimization", CVPR 2019.

    Examples
    --------
    >>> [tuple(maps.shape) for maps in resnet12((3, 4))(torch.zeros(1, 3, 84, 84))]
    [(1, 320, 10, 10), (1, 640, 5, 5)]
    """
    blocks = [nn.Sequential(ResNetBlock(*widths)) for widths in pairwise((3, *RESNET12_WIDTHS))]
    return FourBlocks(blocks, layers)


def conv4(layers: tuple[int, ...]) -> FourBlocks:
    """Build Conv-4 [1]_: four times convolution (64 channels), batch normalization, ReLU, 2 x 2 max pooling.

    References
    ----------
    .. [1] O. Vinyals and others, "Matching Networks for One Shot Learning", NeurIPS 2016.

    Examples
    --------
    >>> [tuple(maps.shape) for maps in conv4((4,))(torch.zeros(1, 3, 84, 84))]
    [(1, 64, 5, 5)]
    """
    blocks = [
        nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        for channels_in, channels_out in pairwise((3, *CONV4_WIDTHS))
    ]
    return FourBlocks(blocks, layers)
