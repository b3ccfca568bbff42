"""Write a network as an ONNX file: pixels in, the maps of every layer and the encoded maps out.

The graph normalizes the pixels, runs the backbone and encodes its maps for the head, in ONNX's operators,
for a batch of any size. What comes before it (decoding, :class:`lwfm.data.center_crop.CenterCrop`) and how
the head compares images is described in the file's metadata, under the key :data:`METADATA_KEY`, as JSON:

=================  =====================================================================================
``format``         1, the number of this layout
``version``        of lwfm
``model``          what :func:`lwfm.model.describe_model` returns: the options of backbone and head
``fingerprint``    :func:`network_fingerprint`: of the weights, as in a ``.safetensors`` file of the model
``preprocessing``  how an image becomes ``pixels``, and ``mean`` and ``std`` by which the graph normalizes
``layers``         ``channels`` C_l and ``side`` F_l of each layer
``outputs``        the names of the graph's outputs
=================  =====================================================================================

Letters: B images, P positions (F x F), C channels, l a layer.
"""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import math
import warnings
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lwfm._common.digests import digest_arrays
from lwfm._common.files import atomic_path
from lwfm._common.onnx_runtime import INPUT, import_runtime
from lwfm._common.tensor_files import numpy_tensors
from lwfm.data.center_crop import CenterCrop
from lwfm.data.normalization import IMAGENET, Normalization
from lwfm.data.transforms import normalized_pixels
from lwfm.errors import UserError
from lwfm.model.network import LWFM, describe_model
from lwfm.model.onnx_session import OnnxNetwork
from lwfm.model.weights import first_line
from lwfm.ops import implementation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

METADATA_KEY = "lwfm"
FORMAT = 1

TOLERANCE = 1e-3
"""Largest difference from torch, relative to the norm of an output, of a network that is used."""


class DifferentOutputsError(UserError):
    """An exported network computes other outputs than torch."""


class PixelNetwork(nn.Module):
    """Normalize pixels, compute their maps and encode these for the head.

    Parameters
    ----------
    network : LWFM
        Switched to evaluation mode.
    normalization : Normalization
        Of the images.
    """

    def __init__(self, network: LWFM, normalization: Normalization) -> None:
        super().__init__()
        self.network, self.normalization = network.eval(), normalization

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs that :func:`output_names` lists for pixels [B, H, W, 3] uint8, RGB."""
        maps = self.network.encode(normalized_pixels(pixels, self.normalization))
        parts = self.network.head.encode(maps).parts()
        return (*maps, *(tensor for part in parts for tensor in part))


def output_names(network: LWFM) -> list[str]:
    """Return the names of the outputs of a graph.

    ``maps.0`` [B, C_l, F_l, F_l] of each layer l, then the tensors of :class:`lwfm.nn.EncodedMaps`:
    ``positions.0`` [B, P_l, C_l], ``squares.0`` [B, P_l], ``grams.0`` [B, P_l, P_l] and, of a head with an
    embedding, ``embedded.0`` and ``embedded_squares.0``; float32.
    """
    kinds = ["maps", "positions", "squares", "grams"]
    if network.config.embedding and network.config.matching_weight > 0:
        kinds += ["embedded", "embedded_squares"]
    return [f"{kind}.{layer}" for kind in kinds for layer in range(len(network.backbone.layers))]


def network_fingerprint(network: LWFM) -> str:
    """Compute the SHA-256 of a network's options and weights.

    It is that of :func:`describe_model` and the tensors, by name, which a model file and a saved classifier
    hold, so that an exported network can be told to belong to one of these.
    """
    return digest_arrays(describe_model(network), numpy_tensors(network))


def describe_export(network: LWFM, normalization: Normalization) -> dict[str, Any]:
    """Return the metadata of an exported network as JSON values."""
    backbone = network.backbone
    statistics = {"mean": list(normalization.mean), "std": list(normalization.std)}
    layers = zip(backbone.layer_dims, backbone.feature_size, strict=True)
    return {
        "format": FORMAT,
        "version": version("lwfm"),
        "model": describe_model(network),
        "fingerprint": network_fingerprint(network),
        "preprocessing": {**CenterCrop(network.config.image_size).describe(), **statistics},
        "layers": [{"channels": channels, "side": side} for channels, side in layers],
        "outputs": output_names(network),
    }


def export_network(network: LWFM, path: Path, normalization: Normalization | None = None) -> float:
    """Write a network to an ONNX file, compared with torch before it takes its place.

    Parameters
    ----------
    network : LWFM
        Switched to evaluation mode.
    path : Path
        The file. An existing one is replaced.
    normalization : Normalization, optional
        Of the images, if not the network's own (or ImageNet's where it has none).

    Returns
    -------
    float
        The relative difference from torch, see :func:`relative_difference`.

    Raises
    ------
    UserError
        When packages are missing, the network cannot be expressed in ONNX, or the disk refuses; a
        :class:`DifferentOutputsError` when the difference is above :data:`TOLERANCE`.
    """
    check_exporter()
    normalization = normalization or network.normalization or IMAGENET
    side = network.config.image_size
    on_cpu = next(network.parameters()).device.type == "cpu"
    graph = PixelNetwork(network if on_cpu else copy.deepcopy(network).cpu(), normalization)
    pixels = torch.zeros(2, side, side, 3, dtype=torch.uint8)  # torch.export takes a batch of 1 for constant
    try:
        with torch.no_grad(), implementation("expressions"), _quiet_exporter():
            program: Any = torch.onnx.export(
                graph, (pixels,), dynamo=True, verbose=False,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[INPUT], output_names=output_names(network),
            )  # fmt: skip
    except Exception as error:  # the exporter raises whatever its steps raise
        raise UserError(
            f"{network.config.backbone} cannot be exported to ONNX: {first_line(error)}; use engine torch"
        ) from error
    program.model.metadata_props[METADATA_KEY] = json.dumps(describe_export(network, normalization))
    with atomic_path(path) as temporary:
        program.save(temporary, external_data=False)
        difference = relative_difference(OnnxNetwork(temporary), graph)
        if difference > TOLERANCE:
            raise DifferentOutputsError(
                f"{network.config.backbone} as ONNX differs from torch by {difference:.1e} of the norm of an "
                "output: use engine torch"
            )
    return difference


def relative_difference(exported: OnnxNetwork, graph: PixelNetwork) -> float:
    """Compute how far the outputs of an exported network are from torch's, on a batch of random pixels.

    Returns
    -------
    float
        The norm of the difference divided by the norm of torch's output, of the output where it is largest;
        inf where a value is not finite.
    """
    side = graph.network.config.image_size
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (3, side, side, 3), generator=random).to(torch.uint8)
    with torch.inference_mode():
        expected = [x.cpu() for x in graph(pixels.to(next(graph.parameters()).device))]
    names = output_names(graph.network)
    differences = [
        float((one - other).norm() / other.norm().clamp_min(torch.finfo(torch.float32).tiny))
        for one, other in zip(exported(pixels, names), expected, strict=True)
    ]
    return max(difference if math.isfinite(difference) else math.inf for difference in differences)


def check_exporter() -> None:
    """Raise UserError where the packages are missing with which torch writes ONNX."""
    try:
        import onnxscript  # noqa: F401 - torch's exporter imports it, and onnx
    except ModuleNotFoundError as error:
        raise UserError(
            f"exporting to ONNX needs the package {error.name}: pip install 'lwfm[fast]'"
        ) from error
    import_runtime()


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keep torch's exporter from telling its user what its developers want to know."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
