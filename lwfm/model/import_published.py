"""Conversion of the published code's checkpoints (``max_acc.pth``) to model files: ``lwfm import``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm.data.normalization import IMAGENET, Normalization
from lwfm.errors import UserError
from lwfm.model.network import LWFM, ModelConfig, load_parameters, save_model
from lwfm.model.weights import read_tensors

if TYPE_CHECKING:
    from torch import Tensor

_RENAMED = (
    (r"feature_extractor\.(?:initial_block\.)?(.+)", r"backbone.body.\1"),
    (r"matchers\.(\d+)\.linear\.([02]\.weight)", r"head.embeddings.\1.\2"),
    (r"fc\.(weight|bias)", r"head.classifier.\1"),
)
"""The published names, without data-parallel training's ``module.``, and ours."""
_DEEPER = "feature_extractor.layer1.2.conv1.weight"
"""The third block of the first stage, which ResNet-34 has and ResNet-18 has not."""


def import_checkpoint(
    checkpoint: Path,
    *,
    out: Path,
    layers: tuple[int, ...] = (7, 8),
    matching_weight: float = 0.25,
    attention_temperature: float = 5.0,
    temperature: float = 0.2,
    image_size: int = 84,
    mean: tuple[float, float, float] = IMAGENET.mean,
    std: tuple[float, float, float] = IMAGENET.std,
) -> Path:
    """Convert a checkpoint of the published code to a model file of this package.

    A checkpoint holds weights only. The options of the head are given here, by default the published ones for
    miniImageNet. The result is what `lwfm evaluate --checkpoint` and `lwfm match --checkpoint` read.

    Parameters
    ----------
    checkpoint : Path
        The published code's max_acc.pth. Nothing in it is executed.
    out : Path
        The model file to write (.safetensors). An existing file is replaced.
    layers : tuple of int
        Blocks whose maps are compared (-hyperpixel_ids of the published code).
    matching_weight : float
        Weight of semantic-pixel matching (-matcher_prob): 0.25; 1 for CUB and CIFAR-FS.
    attention_temperature : float
        Temperature of the cross-correlation weights (-temperature_attn): 5; 2 for CUB.
    temperature : float
        Divides the similarities (-temperature).
    image_size : int
        Side of the images in pixels.
    mean : tuple of float
        Mean of each color channel in training, for values in 0..1.
    std : tuple of float
        Standard deviation of each channel.

    Returns
    -------
    Path
        The model file.

    Raises
    ------
    UserError
        The file is missing, damaged, holds anything but tensors, or is of another network (the first tensor
        that differs is named).
    """
    if Path(out).suffix != ".safetensors":
        raise UserError(f"--out must end in .safetensors, and is {out}")
    if not Path(checkpoint).is_file():
        raise UserError(f"there is no checkpoint {checkpoint}; the published code writes max_acc.pth")
    tensors = read_tensors(checkpoint)
    config = ModelConfig(
        backbone="resnet34" if _DEEPER in tensors else "resnet18",
        layers=layers,
        image_size=image_size,
        embedding=any(name.startswith("matchers.") for name in tensors),
        matching_weight=matching_weight,
        attention_temperature=attention_temperature,
        temperature=temperature,
    )
    save_model(convert(tensors, config, Normalization(mean, std), source=str(checkpoint)), out)
    return Path(out)


def convert(
    tensors: dict[str, Tensor], config: ModelConfig, normalization: Normalization, *, source: str
) -> LWFM:
    """Build the model of a published state dictionary.

    Parameters
    ----------
    tensors : dict of str to Tensor
        ``feature_extractor...``, ``matchers.{l}.linear.{0,2}.weight``, ``fc.{weight,bias}``.
    config : ModelConfig
        How the weights are used.
    normalization : Normalization
        Of the images in training.
    source : str
        Where the tensors come from, for messages.

    Returns
    -------
    LWFM
        In evaluation mode. The published code knows its training classes by number only: they are called
        000, 001, ...

    Raises
    ------
    UserError
        A tensor is missing, superfluous, or has another shape; the first is named.
    """
    if "fc.weight" not in tensors or tensors["fc.weight"].ndim != 2:
        raise UserError(
            f"{source} is no checkpoint of the published code: it has no tensor fc.weight [classes, channels]"
        )
    classes = [f"{number:03d}" for number in range(len(tensors["fc.weight"]))]
    model = LWFM(config, classes, normalization)
    dropped = {f"backbone.body.{name}" for name in _later_blocks(config)}
    renamed = {}
    for name, tensor in tensors.items():
        ours = _our_name(name, source)
        if not any(ours.startswith(block) for block in dropped):
            renamed[ours] = tensor
    load_parameters(model, renamed, source=source)
    return model.eval()


def _our_name(name: str, source: str) -> str:
    for published, ours in _RENAMED:
        if re.fullmatch(published, name):
            return re.sub(published, ours, name)
    raise UserError(f"{source} is no checkpoint of the published code: it has a tensor {name!r}")


def _later_blocks(config: ModelConfig) -> list[str]:
    """Return the names of the blocks after the last compared layer, where the backbone ends."""
    blocks = (2, 2, 2, 2) if config.backbone == "resnet18" else (3, 4, 6, 3)
    names = [f"layer{stage}.{block}." for stage, count in enumerate(blocks, 1) for block in range(count)]
    return names[max(config.layers or (len(names),)) :]
