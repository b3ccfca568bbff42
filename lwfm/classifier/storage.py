"""A fitted classifier as one .safetensors file: the network's weights, the support maps, and JSON.

The head encodes the maps when they are read: that is cheap, and the file is less than half as large.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lwfm._common.records import build_record
from lwfm._common.tensor_files import read_tensor_file, tensors_under, write_tensor_file
from lwfm.classifier.labels import check_labels
from lwfm.classifier.support_set import SupportSet
from lwfm.data.white_levels import WhiteLevels
from lwfm.errors import UserError
from lwfm.model import LWFM, describe_model, rebuild_model

if TYPE_CHECKING:
    import os

    from torch import Tensor

METADATA_KEY = "lwfm_classifier"
_MODEL, _MAPS, _VIEWS, _LABELS = "model.", "support.", "views.", "support_labels"


def save_state(
    path: str | os.PathLike[str], network: LWFM, support: SupportSet, state: dict[str, Any]
) -> None:
    """Write a network, its support set and further JSON values, atomically."""
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {f"{_MAPS}{layer}": maps for layer, maps in enumerate(support.maps)}
    tensors |= {f"{_VIEWS}{kind}": statistics for kind, statistics in enumerate(support.views)}
    description = {
        **state,
        "model": describe_model(network),
        "classes": support.classes.tolist(),
        "names": list(support.names),
        "white": asdict(support.white),
    }
    write_tensor_file(Path(path), {**tensors, _LABELS: support.labels}, description, key=METADATA_KEY)


@dataclass(frozen=True)
class _Description:
    """What :func:`save_state` writes."""

    model: dict[str, Any]
    classes: list[Any]
    names: list[str]
    white: dict[str, Any]


def load_state(path: str | os.PathLike[str]) -> tuple[LWFM, SupportSet, dict[str, Any]]:
    """Read what :func:`save_state` wrote, on the CPU.

    Raises
    ------
    UserError
        When there is no such file, or it is damaged, of another kind, or contradicts itself.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}: FewShotClassifier.save writes one")
    state, tensors = read_tensor_file(file, key=METADATA_KEY, what="lwfm classifier")
    weights = tensors_under(_MODEL, tensors)
    try:
        described = build_record(_Description, state, others=True)
        network = rebuild_model(described.model, weights, source=str(file))
        maps = tuple(tensors[f"{_MAPS}{layer}"] for layer in range(len(network.backbone.layers)))
        classes = check_labels(None, described.classes)
        white = build_record(WhiteLevels, described.white)
        labels, names = tensors[_LABELS], tuple(described.names)
        views = tuple(
            tensors[f"{_VIEWS}{kind}"] for kind in range(sum(x.startswith(_VIEWS) for x in tensors))
        )
        network.head.layout.layers(maps, "the support maps")
        finite = all(layer.float().square().sum(1).isfinite().all() for layer in maps)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not a whole classifier: {error}") from error
    indices = labels.dtype == torch.int64 and labels.ndim == 1
    present = indices and sorted(set(labels.tolist())) == list(range(len(classes)))
    if not (present and len(labels) == len(names) == len(maps[0])):
        raise UserError(f"{file} is not a whole classifier: its images, labels and names do not agree")
    if not finite:
        raise UserError(f"{file} is not a whole classifier: its support maps hold NaN or infinite values")
    _check_views(views, network, len(names), str(file))
    with torch.inference_mode():
        encoded = network.head.encode(maps)
    return network, SupportSet(maps, encoded, labels, classes, names, white, views), state


def _check_views(views: tuple[Tensor, ...], network: LWFM, images: int, file: str) -> None:
    """Raise UserError for statistics that are not two a layer, [images, V, C_l], and finite."""
    dims = [C_l for C_l in network.backbone.layer_dims for _ in range(2)]
    shapes = [(images, views[0].shape[1], C_l) for C_l in dims] if views and views[0].ndim == 3 else []
    if views and [tuple(x.shape) for x in views] != shapes:
        raise UserError(f"{file} is not a whole classifier: its images and their views do not agree")
    if not all(x.is_floating_point() and bool(x.isfinite().all()) for x in views):
        raise UserError(f"{file} is not a whole classifier: its views hold NaN or infinite values")
