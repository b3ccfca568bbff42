"""Images that a user gives, and the scale at which large JPEG files are decoded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from lwfm.data.center_crop import CenterCrop
from lwfm.data.decoding import open_image
from lwfm.data.user_images import pixels_of

if TYPE_CHECKING:
    from pathlib import Path


def photograph(path: Path, size: tuple[int, int], mode: str = "RGB") -> Path:
    """Write an image with edges and shades of any size."""
    x, y = np.meshgrid(np.linspace(0, 6, size[0]), np.linspace(0, 4, size[1]))
    shades = np.stack([np.sin(x), np.cos(x + y), np.sign(np.sin(3 * x * y))], -1)
    Image.fromarray((127.5 + 127.5 * shades).astype(np.uint8)).convert(mode).save(path)
    return path


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((499, 450), (499, 450)),
        ((500, 480), (250, 240)),
        ((480, 1999), (240, 1000)),
        ((1920, 2000), (240, 250)),
    ],
    ids=str,
)
def test_large_jpegs_are_decoded_at_a_smaller_size(
    tmp_path: Path, size: tuple[int, int], decoded: tuple[int, int]
) -> None:
    path = photograph(tmp_path / "a.jpg", size)
    assert open_image(path, shorter=240).size == decoded
    assert open_image(path).size == size


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_smaller_size_hardly_changes_the_pixels(tmp_path: Path, mode: str) -> None:
    path = photograph(tmp_path / "a.jpg", (900, 700), mode)
    (small,) = pixels_of([path], 84, 1, threads=1)
    whole = np.asarray(CenterCrop(84)(open_image(path)))
    difference = np.abs(small[0].astype(int) - whole)
    assert difference.mean() < 1
    assert small[0].any()


def test_orientation_is_kept(tmp_path: Path) -> None:
    image = Image.open(photograph(tmp_path / "a.jpg", (900, 600)))
    exif = image.getexif()
    exif[274] = 6  # turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg", shorter=200).size == (300, 450)


def test_other_formats_are_decoded_whole(tmp_path: Path) -> None:
    path = photograph(tmp_path / "a.png", (900, 700))
    assert open_image(path, shorter=200).size == (900, 700)
    (pixels,) = pixels_of([path], 84, 1, threads=1)
    np.testing.assert_array_equal(pixels[0], np.asarray(CenterCrop(84)(open_image(path))))
