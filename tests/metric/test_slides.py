"""Slides as tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from lwfm.errors import UserError
from lwfm.metric.data.slides import read_tiles, thumbnail

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A slide of 3 x 2 tiles of 32 pixels and a border: the first column is glass."""
    pixels = np.full((70, 100, 3), 240, np.uint8)
    pixels[:, 32:] = (170, 60, 140)
    Image.fromarray(pixels).save(tmp_path / "slide.tif")
    return tmp_path / "slide.tif"


def test_tiles_of_tissue_are_read_row_by_row(slide: Path) -> None:
    tiles = list(read_tiles(slide, 32))
    assert [(tile.x, tile.y) for tile in tiles] == [(32, 0), (64, 0), (32, 32), (64, 32)]
    assert {tile.image.size for tile in tiles} == {(32, 32)}
    assert np.asarray(tiles[0].image)[5, 5].tolist() == [170, 60, 140]


def test_all_tiles_on_request(slide: Path) -> None:
    assert len(list(read_tiles(slide, 32, stained=0))) == 6


def test_a_thumbnail_has_its_scale(slide: Path) -> None:
    image, scale = thumbnail(slide, 50)
    assert image.size == (50, 35)
    assert scale == pytest.approx(0.5)


@pytest.mark.parametrize(("tile", "message"), [(71, "less than a tile of 71"), (0, "tile must be a whole")])
def test_wrong_tiles_are_refused(slide: Path, tile: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(read_tiles(slide, tile))


def test_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.svs").write_bytes(b"no slide")
    with pytest.raises(UserError, match=r"x\.svs"):
        list(read_tiles(tmp_path / "x.svs", 32))
