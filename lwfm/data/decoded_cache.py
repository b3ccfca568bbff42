"""Cache of decoded images: their pixels in one memory-mapped file per split."""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
from PIL import Image

from lwfm._common.progress import progress
from lwfm._common.records import parse_json
from lwfm._common.tensor_files import streamed_tensor_file
from lwfm.data.sources import ImageSource, PixelSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from lwfm.data.image_sets import ImageSet

_METADATA_KEY = "lwfm_images"
_TOGETHER = 128
"""Images that are decoded before the first of them is written."""


class StoredSource(ImageSource):
    """Decoded images of any size in a memory-mapped file, read from the disk on demand.

    Parameters
    ----------
    path
        The file, see :func:`stored_images`.
    sizes
        ``[n, 2]`` int64: width and height of each image.
    description
        Description in the file of the images that it was made from.
    rows
        ``[m]`` int64: which of them the images of this source are (default: all).
    """

    def __init__(
        self,
        path: Path,
        sizes: npt.NDArray[np.int64],
        description: dict[str, Any],
        rows: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.path, self.sizes, self.description = path, sizes, description
        self.origin = str(path)
        self.rows = np.arange(len(sizes)) if rows is None else rows
        self.ends = np.cumsum(3 * sizes.prod(1))
        self._pixels: Any = None  # slice of the tensor in the file, mapped on first use

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapping out: each process maps the file itself."""
        return self.__dict__ | {"_pixels": None}

    def read(self, index: int) -> bytes:
        """Return the raw pixels, row by row; UserError when the file is gone or now of other images."""
        if self._pixels is None:
            self._pixels = self._map()
        row = self.rows[index]
        width, height = self.sizes[row]
        content: bytes = self._pixels[
            int(self.ends[row] - 3 * width * height) : int(self.ends[row])
        ].tobytes()
        return content

    def _map(self) -> Any:
        """Map the pixels, after a check that the sizes are theirs: another run may have replaced the file."""
        try:
            file = safetensors.safe_open(self.path, framework="np")
            if _description(file) != self.description:
                raise _overwritten(self.path)
            return file.get_slice("pixels")  # type: ignore[no-untyped-call]
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"cannot read the decoded images {self.path}: {error}") from error

    def place(self, index: int) -> str:
        """Return the file and the number there."""
        return f"{self.path}[{self.rows[index]}]"

    def select(self, indices: Sequence[int]) -> StoredSource:
        """Keep these images, in this order."""
        rows = self.rows[np.asarray(indices, dtype=np.int64)]
        return StoredSource(self.path, self.sizes, self.description, rows)

    def image(self, index: int) -> Image.Image:
        """Return the pixels as an image."""
        width, height = self.sizes[self.rows[index]].tolist()
        return Image.frombytes("RGB", (width, height), self.read(index))


def stored_images(images: ImageSet, folder: Path, *, side: int) -> ImageSet:
    """Return the same images decoded, from a file, which is written first when it is missing or outdated.

    Parameters
    ----------
    images
        The split. Images that are pixels already (of CIFAR's pickles, for example) stay where they are.
    folder
        Folder of the files: one for each place of images, split and `side`. A file of other images is
        replaced.
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
        _write(path, images, side, description)
        sizes = _read_sizes(path, description)
    if sizes is None:
        raise _overwritten(path)
    return replace(images, source=StoredSource(path, sizes, description))


def _file_name(images: ImageSet, side: int) -> str:
    """Return a name by the place of the images, not by their content: a file of other content is replaced."""
    name = re.sub(r"[^\w-]+", "-", Path(images.name).name).strip("-")
    place = os.fsencode(f"{Path(images.source.origin).resolve()}\0{images.layout}")
    where = hashlib.sha256(place).hexdigest()[:8]
    return f"{name}-{images.split}-{side}px-{where}.safetensors"


def _read_sizes(path: Path, description: dict[str, Any]) -> npt.NDArray[np.int64] | None:
    """Read the sizes [n, 2]; None when the file is missing, damaged or made from other images."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            if _description(file) != description:
                return None
            stored, pixels = (file.get_slice(name) for name in ("sizes", "pixels"))
            if (stored.get_dtype(), pixels.get_dtype(), stored.get_shape()[1:]) != ("I32", "U8", [2]):
                return None
            sizes = stored[:].astype(np.int64)
            whole = (sizes > 0).all() and pixels.get_shape() == [3 * sizes.prod(1).sum()]
            return sizes if whole else None
    except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
        return None


def _description(file: Any) -> Any:
    """Read the description of the images in an open file; None where it has none."""
    try:
        return parse_json((file.metadata() or {})[_METADATA_KEY])
    except (KeyError, ValueError):
        return None


def _overwritten(path: Path) -> UserError:
    return UserError(f"the decoded images {path} were overwritten by another run: start again")


def _write(path: Path, images: ImageSet, side: int, description: dict[str, Any]) -> None:
    """Decode all images into a file of their sizes and pixels."""
    decoded = progress(_decoded(images, side), f"decoding {images.split}", "image", total=len(images))
    with streamed_tensor_file(
        path,
        {"sizes": ("int32", (len(images), 2))},
        tail="pixels",
        metadata={_METADATA_KEY: json.dumps(description)},
    ) as (arrays, pixels):
        for index, image in enumerate(decoded):
            pixels.write(image.tobytes())
            arrays["sizes"][index] = image.size


def _decoded(images: ImageSet, side: int) -> Iterator[Image.Image]:
    """Decode on all cores, some images at a time: what bounds the memory."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(images), _TOGETHER):
            some = range(first, min(first + _TOGETHER, len(images)))
            yield from pool.map(lambda index: _resized(images, index, side), some)


def _resized(images: ImageSet, index: int, side: int) -> Image.Image:
    try:
        image = images.image(index)
    except UserError:
        raise
    except Exception as error:  # decoders may raise anything on damaged files
        raise UserError(f"cannot read the image {images.source.place(index)}: {error}") from error
    scale = side / min(image.size)
    if scale >= 1:
        return image
    width, height = (max(round(scale * length), side) for length in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)
