"""Images of more than 8 bits: one white level for a set, the right gray for each image, or a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from lwfm.data import open_image, open_images
from lwfm.data.decoded_cache import stored_images
from lwfm.data.inspection import inspect_data
from lwfm.data.white_levels import Brightest, WhiteLevels, choose_white, eight_bits
from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

RAMP = np.tile(np.arange(256), (4, 1))
"""Every 8-bit gray."""


@pytest.mark.parametrize(
    ("pixels", "suffix"),
    [
        pytest.param((RAMP / 255).astype(np.float32), "tif", id="floats-to-1"),
        pytest.param(RAMP.astype(np.float32), "tif", id="floats-to-255"),
        pytest.param((RAMP * 257).astype(np.float32), "tif", id="floats-to-65535"),
        pytest.param((RAMP * 257).astype(np.int32), "tif", id="int32-of-16-bits"),
        pytest.param((RAMP * 16843009 // 2).astype(np.int32), "tif", id="int32-of-31-bits"),
        pytest.param((RAMP * 257).astype(np.uint16), "png", id="16-bits"),
        pytest.param((RAMP * 4095 / 255).round().astype(np.uint16), "png", id="12-bits-in-16"),
        pytest.param((RAMP * 1023 / 255).round().astype(np.uint16), "tif", id="10-bits-in-16"),
        pytest.param(RAMP.astype(np.uint16), "png", id="8-bits-in-16"),
        pytest.param((RAMP * 257).astype(np.uint16), "pgm", id="16-bit-pgm"),
    ],
)
def test_gray_files_keep_their_gray(pixels: npt.NDArray[Any], suffix: str, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / f"gray.{suffix}")
    decoded = np.asarray(open_image(tmp_path / f"gray.{suffix}"))
    np.testing.assert_array_equal(decoded, np.stack([RAMP] * 3, axis=-1))


@pytest.mark.parametrize(
    ("value", "white"),
    [(0, 1), (2, 3), (9, 15), (200, 255), (256, 1023), (4096, 16383), (65535, 65535), (65536, 2**17 - 1)],
)
def test_white_of_integers_is_that_of_the_smallest_depth(value: int, white: int) -> None:
    assert choose_white([Brightest("integers", value)]) == WhiteLevels(integers=white)


@pytest.mark.parametrize(
    ("value", "white"), [(0.0, 1), (1.09, 1), (16, 255), (279, 255), (300, 1023), (65535, 65535)]
)
def test_white_of_floats(value: float, white: float) -> None:
    assert choose_white([Brightest("floats", value)]) == WhiteLevels(floats=white)


def test_floats_a_hair_outside_their_range_are_clipped() -> None:
    pixels = np.array([[-0.05, 0.0, 0.5, 1.0, 1.004, 1.1]])
    assert eight_bits(pixels, WhiteLevels()).tolist() == [[0, 0, 128, 255, 255, 255]]


@pytest.mark.parametrize(
    ("pixels", "white", "message"),
    [
        pytest.param(np.array([[-1000, 3000]], np.int16), WhiteLevels(), "from -1000 to 3000", id="negative"),
        pytest.param(np.array([[0.0, np.nan]]), WhiteLevels(), "to nan", id="nan"),
        pytest.param(np.array([[0.0, np.inf]]), WhiteLevels(), "to inf", id="infinite"),
        pytest.param(np.array([[0.0, 4e26]]), WhiteLevels(), r"to 4e\+26", id="damaged"),
        pytest.param(np.array([[0.0, 2.0]]), WhiteLevels(), "up to 2, and white is 1", id="bright-float"),
        pytest.param(
            np.array([[5000]]), WhiteLevels(integers=4095), "up to 5000, and white is 4095", id="bright"
        ),
        pytest.param(np.array([[9]]), WhiteLevels(), "no example of more than 8 bits", id="nothing-known"),
        pytest.param(np.array([[True]]), WhiteLevels(), "not bool", id="bool"),
    ],
)
def test_what_cannot_be_decided_is_refused(
    pixels: npt.NDArray[Any], white: WhiteLevels, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        eight_bits(pixels, white)


def write_set(root: Path, brightest: dict[str, float], dtype: type = np.uint16) -> None:
    """Two classes of one gray image of more than 8 bits for each split; dark ones beside the brightest."""
    for split, value in brightest.items():
        for label, gray in (("dark", value / 4), ("light", value)):
            (root / split / f"{split}-{label}").mkdir(parents=True)
            pixels: npt.NDArray[Any] = np.full((8, 8), gray, dtype)
            Image.fromarray(pixels).save(root / split / f"{split}-{label}" / "0.tif")


def test_all_splits_of_a_data_set_share_one_white_level(tmp_path: Path) -> None:
    """12 bits in train decide for val, whose images alone would be taken for 10 bits."""
    write_set(tmp_path, {"train": 4000, "val": 1000, "test": 2000})
    grays = {
        split: [open_images("folder", tmp_path, split).image(i).getpixel((0, 0)) for i in (0, 1)]
        for split in ("train", "val", "test")
    }
    assert {split: [gray[0] for gray in pair] for split, pair in grays.items()} == {  # type: ignore[index]
        "train": [62, 249],
        "val": [16, 62],
        "test": [31, 125],
    }


def test_images_of_the_test_split_decide_for_those_of_training(tmp_path: Path) -> None:
    write_set(tmp_path, {"train": 1000, "val": 1000, "test": 4000})
    assert open_images("folder", tmp_path, "train").image(1).getpixel((0, 0))[0] == 62  # type: ignore[index]


def test_a_changed_white_level_is_another_data_set(tmp_path: Path) -> None:
    """Else decoded images from an earlier run would be taken."""
    write_set(tmp_path, {"train": 4000, "val": 1000})
    before = open_images("folder", tmp_path, "val")
    assert stored_images(before, tmp_path / "cache", side=8).image(1).getpixel((0, 0)) == (62, 62, 62)
    Image.fromarray(np.full((8, 8), 60000, np.uint16)).save(tmp_path / "train/train-light/0.tif")
    after = open_images("folder", tmp_path, "val")
    assert after.fingerprint != before.fingerprint
    assert stored_images(after, tmp_path / "cache", side=8).image(1).getpixel((0, 0)) == (4, 4, 4)
    reported = {split.split: split.fingerprint for split in inspect_data("inspect", tmp_path).splits}
    assert reported["val"] == after.fingerprint


def test_a_data_set_of_unknown_range_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, {"train": 1.0, "val": 3.5}, np.float32)
    message = r"brightest float is 3\.5, and floats lie in 0\.\.1 or 0\.\.255"
    with pytest.raises(UserError, match=message):
        open_images("folder", tmp_path, "train")
    assert "brightest float is 3.5" in "\n".join(inspect_data("inspect", tmp_path).problems)


def test_an_image_with_negative_values_is_named(tmp_path: Path) -> None:
    write_set(tmp_path, {"train": 3000}, np.int32)
    Image.fromarray(np.full((8, 8), -5, np.int32)).save(tmp_path / "train/train-dark/0.tif")
    with pytest.raises(UserError, match=r"train-dark/0\.tif: it has values from -5 to -5"):
        open_images("folder", tmp_path, "train")
