"""From the bytes of an image file to an upright RGB image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from lwfm.errors import UserError

if TYPE_CHECKING:
    import os


def decode_image(content: bytes) -> Image.Image:
    """Decode the bytes of an image file into upright RGB, see :func:`upright_rgb`.

    Examples
    --------
    >>> from lwfm.data import open_images
    >>> decode_image(open_images("emoji", split="val").read(0)).size
    (84, 84)
    """
    with Image.open(io.BytesIO(content)) as opened:
        return upright_rgb(opened)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Bring an image of any mode into RGB, the way up in which it was taken.

    EXIF orientation is applied, transparency is laid on white, 16-bit gray is scaled to 8 bits.

    Examples
    --------
    >>> upright_rgb(Image.new("LA", (4, 2), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):  # PIL's own conversion cuts everything above 255 off
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read and decode one image file; UserError naming it when that fails, whatever the reason."""
    try:
        return decode_image(Path(path).read_bytes())
    # Decoders of damaged files raise whatever they stumble over (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise UserError(f"cannot read the image {path}: {decoding_problem(error)}") from error


def decoding_problem(error: Exception) -> str:
    """Say in one line why an image cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (reason.splitlines() or [type(error).__name__])[0]
