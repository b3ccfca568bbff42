"""Read a fitted classifier that :meth:`lwfm.FewShotClassifier.save` wrote, without torch.

Letters: S support images, l a layer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors

from lwfm._common.digests import digest_arrays
from lwfm.classifier.labels import check_labels
from lwfm.data.white_levels import WhiteLevels
from lwfm.errors import UserError
from lwfm.lite.encoded import encode_maps

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

    from lwfm.lite.encoded import EncodedImages
    from lwfm.lite.network import OnnxNetwork

METADATA_KEY, FORMAT = "lwfm_classifier", 1
"""Of the files that :mod:`lwfm.classifier.storage` writes, which imports torch."""
_MODEL, _MAPS, _VIEWS, _LABELS = "model.", "support.", "views.", "support_labels"

Arrays = dict[str, "npt.NDArray[Any]"]


@dataclass(frozen=True)
class SavedClassifier:
    """What a file holds, encoded for the head.

    Attributes
    ----------
    images : EncodedImages
        S support images.
    labels : ndarray
        [S], names or numbers.
    names : tuple of str
        Path of each image, or ``image N``.
    white : WhiteLevels
        How images of more than 8 bits are read.
    parameters : dict
        Of the classifier.
    temperature, calibrated_on
        As the attributes of the classifier.
    views : tuple of ndarray
        Statistics of further views of the images; empty without.
    """

    images: EncodedImages
    labels: npt.NDArray[Any]
    names: tuple[str, ...]
    white: WhiteLevels
    parameters: dict[str, Any]
    temperature: float
    calibrated_on: int
    views: tuple[npt.NDArray[np.float32], ...] = ()


def load_state(path: str | os.PathLike[str], network: OnnxNetwork) -> SavedClassifier:
    """Read a saved classifier of a network.

    Raises
    ------
    UserError
        When there is no such file, or it is damaged, of another kind or network, or contradicts itself.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {file}: lwfm.FewShotClassifier.save writes one")
    description, tensors = _read_file(file)
    weights = {
        name.removeprefix(_MODEL): tensor for name, tensor in tensors.items() if name.startswith(_MODEL)
    }
    fingerprint = digest_arrays(description.get("model", {}), dict(sorted(weights.items())))
    if fingerprint != network.description.get("fingerprint"):
        raise UserError(
            f"{network.path} is not the network of {file}: write it by "
            f"`lwfm export {file} --out {network.path}`"
        )
    try:
        return _build(description, tensors, weights)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not a whole classifier: {error}") from error


def _read_file(file: Path) -> tuple[dict[str, Any], Arrays]:
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError, TypeError) as error:
        raise UserError(f"{file} is not a readable .safetensors file: {error}") from error
    try:
        description = dict(json.loads(metadata[METADATA_KEY]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file} holds tensors but no lwfm classifier (its metadata lack the key {METADATA_KEY!r})"
        ) from error
    if description.get("format") != FORMAT:
        raise UserError(
            f"{file} has format {description.get('format')}, this version of lwfm reads {FORMAT}: "
            f"it was written by lwfm {description.get('version')}"
        )
    return description, tensors


def _build(description: dict[str, Any], tensors: Arrays, weights: Arrays) -> SavedClassifier:
    """Check what a file says against itself; KeyError, TypeError or ValueError where it does not agree."""
    config = description["model"]["config"]
    layers = sum(name.startswith(_MAPS) for name in tensors)
    maps = [tensors[f"{_MAPS}{layer}"] for layer in range(layers)]
    classes, indices = check_labels(None, description["classes"]), tensors[_LABELS]
    names = tuple(str(name) for name in description["names"])
    if sorted(set(indices.tolist())) != list(range(len(classes))):
        raise ValueError("its labels are not those of its classes")
    if any(len(layer) != len(names) or layer.ndim != 4 for layer in maps) or len(indices) != len(names):
        raise ValueError("its images, labels and names do not agree")
    embedding: list[npt.NDArray[np.float32]] = []
    if config["embedding"] and config["matching_weight"] > 0:
        embedding = [
            weights[f"head.embeddings.{layer}.{part}.weight"] for layer in range(layers) for part in (0, 2)
        ]
    images = encode_maps(maps, embedding, together=isinstance(config["feature_size"], int))
    temperature = float(description["temperature"])
    if not images.are_finite() or not temperature > 0:
        raise ValueError("it holds NaN or infinite values, or its temperature is not positive")
    return SavedClassifier(
        images,
        classes[indices],
        names,
        WhiteLevels(**description["white"]),
        dict(description["parameters"]),
        temperature,
        int(description["calibrated_on"]),
        _views(tensors, images),
    )


def _views(tensors: Arrays, images: EncodedImages) -> tuple[npt.NDArray[np.float32], ...]:
    """Return the statistics of views [S, V, C_l]; ValueError where they do not agree with the images."""
    views = tuple(tensors[f"{_VIEWS}{kind}"] for kind in range(sum(x.startswith(_VIEWS) for x in tensors)))
    dims = [x.shape[2] for x in images.positions for _ in range(2)]
    shapes = [(len(images), views[0].shape[1], C_l) for C_l in dims] if views and views[0].ndim == 3 else []
    if [x.shape for x in views] != shapes or not all(bool(np.isfinite(x).all()) for x in views):
        raise ValueError("its images and their views do not agree")
    return views
