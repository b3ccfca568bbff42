"""From the bytes of a picture file to an upright RGB picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from lwfm.errors import UserError

if TYPE_CHECKING:
    import os


def decode_picture(content: bytes) -> Image.Image:
    """Decode the bytes of a picture file into upright RGB, see :func:`upright_rgb`.

    Examples
    --------
    >>> from lwfm.data import open_pictures
    >>> decode_picture(open_pictures("emoji", split="val").read(0)).size
    (84, 84)
    """
    with Image.open(io.BytesIO(content)) as opened:
        return upright_rgb(opened)


def upright_rgb(picture: Image.Image) -> Image.Image:
    """Bring a picture of any mode into RGB, the way up in which it was taken.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits.

    Examples
    --------
    >>> upright_rgb(Image.new("LA", (4, 2), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    image: Image.Image = ImageOps.exif_transpose(picture)
    if image.mode.startswith("I;16"):  # PIL's own conversion cuts everything above 255 off
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def open_picture(path: str | os.PathLike[str]) -> Image.Image:
    """Read and decode one picture file; UserError naming it when that fails, whatever the reason."""
    try:
        return decode_picture(Path(path).read_bytes())
    # Decoders of damaged files raise whatever they stumble over (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise UserError(f"cannot read the picture {path}: {decoding_problem(error)}") from error


def decoding_problem(error: Exception) -> str:
    """Say in one line why a picture cannot be read."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (reason.splitlines() or [type(error).__name__])[0]
