"""``lwfm export``: write a network as an ONNX file, for programs without torch."""

from __future__ import annotations

from pathlib import Path

from lwfm._common.tensor_files import holds_description
from lwfm.classifier.storage import METADATA_KEY, load_state
from lwfm.errors import UserError
from lwfm.model.default import build_network, network_name
from lwfm.model.onnx_export import check_exporter, export_network


def export(model: str, *, out: Path = Path("model.onnx"), image_size: int | None = None) -> str:
    """Write a network as an ONNX file: pixels in, the maps of its layers and the encoded maps out.

    The file needs ONNX Runtime alone, in any language: Python, C++, JavaScript, C#, Java. Its metadata
    describe how an image becomes the pixels that it reads, and which outputs it has
    (:mod:`lwfm.model.onnx_export`).

    Parameters
    ----------
    model : str
        A file of `lwfm train` (best.safetensors) or of FewShotClassifier.save; the name of a backbone with
        ImageNet weights, such as resnet18 or timm:NAME; or auto, the best network that needs no download.
    out : Path
        The ONNX file. An existing file is replaced.
    image_size : int, optional
        Side in pixels of the images, for auto and the name of a backbone, if not its own.

    Returns
    -------
    str
        Lines about the file, for the user.

    Raises
    ------
    UserError
        For a model that cannot be read or expressed in ONNX, packages that are missing, a file that cannot be
        written, and outputs that differ from torch's by more than a thousandth.
    """
    if out.suffix != ".onnx":
        raise UserError(f"--out must be the name of a .onnx file, not {out}")
    check_exporter()
    if holds_description(Path(model), key=METADATA_KEY):
        if image_size is not None:
            raise UserError(
                f"image_size is for auto and the name of a backbone; {model} already determines it"
            )
        network, _, _ = load_state(model)
    else:
        network = build_network(model, image_size, head="recommended")
    difference = export_network(network, out)
    side = network.config.image_size
    return (
        f"{network_name(network)} in {out}, {out.stat().st_size / 1e6:.1f} MB\n"
        f"pixels [batch, {side}, {side}, 3] uint8; relative difference from torch {difference:.0e}"
    )
