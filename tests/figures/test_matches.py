"""The figures are laid out so that nothing covers anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from lwfm.figures import match_figure, match_files
from lwfm.model import LWFM, ModelConfig
from lwfm.nn.explain import LayerMatch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("layers", "shape"),
    [(1, (84, 84, 3)), (3, (84, 84, 3)), (2, (60, 100, 3))],
    ids=["one-layer", "three-layers", "wide"],
)
def test_color_bars_cover_no_image(layers: int, shape: tuple[int, ...]) -> None:
    match = LayerMatch(torch.ones(9), torch.ones(9), torch.arange(9), torch.linspace(-1, 1, 9))
    image = np.zeros(shape)
    names = [f"layer {i}" for i in range(layers)]
    figure = match_figure(image, image, [match] * layers, names, title="Two lines\nof a title")
    figure.draw_without_rendering()
    images = [axes.get_tightbbox() for axes in figure.axes[: 2 * layers]]
    bars = [axes.get_tightbbox() for axes in figure.axes[2 * layers :]]
    assert len(bars) == layers + 1
    boxes = [box for box in (*images, *bars, figure.texts[0].get_window_extent()) if box is not None]
    assert len(boxes) == 3 * layers + 2
    assert all(figure.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 for box in boxes)
    assert all(figure.bbox.y0 <= box.y0 and box.y1 <= figure.bbox.y1 for box in boxes)
    covered = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert not covered


def test_two_gray_files_of_more_than_8_bits_share_one_white_level(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 255, (2, 32, 32), dtype=np.uint8)
    gray[0, 0, 0], gray[1] = 255, gray[1] // 16
    model = LWFM(ModelConfig(backbone="conv4", image_size=32, feature_size=2)).eval()
    similarities = []
    for name, of_kind in (("plain", gray), ("deep", gray.astype(np.float32) / 255)):
        paths = [tmp_path / f"{name}-{number}.tif" for number in range(2)]
        for path, pixels in zip(paths, of_kind, strict=True):
            Image.fromarray(pixels).save(path)
        similarities.append(torch.cat([match.similarities for match in match_files(model, *paths)[1]]))
    assert torch.equal(*similarities)
