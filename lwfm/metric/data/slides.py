"""Large slides as tiles: by openslide where it is installed, ordinary images by Pillow."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lwfm._common.ranges import check_between, check_counts
from lwfm.data import open_image
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL import Image

_PALE = 0.08
"""Saturation below which a pixel counts as glass: stained tissue is above it."""


class Tile(NamedTuple):
    """A square of a slide: its left upper corner in pixels of the slide, and the image."""

    x: int
    y: int
    image: Image.Image


@contextmanager
def open_slide(path: Path) -> Iterator[Any]:
    """Yield a slide with ``dimensions`` and ``read_region((x, y), 0, (width, height))``, as openslide has.

    Raises
    ------
    UserError
        For a file that neither openslide, where it is installed, nor Pillow can read.
    """
    slide = _by_openslide(path) or _Picture(path)
    try:
        yield slide
    finally:
        slide.close()


def _by_openslide(path: Path) -> Any:
    try:
        import openslide
    except ImportError:  # also where the package is there, but not its library
        return None
    try:
        return openslide.OpenSlide(str(path))
    except openslide.OpenSlideError:
        return None


class _Picture:
    """An ordinary image behind the calls of openslide."""

    def __init__(self, path: Path) -> None:
        self._image = open_image(path)
        self.dimensions = self._image.size

    def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        del level
        return self._image.crop((*corner, corner[0] + size[0], corner[1] + size[1]))

    def get_thumbnail(self, size: tuple[int, int]) -> Image.Image:
        small = self._image.copy()
        small.thumbnail(size)
        return small

    def close(self) -> None:
        self._image.close()


def read_tiles(path: Path, tile: int, *, stained: float = 0.2) -> Iterator[Tile]:
    """Yield the square tiles of a slide at full resolution, row by row, without those of glass.

    What is left at the right and lower border is less than a tile, and not read.

    Parameters
    ----------
    path : Path
        The slide.
    tile : int
        Side in pixels.
    stained : float
        Smallest share of colored pixels of a tile, 0 for all tiles.

    Raises
    ------
    UserError
        For a slide that cannot be read or is smaller than a tile.
    """
    check_counts(tile=tile)
    check_between(0, 1, stained=stained)
    with open_slide(path) as slide:
        width, height = slide.dimensions
        if min(width, height) < tile:
            raise UserError(f"{path} has {width} x {height} pixels, less than a tile of {tile}")
        for y in range(0, height - tile + 1, tile):
            for x in range(0, width - tile + 1, tile):
                image = slide.read_region((x, y), 0, (tile, tile)).convert("RGB")
                if _stained_share(image) >= stained:
                    yield Tile(x, y, image)


def _stained_share(image: Image.Image) -> float:
    """Return the share of pixels whose color is saturated."""
    pixels = np.asarray(image.reduce(max(1, image.width // 64)), dtype=np.float32)
    brightest, darkest = pixels.max(-1), pixels.min(-1)
    return float(((brightest - darkest) > _PALE * np.maximum(brightest, 1)).mean())


def thumbnail(path: Path, side: int = 1000) -> tuple[Image.Image, float]:
    """Return a small image of a slide, of at most `side` pixels, and its scale to the slide, at most 1."""
    with open_slide(path) as slide:
        small = slide.get_thumbnail((side, side)).convert("RGB")
        return small, small.width / slide.dimensions[0]
