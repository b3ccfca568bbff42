"""The figures are laid out so that nothing covers anything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lwfm.figures import match_figure
from lwfm.nn.explain import LayerMatch


@pytest.mark.parametrize(
    ("layers", "shape"),
    [(1, (84, 84, 3)), (3, (84, 84, 3)), (2, (60, 100, 3))],
    ids=["one-layer", "three-layers", "wide"],
)
def test_color_bars_cover_no_image(layers: int, shape: tuple[int, ...]) -> None:
    match = LayerMatch(torch.ones(9), torch.ones(9), torch.arange(9), torch.linspace(-1, 1, 9))
    image = np.zeros(shape)
    figure = match_figure(image, image, [match] * layers, [f"layer {i}" for i in range(layers)])
    figure.draw_without_rendering()
    images = [axes.get_tightbbox() for axes in figure.axes[: 2 * layers]]
    bars = [axes.get_tightbbox() for axes in figure.axes[2 * layers :]]
    assert len(bars) == layers + 1
    boxes = [box for box in (*images, *bars) if box is not None]
    assert len(boxes) == 3 * layers + 1
    covered = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert not covered
