"""Images decoded once: their pixels in one memory-mapped file per split."""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import safetensors
from PIL import Image
from tqdm import tqdm

from lwfm._common.files import atomic_path
from lwfm.data.sources import ImageSource, PixelSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from lwfm.data.image_sets import ImageSet

_HEADER = 1024
"""Bytes at the beginning of a file that its header fills (with spaces: the format allows them)."""
_METADATA_KEY = "lwfm_images"
_TOGETHER = 128
"""Images that are decoded before they are written: what bounds the memory."""


class StoredSource(ImageSource):
    """Decoded images of any size in a memory-mapped file; what is looked up is read from the disk.

    Parameters
    ----------
    path
        The file, see :func:`stored_images`.
    sizes
        ``[n, 2]`` int64: width and height of each image.
    rows
        ``[m]`` int64: which of them the images of this source are (default: all).
    """

    def __init__(
        self, path: Path, sizes: npt.NDArray[np.int64], rows: npt.NDArray[np.int64] | None = None
    ) -> None:
        self.path, self.sizes = path, sizes
        self.rows = np.arange(len(sizes)) if rows is None else rows
        self.ends = np.cumsum(3 * sizes.prod(1))
        self._pixels: npt.NDArray[np.uint8] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapping out: a copy in another process maps the file itself."""
        return self.__dict__ | {"_pixels": None}

    def read(self, index: int) -> bytes:
        """Return the raw pixels, row by row."""
        if self._pixels is None:
            try:
                self._pixels = np.memmap(self.path, np.uint8, "r", _HEADER, (int(self.ends[-1]),))
            except (OSError, ValueError) as error:
                raise UserError(f"cannot read the decoded images {self.path}: {error}") from error
        row = self.rows[index]
        width, height = self.sizes[row]
        return self._pixels[self.ends[row] - 3 * width * height : self.ends[row]].tobytes()

    def place(self, index: int) -> str:
        """Return the file and the number there."""
        return f"{self.path}[{self.rows[index]}]"

    def select(self, indices: Sequence[int]) -> StoredSource:
        """Keep these images, in this order."""
        return StoredSource(self.path, self.sizes, self.rows[np.asarray(indices, dtype=np.int64)])

    def image(self, index: int) -> Image.Image:
        """Make an image of the pixels."""
        width, height = self.sizes[self.rows[index]].tolist()
        return Image.frombytes("RGB", (width, height), self.read(index))


def stored_images(images: ImageSet, folder: Path, *, side: int) -> ImageSet:
    """Give the same images decoded, from a file, which is written first when it is missing or outdated.

    Parameters
    ----------
    images
        The split. Images that are pixels already (of CIFAR's pickles, for example) stay where they are.
    folder
        Where the files are: one for each data set, split and `side`. One that was made from other images
        is replaced.
    side
        Images whose shorter side is longer than this many pixels are resized to it.

    Raises
    ------
    UserError
        An image cannot be read any more, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from lwfm.data import open_images
    >>> images = open_images("emoji", split="val")
    >>> stored = stored_images(images, Path(tempfile.mkdtemp()), side=40)
    >>> stored.image(0).size, images.image(0).size
    ((40, 40), (84, 84))
    """
    if isinstance(images.source, PixelSource):
        return images
    path = Path(folder) / _file_name(images, side)
    description = {"format": 1, "fingerprint": images.fingerprint, "side": side}
    sizes = _read_sizes(path, description)
    if sizes is None or len(sizes) != len(images):
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            _write(file, images, side, description)
        sizes = _read_sizes(path, description)
    if sizes is None:
        raise UserError(f"the decoded images {path} were overwritten by another run: start again")
    return replace(images, source=StoredSource(path, sizes))


def _file_name(images: ImageSet, side: int) -> str:
    """Name a file after where the images are, not after their content: a change there replaces it."""
    name = re.sub(r"[^\w-]+", "-", Path(images.name).name).strip("-")
    where = hashlib.sha256(f"{Path(images.name).resolve()}\0{images.layout}".encode()).hexdigest()[:8]
    return f"{name}-{images.split}-{side}px-{where}.safetensors"


def _read_sizes(path: Path, description: dict[str, Any]) -> npt.NDArray[np.int64] | None:
    """Read the sizes [n, 2]; None when the file is missing, damaged or made from other images."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            if json.loads((file.metadata() or {})[_METADATA_KEY]) != description:
                return None
            return np.asarray(file.get_tensor("sizes"), dtype=np.int64)
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        return None


def _write(file: BinaryIO, images: ImageSet, side: int, description: dict[str, Any]) -> None:
    """Write pixels as they come, then the sizes, then the header in the room that was left for it."""
    file.write(b" " * _HEADER)
    sizes: list[tuple[int, int]] = []
    bar = tqdm(
        total=len(images),
        desc=f"decoding {images.split}",
        unit="image",
        delay=2,
        leave=False,
        disable=None,
    )
    with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(images), _TOGETHER):
            some = range(first, min(first + _TOGETHER, len(images)))
            for image in pool.map(lambda index: _resized(images, index, side), some):
                file.write(image.tobytes())
                sizes.append(image.size)
            bar.update(len(some))
    end = file.tell() - _HEADER
    table = np.array(sizes, dtype="<i4").tobytes()
    file.write(table)
    header = {
        "__metadata__": {_METADATA_KEY: json.dumps(description)},
        "pixels": {"dtype": "U8", "shape": [end], "data_offsets": [0, end]},
        "sizes": {"dtype": "I32", "shape": [len(sizes), 2], "data_offsets": [end, end + len(table)]},
    }
    file.seek(0)
    file.write(struct.pack("<Q", _HEADER - 8) + json.dumps(header).encode().ljust(_HEADER - 8))


def _resized(images: ImageSet, index: int, side: int) -> Image.Image:
    try:
        image = images.image(index)
    except UserError:
        raise
    except Exception as error:  # decoders of damaged files raise whatever they stumble over
        raise UserError(f"cannot read the image {images.source.place(index)}: {error}") from error
    scale = side / min(image.size)
    if scale >= 1:
        return image
    width, height = (max(round(scale * length), side) for length in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)
