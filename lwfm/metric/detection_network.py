"""Networks of detection: torchvision's FCOS on a fixed pretrained trunk, or with weights of the user's."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FeaturePyramidNetwork

from lwfm.data.normalization import IMAGENET
from lwfm.errors import UserError
from lwfm.model.default import build_network, default_config, pretrained_config
from lwfm.model.weights import load_tensors, read_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TORCHVISION = "fcos_resnet50_fpn"
"""The detector of torchvision that takes a file of weights."""
LOWEST = 0.01
"""Smallest score that a network returns: average precision needs the low ones too."""
BODY = "backbone.body."
"""Prefix of the tensors of the trunk."""
_CHANNELS, _STRIDES = 64, (8, 16, 32)
_OVERLAP = 0.5
"""Of two detections of one class: beyond it the one with the smaller score is left out."""
_LAYERS = {"resnet18": (4, 6, 8), "resnet34": (7, 13, 16), "resnet50": (7, 13, 16)}
"""Ends of the last three stages of torchvision's networks, whose blocks are numbered; timm numbers stages."""
_CLASS_LAYER = "head.classification_head.cls_logits."


class _Pyramid(nn.Module):
    """Feature pyramid on a fixed trunk, with the names that torchvision has."""

    def __init__(self, trunk: str, image_size: int) -> None:
        super().__init__()
        config = default_config() if trunk == "auto" else pretrained_config(trunk)
        sizes = tuple(image_size // stride for stride in _STRIDES)
        layers = _LAYERS.get(config.backbone, (2, 3, 4))
        network = build_network(replace(config, layers=layers, feature_size=sizes, image_size=image_size))
        with torch.inference_mode():
            found = [
                len(each[0, 0]) for each in _named(network.backbone.body(torch.zeros(1, 3, 64, 64))).values()
            ]
        if found != [64 // stride for stride in _STRIDES]:
            raise UserError(f"the layers of {config.backbone} have no strides of 8, 16 and 32")
        normalization = network.normalization or IMAGENET
        self.mean, self.std = list(normalization.mean), list(normalization.std)
        self.body = network.backbone.body
        self.fpn = FeaturePyramidNetwork(list(network.backbone.layer_dims), _CHANNELS)
        self.out_channels = _CHANNELS

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """Compute the maps of all levels."""
        maps: OrderedDict[str, Tensor] = self.fpn(_named(self.body(images)))
        return maps


def build_detector(classes: int, trunk: str, image_size: int) -> Any:
    """Build a detector of square images, whose trunk is fixed, in evaluation mode.

    Parameters
    ----------
    classes : int
        Number of classes.
    trunk : str
        ``auto`` or a backbone with ImageNet weights, under a pyramid and heads with random weights; or
        `TORCHVISION`, all of whose weights are random.
    image_size : int
        Side of the images.
    """
    sizes = {"min_size": image_size, "max_size": image_size}
    if trunk == TORCHVISION:
        network: Any = fcos_resnet50_fpn(
            weights=None, weights_backbone=None, num_classes=classes, score_thresh=LOWEST, **sizes
        )
    else:
        backbone = _Pyramid(trunk, image_size)
        head = FCOSHead(_CHANNELS, 1, classes, num_convs=2)
        # lengths are max(0, output): where a first output is below 0 they have no gradient
        nn.init.ones_(head.regression_head.bbox_reg.bias)
        network = FCOS(
            backbone,
            classes,
            image_mean=backbone.mean,
            image_std=backbone.std,
            anchor_generator=AnchorGenerator(tuple((each,) for each in _STRIDES), ((1.0,),) * len(_STRIDES)),
            head=head,
            score_thresh=LOWEST,
            nms_thresh=_OVERLAP,
            size_divisible=32,
            **sizes,
        )
    network.backbone.body.requires_grad_(False)
    return network.eval()


def read_detector(path: Path) -> tuple[dict[str, Tensor], int]:
    """Read the weights of torchvision's ``fcos_resnet50_fpn``: the tensors, and their number of classes.

    Raises
    ------
    UserError
        The file is missing or damaged, or holds anything but tensors.
    """
    tensors = read_tensors(path)
    classifier = tensors.get(f"{_CLASS_LAYER}weight")
    return tensors, 1 if classifier is None else len(classifier)


def load_detector(network: nn.Module, tensors: dict[str, Tensor], source: str, *, same_classes: bool) -> None:
    """Copy the tensors of :func:`read_detector` into a network; UserError names the first that does not fit.

    Without `same_classes` the last layer of the classes keeps its random weights.
    """
    left_out = () if same_classes else (_CLASS_LAYER,)
    load_tensors(network, tensors, name=TORCHVISION, source=source, left_out=left_out)


@torch.inference_mode()
def trunk_maps(network: Any, pixels: Tensor) -> list[Tensor]:
    """Compute the maps of the trunk of one square image [3, S, S] in 0..1."""
    images = network.transform.normalize(pixels)[None]
    return list(_named(network.backbone.body(images)).values())


def detection_loss(
    network: Any, maps: Sequence[Tensor], targets: list[dict[str, Tensor]], image_size: int
) -> Tensor:
    """Compute the sum of the losses of FCOS from the maps [B, C, h, w] of the trunk and the true boxes."""
    levels = list(network.backbone.fpn(_named(maps)).values())
    count = len(targets)
    shape = torch.zeros(1).expand(count, 3, image_size, image_size)  # of the images, which are not needed
    anchors = network.anchor_generator(ImageList(shape, [(image_size, image_size)] * count), levels)
    places = [level.shape[2] * level.shape[3] for level in levels]
    losses = network.compute_loss(targets, network.head(levels), anchors, places)
    return torch.stack(list(losses.values())).sum()


def _named(maps: Any) -> OrderedDict[str, Tensor]:
    """Return maps under the names that a pyramid expects."""
    layers = maps.values() if isinstance(maps, dict) else maps
    return OrderedDict((str(number), layer) for number, layer in enumerate(layers))
