"""Decode the bytes of an image file into an upright RGB image."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from lwfm.data.white_levels import Brightest, WhiteLevels, choose_white, eight_bits, find_brightest
from lwfm.errors import UserError

if TYPE_CHECKING:
    import os


_NO_STILLS = frozenset(("BUFR", "EPS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"))
"""Formats that Pillow lists but reads with other software only, or that are no still images."""


@cache
def image_endings() -> frozenset[str]:
    """Return the endings of files of still images that Pillow can read, in lower case.

    Examples
    --------
    >>> {".jpg", ".avif", ".pgm"} <= image_endings(), ".pdf" in image_endings()
    (True, False)
    """
    readable = {*Image.OPEN, "MPO"} - _NO_STILLS if Image.registered_extensions() else set()
    return frozenset(ending for ending, form in Image.registered_extensions().items() if form in readable)


def decode_image(
    content: bytes, white: WhiteLevels | None = None, *, shorter: int | None = None
) -> Image.Image:
    """Decode the bytes of an image file into upright RGB, see :func:`upright_rgb`.

    With `shorter`, JPEG files may be decoded at a half, a quarter or an eighth of their size, as long as no
    side gets shorter than that: large photographs then take a fraction of the time.

    Examples
    --------
    >>> from lwfm.data import open_images
    >>> decode_image(open_images("emoji", split="val").read(0)).size
    (84, 84)
    """
    if not content:
        raise ValueError("the file is empty")
    with Image.open(io.BytesIO(content)) as opened:
        if shorter is not None:
            opened.draft(None, (shorter, shorter))
        return upright_rgb(opened, white)


def upright_rgb(image: Image.Image, white: WhiteLevels | None = None) -> Image.Image:
    """Convert an image of any mode into RGB, the way up in which it was taken.

    EXIF orientation is applied and transparency is laid on white.

    Parameters
    ----------
    image
        The image, perhaps not decoded yet.
    white
        How gray of more than 8 bits is mapped to 8 bits, see :mod:`lwfm.data.white_levels`; None: by the
        brightest value of this image alone, which makes it no comparison for others.

    Raises
    ------
    UserError
        Gray of more than 8 bits does not fit `white`.

    Examples
    --------
    >>> upright_rgb(Image.new("LA", (4, 2), (0, 0))).getpixel((0, 0))
    (255, 255, 255)
    """
    image.load()  # in some formats the orientation follows the pixels
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would be copied
        image = ImageOps.exif_transpose(image)
    if _is_deep(image):  # PIL's own conversion cuts everything above 255 off
        pixels = np.asarray(image)
        white = choose_white([find_brightest(pixels)]) if white is None else white
        return Image.fromarray(eight_bits(pixels, white)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _is_deep(image: Image.Image) -> bool:
    """Return whether an image is gray of more than 8 bits."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def deep_brightness(image: Image.Image) -> Brightest | None:
    """Find the largest value of gray of more than 8 bits; None for other images, which are not decoded."""
    return find_brightest(np.asarray(image)) if _is_deep(image) else None


def open_image(
    path: str | os.PathLike[str], white: WhiteLevels | None = None, *, shorter: int | None = None
) -> Image.Image:
    """Read and decode one image file; UserError naming it when that fails, whatever the reason.

    Gray of more than 8 bits: see :func:`upright_rgb`; `shorter`: see :func:`decode_image`.
    """
    try:
        return decode_image(Path(path).read_bytes(), white, shorter=shorter)
    # Decoders may raise anything on damaged files (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        raise UserError(f"cannot read the image {path}: {decoding_problem(error)}") from error


def decoding_problem(error: Exception) -> str:
    """Return in one line why an image cannot be read."""
    if isinstance(error, UnidentifiedImageError):  # its own message shows an address in memory
        return "cannot identify the format of the image: the file is damaged, or no image"
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return (reason.splitlines() or [type(error).__name__])[0]
