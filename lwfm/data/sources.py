"""Sources of the images of a split: files, encoded bytes, or pixels of an array."""

from __future__ import annotations

import copy
import hashlib
import io
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from PIL import Image

from lwfm.data.decoding import decode_image, decoding_problem, deep_brightness
from lwfm.data.white_levels import Brightest, WhiteLevels
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt


@dataclass(frozen=True)
class Checked:
    """Result of reading an image once.

    Attributes
    ----------
    digest
        SHA-256 of the content, and of the crop if there is one; empty for an unreadable image.
    size
        Width and height in pixels; None for an unreadable image.
    reason
        Why it cannot be read, else "".
    brightest
        The largest value of gray of more than 8 bits; None for other images.
    """

    digest: bytes
    size: tuple[int, int] | None
    reason: str
    brightest: Brightest | None = None


class ImageSource(ABC):
    """The images of a split in a fixed order; small enough to hand to every DataLoader worker.

    Attributes
    ----------
    origin
        Folder or file that holds the images.
    white
        How gray of more than 8 bits is mapped to 8 bits; None: each image by itself.
    """

    origin: str
    white: WhiteLevels | None = None

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Return the stored bytes of image `index`; UserError when they cannot be read any more."""

    @abstractmethod
    def place(self, index: int) -> str:
        """Return where image `index` is, for messages."""

    @abstractmethod
    def select(self, indices: Sequence[int]) -> ImageSource:
        """Return the source of these images, in this order."""

    def with_white(self, white: WhiteLevels | None) -> Self:
        """Return the same images with other white levels."""
        source = copy.copy(self)
        source.white = white
        return source

    def image(self, index: int) -> Image.Image:
        """Return image `index` upright, in RGB."""
        return decode_image(self.read(index), self.white)

    def brightest(self, index: int) -> Brightest | None:
        """Find the largest value of image `index` if it is gray of more than 8 bits."""
        with Image.open(io.BytesIO(self.read(index))) as image:
            return deep_brightness(image)

    def digest(self, index: int) -> bytes:
        """Return the SHA-256 of all that decides how image `index` looks."""
        return hashlib.sha256(self.read(index)).digest()

    def check(self, index: int) -> Checked:
        """Read and decode image `index`; never raises for a broken one."""
        try:
            size = self.with_white(_ANY_WHITE).image(index).size
            return Checked(self.digest(index), size, "", self.brightest(index))
        except Exception as error:  # decoders may raise anything on damaged files
            cause = error.__cause__ if isinstance(error, UserError) else error
            return Checked(b"", None, decoding_problem(cause if isinstance(cause, Exception) else error))


_ANY_WHITE = WhiteLevels(integers=2**64, floats=float(np.finfo(np.float64).max))
"""Every image is dark enough for it: only to find out whether it can be decoded at all."""


class FileSource(ImageSource):
    """Image files, optionally cropped to a box each.

    Parameters
    ----------
    folder
        Where `files` are relative to.
    files
        Relative paths.
    boxes
        ``[n, 4]`` float: x, y, width, height in pixels of the crop of each image.
    """

    def __init__(
        self, folder: Path, files: Sequence[str], boxes: npt.NDArray[np.float64] | None = None
    ) -> None:
        self.folder, self.files, self.boxes = folder, tuple(files), boxes
        self.origin = str(folder)

    def read(self, index: int) -> bytes:
        """Return the file's bytes."""
        path = self.folder / self.files[index]
        try:
            return path.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: the character NUL in a name
            raise UserError(f"cannot read the image {path}: {decoding_problem(error)}") from error

    def place(self, index: int) -> str:
        """Return the file's path."""
        return str(self.folder / self.files[index])

    def select(self, indices: Sequence[int]) -> FileSource:
        """Return the source of these files, in this order."""
        boxes = None if self.boxes is None else self.boxes[np.asarray(indices, dtype=np.int64)]
        files = [self.files[index] for index in indices]
        return FileSource(self.folder, files, boxes).with_white(self.white)

    def image(self, index: int) -> Image.Image:
        """Decode the file; cut its box out, as far as it lies within the image."""
        image = decode_image(self.read(index), self.white)
        if self.boxes is None:
            return image
        x, y, width, height = self.boxes[index]
        left, top = max(round(x), 0), max(round(y), 0)
        right, bottom = min(round(x + width), image.width), min(round(y + height), image.height)
        if right <= left or bottom <= top:
            raise ValueError(f"its bounding box {self.boxes[index].tolist()} lies outside the image")
        return image.crop((left, top, right, bottom))

    def digest(self, index: int) -> bytes:
        """Return the SHA-256 of the file, and of its box if there is one."""
        box = b"" if self.boxes is None else self.boxes[index].tobytes()
        return hashlib.sha256(self.read(index) + box).digest()


class EncodedSource(ImageSource):
    """Encoded images (PNG, WebP, ...) in memory.

    Parameters
    ----------
    contents
        Bytes, or arrays of uint8, of each image.
    origin
        The file they come from.
    """

    def __init__(self, contents: Sequence[bytes | npt.NDArray[np.uint8]], origin: str) -> None:
        self.contents, self.origin = tuple(contents), origin

    def read(self, index: int) -> bytes:
        """Return the encoded bytes."""
        content = self.contents[index]
        return content if isinstance(content, bytes) else content.tobytes()

    def place(self, index: int) -> str:
        """Return the origin and the number there."""
        return f"{self.origin}[{index}]"

    def select(self, indices: Sequence[int]) -> EncodedSource:
        """Return the source of these images, in this order."""
        chosen = [self.contents[index] for index in indices]
        return EncodedSource(chosen, self.origin).with_white(self.white)


class PixelSource(ImageSource):
    """Pixels of images of one size.

    Parameters
    ----------
    pixels
        ``[n, H, W, 3]`` uint8, RGB; not copied.
    origin
        The file they come from.
    rows
        ``[m]`` int64: which rows of `pixels` the images are (default: all).
    """

    def __init__(
        self, pixels: npt.NDArray[np.uint8], origin: str, rows: npt.NDArray[np.int64] | None = None
    ) -> None:
        self.pixels, self.origin = pixels, origin
        self.rows = np.arange(len(pixels)) if rows is None else rows

    def read(self, index: int) -> bytes:
        """Return the raw pixels, row by row."""
        content: bytes = self.pixels[self.rows[index]].tobytes()
        return content

    def place(self, index: int) -> str:
        """Return the origin and the number there."""
        return f"{self.origin}[{self.rows[index]}]"

    def select(self, indices: Sequence[int]) -> PixelSource:
        """Return the source of these images, in this order."""
        return PixelSource(self.pixels, self.origin, self.rows[np.asarray(indices, dtype=np.int64)])

    def brightest(self, index: int) -> None:
        """Return None: these pixels are 8-bit."""

    def image(self, index: int) -> Image.Image:
        """Return the pixels as an image."""
        return Image.fromarray(np.ascontiguousarray(self.pixels[self.rows[index]]))
