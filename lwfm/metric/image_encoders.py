"""Encoders of images: SE-ResNets from pixels, or their last stage on the maps of a fixed pretrained trunk."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwfm.data.normalization import IMAGENET
from lwfm.errors import UserError
from lwfm.metric.data.pictures import encode_layers, load_pixels
from lwfm.model.default import build_network, default_config, pretrained_config
from lwfm.model.weights import load_tensors, read_tensors

if TYPE_CHECKING:
    from lwfm._common.devices import Accelerator
    from lwfm.model.network import LWFM, ModelConfig


@dataclass(frozen=True)
class SEResNetConfig:
    """Bottlenecks of each of the four stages, and the channels of the stem."""

    blocks: tuple[int, int, int, int]
    width: int


SE_RESNETS = {
    "se_resnet50": SEResNetConfig((3, 4, 6, 3), 64),
    "se_resnet14": SEResNetConfig((1, 1, 1, 1), 32),
}
"""Trunks that are trained from pixels; any other name is a pretrained, fixed backbone of lwfm.model."""
_THIRD_STAGE = {"resnet18": 6, "resnet34": 13, "resnet50": 13, "resnet12": 3, "conv4": 3}
_SHRINKING = 16
"""Pixels of an image for one of its third stage's maps, along each side."""


def trunk_network(trunk: str, image_size: int) -> LWFM:
    """Build the fixed pretrained network whose maps of the third and of the last stage are read.

    Parameters
    ----------
    trunk : str
        ``auto``, or the name of a backbone, see :func:`lwfm.model.default.build_network`.
    image_size : int
        Side in pixels to which images are brought, a multiple of 32.

    Returns
    -------
    LWFM
        Its maps have ``image_size / 16`` and ``image_size / 32`` positions a side.
    """
    config: ModelConfig = default_config() if trunk == "auto" else pretrained_config(trunk)
    sizes = (image_size // _SHRINKING, image_size // (2 * _SHRINKING))
    third = _THIRD_STAGE.get(config.backbone)
    layers = None
    if third is not None:
        from lwfm.model.backbones import build_backbone

        layers = (third, build_backbone(config.backbone).layers[-1])
    return build_network(replace(config, layers=layers, feature_size=sizes, image_size=image_size))


def read_inputs(trunk: str, image_size: int, images: Any, accelerator: Accelerator) -> Tensor:
    """Return what an encoder with a trunk reads: pixels [N, 3, S, S], or maps of the third stage."""
    if trunk in SE_RESNETS:
        return load_pixels(images, image_size)
    return encode_layers(trunk_network(trunk, image_size), images, accelerator)[0]


def is_encoded(X: Any, trunk: str, image_size: int) -> bool:
    """Return whether X is what :func:`read_inputs` returns already; images have 3 channels, first or last."""
    if trunk in SE_RESNETS:
        shape = (3, image_size, image_size)
        return isinstance(X, Tensor) and X.is_floating_point() and X.shape[1:] == shape
    stack = isinstance(X, (np.ndarray, Tensor)) and X.ndim == 4
    return stack and X.shape[1] > 3 and X.shape[2] == X.shape[3]


def check_shape(shape: tuple[int, ...], trunk: str) -> None:
    """Raise UserError for the shape [C, F, F] of inputs that are no maps or pixels."""
    if len(shape) != 3:
        raise UserError(f"maps must be [N, C, F, F], not {['N', *shape]}")
    if shape[0] % 4 and trunk not in SE_RESNETS:
        raise UserError(f"the channels of maps must be a multiple of 4, not {shape[0]}")


def se_stage(inputs: int, outputs: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """Build a stage of timm's bottlenecks with squeeze and excitation (SE).

    Parameters
    ----------
    inputs, outputs : int
        Channels; the outputs are a multiple of 4.
    blocks : int
        How many; the first one has the stride.
    stride : int
        1 or 2.

    Examples
    --------
    >>> se_stage(16, 64, 2, stride=2)(torch.zeros(1, 16, 8, 8)).shape
    torch.Size([1, 64, 4, 4])
    """
    timm: Any = importlib.import_module("timm.models.resnet")  # slow to import
    layers = []
    for number in range(blocks):
        entering, step = (inputs, stride) if number == 0 else (outputs, 1)
        changes = entering != outputs or step > 1
        shortcut = timm.downsample_conv(entering, outputs, 1, step) if changes else None
        layers.append(timm.Bottleneck(entering, outputs // 4, step, shortcut, attn_layer="se"))
    return nn.Sequential(*layers)


class MixedAttention(nn.Module):
    """Mask branch: three SE bottlenecks, 1 x 1 convolution, batch normalization and sigmoid, multiplied on.

    Parameters
    ----------
    channels : int
        Of the maps, a multiple of 4.

    Examples
    --------
    >>> MixedAttention(16)(torch.ones(2, 16, 4, 4)).shape
    torch.Size([2, 16, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            se_stage(channels, channels, 3), nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
        )

    def mask(self, maps: Tensor) -> Tensor:
        """Compute the weight of each channel at each position [B, C, H, W], in 0..1."""
        return torch.sigmoid(self.branch(maps))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps [B, C, H, W] times their mask."""
        return maps * self.mask(maps)


class MixedAttentionResNet(nn.Module):
    """SE-ResNet with a mask branch after its third stage, and pooled maps of the fourth.

    Without a trunk of `SE_RESNETS` the inputs are maps of the third stage of a pretrained network, and only
    mask and fourth stage (two SE bottlenecks to 256 channels) are trained.

    Parameters
    ----------
    trunk : str
        A name of `SE_RESNETS`, which reads pixels in 0..1, or any other one for maps.
    channels : int
        Of the inputs.
    mask : bool
        Whether there is a mask branch.
    pool : nn.Module
        Maps [B, C, F, F] to [B, C].
    weights : str
        Of the trunk: ``none`` (random), or a file of timm's ``seresnet50``.

    Attributes
    ----------
    width : int
        Channels of the fourth stage.

    Examples
    --------
    >>> MixedAttentionResNet("maps", 112)(torch.zeros(2, 112, 4, 4)).shape
    torch.Size([2, 256])
    """

    def __init__(
        self,
        trunk: str,
        channels: int,
        *,
        mask: bool = True,
        pool: nn.Module | None = None,
        weights: str = "none",
    ) -> None:
        super().__init__()
        if trunk in SE_RESNETS:
            lower, upper, inner, self.width = _se_resnet(SE_RESNETS[trunk], trunk, weights)
        else:
            inner, self.width = channels, 256
            lower, upper = nn.BatchNorm2d(channels), se_stage(channels, self.width, 2, stride=2)
        self.lower, self.upper = lower, upper
        self.mask = MixedAttention(inner) if mask else nn.Identity()
        self.pool = pool or nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def stages(self) -> nn.Sequential:
        """Return the part before pooling: inputs [B, C, H, W] to maps [B, width, F, F]."""
        return nn.Sequential(self.lower, self.mask, self.upper)

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the pooled features [B, width] of inputs [B, C, H, W]."""
        pooled: Tensor = self.pool(self.stages()(inputs))
        return pooled


class StagedResNet(nn.Module):
    """Stages whose attention maps can be compared: all four of an SE-ResNet, or two on maps of a fixed trunk.

    Parameters
    ----------
    trunk, channels, weights
        See :class:`MixedAttentionResNet`.

    Attributes
    ----------
    width : int
        Channels of the last stage.

    Examples
    --------
    >>> [tuple(maps.shape) for maps in StagedResNet("maps", 112).maps(torch.zeros(2, 112, 4, 4))]
    [(2, 128, 4, 4), (2, 256, 2, 2)]
    """

    def __init__(self, trunk: str, channels: int, *, weights: str = "none") -> None:
        super().__init__()
        if trunk in SE_RESNETS:
            lower, upper, _, self.width = _se_resnet(SE_RESNETS[trunk], trunk, weights)
            parts = list(lower.children())
            self.stem, stages = nn.Sequential(*parts[:-3]), [*parts[-3:], upper]
        else:
            self.stem, self.width = nn.Sequential(nn.BatchNorm2d(channels)), 256
            stages = [se_stage(channels, 128, 1), se_stage(128, self.width, 1, stride=2)]
        self.stages = nn.ModuleList(stages)

    def maps(self, inputs: Tensor) -> list[Tensor]:
        """Compute the maps of every stage."""
        maps = [self.stem(inputs)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the pooled features [B, width] of inputs [B, C, H, W]."""
        return self.maps(inputs)[-1].mean((2, 3))


def _se_resnet(config: SEResNetConfig, name: str, weights: str) -> tuple[nn.Module, nn.Module, int, int]:
    """Build the stages of an SE-ResNet: until the third, the fourth, and the channels of both."""
    timm: Any = importlib.import_module("timm.models.resnet")
    network = timm.ResNet(
        timm.Bottleneck,
        config.blocks,
        num_classes=0,
        stem_width=config.width,
        channels=tuple(config.width * 2**stage for stage in range(4)),
        block_args={"attn_layer": "se"},
    )
    if weights != "none":
        load_tensors(network, read_tensors(weights), name=name, source=weights)
    stem = (_Normalized(), network.conv1, network.bn1, network.act1, network.maxpool)
    lower = nn.Sequential(*stem, network.layer1, network.layer2, network.layer3)
    return lower, network.layer4, 16 * config.width, 32 * config.width


class _Normalized(nn.Module):
    """Normalization of pixels in 0..1 by the statistics of ImageNet."""

    def forward(self, pixels: Tensor) -> Tensor:
        mean, std = (pixels.new_tensor(each)[:, None, None] for each in (IMAGENET.mean, IMAGENET.std))
        return (pixels - mean) / std


class WithPretrained(nn.Sequential):
    """An encoder on the maps of a fixed trunk, whose embeddings are joined by the means of these maps.

    What a class that training did not see needs may be lost in learned embeddings, and is still in the means.

    Parameters
    ----------
    *modules : nn.Module
        From maps [B, C, F, F] to embeddings [B, dim] of length 1.
    weight : float
        Length of the means; 0 leaves them out.

    Examples
    --------
    >>> encoder = WithPretrained(nn.AdaptiveAvgPool2d(1), nn.Flatten(), weight=2.0)
    >>> encoder(torch.rand(2, 8, 3, 3)).shape
    torch.Size([2, 16])
    """

    def __init__(self, *modules: nn.Module, weight: float) -> None:
        super().__init__(*modules)
        self.weight = weight

    def forward(self, maps: Tensor) -> Tensor:
        """Compute the joined embeddings, of length 1."""
        embedded = maps
        for module in self:
            embedded = module(embedded)
        if not self.weight:
            return embedded
        means = F.normalize(maps.mean((2, 3)), dim=1)
        return F.normalize(torch.cat([embedded, self.weight * means], dim=1), dim=1)


class Turned(nn.Module):
    """Augmentation of a batch [B, C, S, S]: one of the eight turns and flips of the square, and a shift.

    Pixels and maps are treated alike: maps of a turned image are nearly the turned maps.

    Parameters
    ----------
    shift : float
        Largest shift, as a share of the side; the border is repeated.

    Examples
    --------
    >>> Turned()(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(self, shift: float = 0.1) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, batch: Tensor) -> Tensor:
        """Turn every image of a batch by itself."""
        turns = torch.randint(8, (len(batch),), device=batch.device)
        turned = torch.empty_like(batch)
        for turn in range(8):
            chosen = turns == turn
            part = torch.rot90(batch[chosen], turn % 4, (-2, -1))
            turned[chosen] = part.flip(-1) if turn >= 4 else part
        if not self.shift:
            return turned
        angle = torch.eye(2, 3, device=batch.device).repeat(len(batch), 1, 1)
        angle[:, :, 2] = (2 * torch.rand(len(batch), 2, device=batch.device) - 1) * 2 * self.shift
        grid = F.affine_grid(angle, list(batch.shape), align_corners=False)
        return F.grid_sample(turned, grid, padding_mode="border", align_corners=False)


class Varied(nn.Module):
    """A random view of a batch [B, C, S, S]: turned and shifted, channels weighed, a square left out.

    On pixels the weights of the channels vary brightness and color.

    Parameters
    ----------
    gain : float
        Weights lie between 1 - gain and 1 + gain.
    left_out : float
        Side of the square that becomes the mean of its image, as a share of the image's.

    Examples
    --------
    >>> Varied()(torch.zeros(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """

    def __init__(self, gain: float = 0.3, left_out: float = 0.4) -> None:
        super().__init__()
        self.turned, self.gain, self.left_out = Turned(), gain, left_out

    def forward(self, batch: Tensor) -> Tensor:
        """Vary every image of a batch by itself."""
        images, channels, side = batch.shape[:3]
        weights = 1 + self.gain * (2 * torch.rand(images, channels, 1, 1, device=batch.device) - 1)
        turned = self.turned(batch) * weights
        hole = max(1, round(self.left_out * side))
        corners = torch.randint(side - hole + 1, (images, 2, 1), device=batch.device)
        places = torch.arange(side, device=batch.device)
        inside = (places >= corners) & (places < corners + hole)  # [B, 2, side]
        missing = (inside[:, 0, :, None] & inside[:, 1, None, :])[:, None]
        return torch.where(missing, turned.mean((2, 3), keepdim=True), turned)


def start_from(weights: str, encoder: MixedAttentionResNet | StagedResNet, trunk: str) -> None:
    """Copy the stages of a file of weights into an encoder, unless the file is ``none``."""
    if weights != "none":
        source = type(encoder)(trunk, 3, weights=weights).state_dict()
        kept = {name: each for name, each in source.items() if not name.startswith(("mask.", "pool."))}
        encoder.load_state_dict(kept, strict=False)


def check_trunk(trunk: str, image_size: int, weights: str) -> None:
    """Raise UserError for a trunk that is no name, sides not to be halved, and weights of no use."""
    if weights != "none" and trunk not in SE_RESNETS:
        raise UserError(f"weights are for the trunks {', '.join(SE_RESNETS)}, which are trained, not {trunk}")
    if not isinstance(trunk, str):
        raise UserError(f"trunk must be a name such as auto or se_resnet50, not {trunk!r}")
    if image_size % 32 or image_size < 32:
        raise UserError(f"image_size must be a multiple of 32, not {image_size}")
