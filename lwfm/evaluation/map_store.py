"""Maps of a whole split on disk: encoded once, memory-mapped, identified by all that they depend on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import safetensors
import torch

from lwfm._common.digests import digest_arrays
from lwfm._common.tensor_files import numpy_tensors, streamed_tensor_file
from lwfm.data.center_crop import VIEWS, CenterCrop
from lwfm.errors import UserError
from lwfm.evaluation.cached_maps import CachedMaps, encoded_batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from lwfm.data import ImageSet
    from lwfm.model import LWFM

MapsDtype = Literal["float32", "float16"]


def maps_fingerprint(model: LWFM, images: ImageSet, dtype: MapsDtype, *, views: bool = False) -> str:
    """Return the SHA-256 of all that the maps depend on: backbone weights and layers, images, precision.

    The head is not included: any head can be evaluated on the same maps.
    """
    normalization = model.normalization or images.normalization
    described = {
        "backbone": model.config.backbone,
        "layers": model.backbone.layers,
        "feature_size": model.backbone.feature_size,
        "image_size": model.config.image_size,
        "normalization": asdict(normalization),
        "images": images.fingerprint,
        "dtype": dtype,
        **({"views": CenterCrop(model.config.image_size).describe_views()} if views else {}),
    }
    return digest_arrays(described, numpy_tensors(model.backbone))


def stored_maps(
    model: LWFM,
    images: ImageSet,
    folder: Path,
    *,
    dtype: MapsDtype = "float32",
    batch_size: int | None = None,
    workers: int = 0,
    engine: str = "auto",
    views: bool = False,
) -> CachedMaps:
    """Return the maps of all images of a split from a file, which is written first when it is missing.

    Parameters
    ----------
    model : LWFM
        Switched to evaluation mode.
    images : ImageSet
        The split.
    folder : Path
        Folder of the files; each is named after the split and the fingerprint.
    dtype : str
        float32, or float16 for half the space; the head computes in float32 in either case.
    batch_size, workers, engine, views
        As of :func:`lwfm.evaluation.cached_maps.compute_maps`.

    Returns
    -------
    CachedMaps
        On the CPU memory-mapped: only what is looked up is read. On another device all of them.

    Raises
    ------
    UserError
        The file cannot be written, or one of that name is damaged.
    """
    path = (
        Path(folder)
        / f"{images.split}-{maps_fingerprint(model, images, dtype, views=views)[:24]}.safetensors"
    )
    count = len(images)
    rows = count * (1 + VIEWS if views else 1)
    shapes = [
        (rows, C_l, F_l, F_l)
        for C_l, F_l in zip(model.backbone.layer_dims, model.backbone.feature_size, strict=True)
    ]
    if not path.is_file():
        batches = encoded_batches(
            model, images, range(count), batch_size=batch_size, workers=workers, engine=engine, views=views
        )
        _write_layers(
            path, {f"layer{number}": (dtype, shape) for number, shape in enumerate(shapes)}, batches
        )
    device = next(model.parameters()).device
    layers = tuple(layer.to(device) for layer in _read_layers(path, shapes, dtype))
    return CachedMaps.build(layers, range(count), count, views=views)


def _write_layers(
    path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]], batches: Iterable[Sequence[Tensor]]
) -> None:
    """Write the maps batch by batch: those of a large split do not fit into memory."""
    row = 0
    with streamed_tensor_file(path, tensors) as (layers, _):
        for batch in batches:
            for layer, maps in zip(layers.values(), batch, strict=True):
                layer[row : row + len(maps)] = maps.cpu().numpy()
            row += len(batch[0])


def _read_layers(path: Path, shapes: Sequence[tuple[int, ...]], dtype: MapsDtype) -> list[Tensor]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:  # maps the file, copies nothing
            layers: list[Tensor] = [file.get_tensor(f"layer{number}") for number in range(len(shapes))]
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"the stored maps {path} are damaged ({error}): delete the file") from error
    if [tuple(layer.shape) for layer in layers] != list(shapes):
        raise UserError(f"the stored maps {path} have other shapes: delete the file")
    if any(layer.dtype != getattr(torch, dtype) for layer in layers):
        raise UserError(f"the stored maps {path} are not of {dtype}: delete the file")
    return layers
