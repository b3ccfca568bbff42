"""The whole network: a backbone with the LWFM-SPM head, and its file format."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lwfm._common.records import build_record
from lwfm._common.tensor_files import holds_description, read_tensor_file, write_tensor_file
from lwfm.data.normalization import Normalization
from lwfm.errors import UserError
from lwfm.model.backbones import build_backbone
from lwfm.model.weights import load_tensors
from lwfm.nn import HeadCentre, LayerReduction, LWFMHead

if TYPE_CHECKING:
    from collections.abc import Sequence

_METADATA_KEY = "lwfm"


@dataclass(frozen=True)
class ModelConfig:
    """Options of the network; the defaults are the paper's.

    Attributes
    ----------
    backbone : str
        resnet18, resnet34, resnet50, resnet12, conv4, or timm:NAME for any network of timm.
    layers : tuple of int, optional
        Blocks whose maps are compared; by default the backbone's own choice (7 and 8 of ResNet-18).
    feature_size : int or tuple of int
        Side F to which the maps are pooled; one number, or one for each layer.
    weights : str
        Initial weights of the backbone: none (random), imagenet, or the path of a weight file. A model of
        `lwfm pretrain` or `lwfm train` also sets the normalization of the images, and the classifier if
        that is over the same training classes.
    image_size : int
        Side of the square images in pixels.
    embedding : bool
        Whether matched positions are compared after the learned embedding.
    matching_weight : float
        Weight of the semantic-pixel matching term; 0 leaves it out.
    attention_temperature : float, optional
        Temperature of the cross-correlation weights of the positions; null weighs all positions alike.
    temperature : float
        Temperature by which the similarities are divided.
    top_k : int, optional
        How many of the best matched pairs are averaged; null averages all of them.
    layer_reduction : str
        The matched similarity is the max over the layers, or their mean.
    merge_shots : bool
        Whether a query is matched with all shots of a class at once, or with each.
    centre : str
        What is subtracted from positions: the mean over their channels, and with task also the mean of the
        episode's support positions, with episode that of support images and queries.
    regression_weight : float
        Weight of a ridge regression of the classes on mean and spread of each image's positions; 0 leaves it
        out.
    """

    backbone: str = "resnet18"
    layers: tuple[int, ...] | None = None
    feature_size: int | tuple[int, ...] = 3
    weights: str = "none"
    image_size: int = 84
    embedding: bool = True
    matching_weight: float = 0.25
    attention_temperature: float | None = 5.0
    temperature: float = 0.2
    top_k: int | None = 1
    layer_reduction: LayerReduction = "max"
    merge_shots: bool = False
    centre: HeadCentre = "channels"
    regression_weight: float = 0.0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build from plain values (of JSON and checkpoints); UserError at an unknown name or type."""
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - names):
            raise UserError(
                f"unknown model option(s) {', '.join(unknown)}; known are {', '.join(sorted(names))}"
            )
        return build_record(cls, values)


class LWFM(nn.Module):
    """A backbone and the LWFM-SPM head on its maps.

    Parameters
    ----------
    config : ModelConfig
        Options of the backbone and the head.
    classes : sequence of str
        Names of the training classes; a linear classifier over them is part of the training loss. Without
        any there is no classifier.
    normalization : Normalization, optional
        Of the images in training. Pretrained backbones that need their own override it.

    Attributes
    ----------
    backbone, head : Backbone, LWFMHead
        The two parts.
    normalization : Normalization or None
        Of the images that the network takes.

    Examples
    --------
    >>> import torch
    >>> model = LWFM(ModelConfig(backbone="conv4", image_size=32)).eval()
    >>> support, query = torch.rand(5, 3, 32, 32), torch.rand(4, 3, 32, 32)
    >>> model(support, torch.arange(5), query).shape
    torch.Size([4, 5])
    """

    def __init__(
        self, config: ModelConfig, classes: Sequence[str] = (), normalization: Normalization | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.classes = tuple(classes)
        start = load_model(config.weights) if _is_model_file(config.weights) else None
        self.backbone = build_backbone(
            config.backbone,
            layers=config.layers,
            feature_size=config.feature_size,
            weights=config.weights if start is None else "none",
            image_size=config.image_size,
        )
        self.normalization = self.backbone.normalization or normalization
        self.head = build_head(config, self.backbone.layer_dims, len(self.classes) or None)
        if start is not None:
            self._start_from(start)

    def _start_from(self, start: LWFM) -> None:
        """Copy another model's weights, all but the head's embedding."""
        name, source = self.config.backbone, f"the model {self.config.weights} ({start.config.backbone})"
        load_tensors(self.backbone.body, start.backbone.body.state_dict(), name=name, source=source)
        self.normalization = start.normalization
        mine, theirs = self.head.classifier, start.head.classifier
        if mine is None or theirs is None or self.classes != start.classes:
            return
        if mine.weight.shape == theirs.weight.shape:  # else their layers differ
            mine.load_state_dict(theirs.state_dict())

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps [B, C_l, F_l, F_l] of every layer for images [B, 3, H, W]."""
        maps: tuple[Tensor, ...] = self.backbone(images)
        return maps

    def forward(
        self, support: Tensor, support_labels: Tensor, query: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Compare query images with the classes of the support images.

        Parameters
        ----------
        support : Tensor
            [S, 3, H, W], normalized images.
        support_labels : Tensor
            [S] int64 in 0..way-1.
        query : Tensor
            [Q, 3, H, W].

        Returns
        -------
        Tensor or (Tensor, Tensor)
            Logits [Q, way]; in training mode, when there are training classes, also the classifier's
            [Q, num_classes].
        """
        maps = self.encode(torch.cat([support, query]))
        shots = len(support)
        result: Tensor | tuple[Tensor, Tensor] = self.head(
            tuple(layer[:shots] for layer in maps), support_labels, tuple(layer[shots:] for layer in maps)
        )
        return result


def build_head(config: ModelConfig, layer_dims: Sequence[int], num_classes: int | None = None) -> LWFMHead:
    """Build the head of a configuration for layers of these channels, with random weights."""
    return LWFMHead(
        layer_dims,
        feature_size=config.feature_size,  # an int centers over all layers together (the paper)
        num_classes=num_classes,
        embedding=config.embedding,
        matching_weight=config.matching_weight,
        attention_temperature=config.attention_temperature,
        temperature=config.temperature,
        top_k=config.top_k,
        layer_reduction=config.layer_reduction,
        merge_shots=config.merge_shots,
        centre=config.centre,
        regression_weight=config.regression_weight,
    )


def save_model(model: LWFM, path: str | Path) -> None:
    """Write the model to one .safetensors file, atomically; UserError when the disk refuses.

    The file's metadata holds :func:`describe_model`: everything :func:`load_model` needs.
    """
    write_tensor_file(path, model.state_dict(), describe_model(model), key=_METADATA_KEY)


def _is_model_file(weights: str) -> bool:
    """Return whether weights are the path of what :func:`save_model` wrote."""
    return weights not in ("none", "imagenet") and holds_description(Path(weights), key=_METADATA_KEY)


def load_model(path: str | Path) -> LWFM:
    """Read a model that :func:`save_model` wrote, in evaluation mode, on the CPU.

    Raises
    ------
    UserError
        When there is no such file, it is no lwfm model, it is damaged, or its tensors do not fit the
        architecture that its configuration describes (the first parameter that differs is named).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no model file {path}; `lwfm train` writes one, best.safetensors, into its folder")
    if path.suffix == ".ckpt":
        raise UserError(
            f"{path} is the state of a run, from which `lwfm train --resume true` continues; the model is in "
            f"{path.with_name('best.safetensors')}"
        )
    if path.suffix in (".pth", ".pt"):
        raise UserError(
            f"{path} is a file of torch.save, not an lwfm model (.safetensors); `lwfm import` converts the "
            "published code's max_acc.pth"
        )
    description, tensors = read_tensor_file(path, key=_METADATA_KEY, what="lwfm model")
    return rebuild_model(description, tensors, source=str(path))


def describe_model(model: LWFM) -> dict[str, Any]:
    """Return the configuration, the training classes and the normalization as JSON values."""
    return {
        "config": asdict(model.config),
        "classes": list(model.classes),
        "normalization": asdict(model.normalization) if model.normalization else None,
    }


@dataclass(frozen=True)
class _Description:
    """What :func:`describe_model` returns."""

    config: dict[str, Any]
    classes: list[str]
    normalization: dict[str, list[float]] | None


@torch.inference_mode(mode=False)  # as in build_network
def rebuild_model(description: dict[str, Any], tensors: dict[str, Tensor], *, source: str) -> LWFM:
    """Build the model of a :func:`describe_model` around its state dictionary, in evaluation mode.

    Raises
    ------
    UserError
        Naming ``source``, when the description is not understood or the tensors do not fit it.
    """
    try:
        described = build_record(_Description, description, others=True)
        config = ModelConfig.from_dict(described.config)
        statistics = described.normalization
        normalization = None if statistics is None else build_record(Normalization, statistics)
        # The tensors hold every weight: the initial weights of the backbone are not read again.
        model = LWFM(replace(config, weights="none"), described.classes, normalization)
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(
            f"{source}: its description of the model is not understood by lwfm {version('lwfm')} "
            f"(it was written by {description.get('version', 'an unknown version')}): {error}"
        ) from error
    model.config = config
    load_parameters(model, tensors, source=source)
    return model.eval()


def load_parameters(model: nn.Module, tensors: dict[str, Tensor], *, source: str) -> None:
    """Load ``tensors`` into ``model``.

    Raises
    ------
    UserError
        Naming the first name, shape or dtype that differs, or the first parameter that is not finite.
    """
    expected = model.state_dict()
    for name, parameter in expected.items():
        if name not in tensors:
            raise UserError(f"{source} is of another architecture: it has no parameter {name!r}")
        found = tensors[name]
        if found.shape != parameter.shape or found.dtype != parameter.dtype:
            raise UserError(
                f"{source} is of another architecture: parameter {name!r} is {found.dtype} "
                f"{list(found.shape)} there, {parameter.dtype} {list(parameter.shape)} here"
            )
        if found.is_floating_point() and not found.isfinite().all():
            raise UserError(
                f"{source}: parameter {name!r} holds NaN or infinite values; the file is damaged, or "
                "training diverged: take an earlier one, or train with a lower learning rate"
            )
    if extra := [name for name in tensors if name not in expected]:
        raise UserError(f"{source} is of another architecture: its parameter {extra[0]!r} has no place here")
    model.load_state_dict(tensors)
