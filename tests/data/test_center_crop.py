"""Center crops have torchvision's pixels, and need neither it nor torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import functional

from lwfm.data.center_crop import CenterCrop


@pytest.mark.parametrize("image_size", [24, 84, 160])
@pytest.mark.parametrize("size", [(84, 84), (92, 92), (500, 375), (375, 501), (31, 90), (1, 5), (175, 263)])
def test_pixels_are_torchvision_s_but_for_rounding(size: tuple[int, int], image_size: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image, crop = Image.fromarray(pixels), CenterCrop(image_size)
    expected = functional.center_crop(functional.resize(image, [crop.resized]), [image_size] * 2)
    difference = np.abs(np.asarray(crop(image), np.int16) - np.asarray(expected))
    assert difference.max() <= 2
    assert difference.mean() < 0.1


def test_an_image_of_the_size_before_the_crop_is_not_resized() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (92, 120, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(CenterCrop(84)(Image.fromarray(pixels))), pixels[4:88, 18:102])


def test_it_needs_no_torch() -> None:
    code = "import sys, lwfm.data.center_crop; assert not {'torch', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
