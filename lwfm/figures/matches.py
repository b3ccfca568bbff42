"""The matches between two images: ``lwfm match``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import withStroke
from torch.nn import functional as F

from lwfm.data.decoding import open_image
from lwfm.data.normalization import IMAGENET
from lwfm.data.transforms import evaluation_transform
from lwfm.errors import UserError
from lwfm.figures.files import save_figure
from lwfm.model import LWFM, ModelConfig, load_model
from lwfm.model.encode import white_levels
from lwfm.nn.explain import LayerMatch, explain_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from lwfm.data.white_levels import WhiteLevels

_SIMILARITY = Normalize(-1, 1)
_SIMILARITY_COLORS = "RdYlGn"


def match(
    support: Path,
    query: Path,
    *,
    checkpoint: Path | None = None,
    model: ModelConfig | None = None,
    out: Path = Path("match.png"),
) -> Path:
    """Draw how two images match, layer by layer, and write the figure.

    Both images stand side by side under their layer-wise embedding weights as heat maps; lines join the
    positions that semantic-pixel matching pairs, colored by their similarity.

    Parameters
    ----------
    support : Path
        Image file of a known class.
    query : Path
        Image file to compare with it.
    checkpoint : Path, optional
        A model that `lwfm train` wrote (best.safetensors).
    model : ModelConfig, optional
        The network when there is no checkpoint, for example `--model.weights imagenet`.
    out : Path
        The figure; its suffix (png, pdf, svg, ...) chooses the format. An existing file is replaced.

    Returns
    -------
    Path
        Where the figure is.

    Raises
    ------
    UserError
        For a file that is missing or no image, a broken checkpoint, both or neither of checkpoint and
        model, or a figure that cannot be written.
    """
    if (checkpoint is None) == (model is None):
        raise UserError("say which network matches: either --checkpoint FILE or --model.weights (and others)")
    figure, _ = match_files(
        load_model(checkpoint) if checkpoint else LWFM(model or ModelConfig()), support, query
    )
    save_figure(figure, out)
    return out


def match_files(
    model: LWFM, support: Path, query: Path, *, white: WhiteLevels | None = None
) -> tuple[Figure, tuple[LayerMatch, ...]]:
    """Show how the model matches two image files; UserError naming one that is missing or no image.

    The white levels of images of more than 8 bits are by default chosen by these two. Otherwise as
    :func:`match_images`.
    """
    white = white_levels([support, query]) if white is None else white
    return match_images(model, open_image(support, white), open_image(query, white))


def match_images(model: LWFM, support: Image, query: Image) -> tuple[Figure, tuple[LayerMatch, ...]]:
    """Show how the model matches two images: weights as heat maps, matches as lines, per layer.

    Parameters
    ----------
    model : LWFM
        The network; its own resolution and normalization (ImageNet's if it has none) are used.
    support, query : PIL image
        In RGB.

    Returns
    -------
    Figure
        One row per layer.
    tuple of LayerMatch
        The numbers that it shows.
    """
    normalization = model.normalization or IMAGENET
    transform = evaluation_transform(image_size=model.config.image_size, normalization=normalization)
    images = torch.stack([transform(image) for image in (support, query)])  # [2, 3, H, W]
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    with torch.no_grad():
        maps = model.encode(images.to(device))
    model.train(training)
    matches = explain_pair(model.head, [x[:1] for x in maps], [x[1:] for x in maps])
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalization.mean, normalization.std))
    shown = [(image * std + mean).clamp(0, 1).permute(1, 2, 0).numpy() for image in images]
    titles = [f"layer {layer}" for layer in model.backbone.layers]
    return match_figure(shown[0], shown[1], matches, titles), matches


def match_figure(
    support: NDArray[np.floating],
    query: NDArray[np.floating],
    matches: Sequence[LayerMatch],
    titles: Sequence[str],
) -> Figure:
    """Draw one row per layer: both images under their LWE weights, matched positions joined by lines.

    Parameters
    ----------
    support, query : ndarray
        [H, W, 3], values 0..1.
    matches : sequence of LayerMatch
        One per layer.
    titles : sequence of str
        One per layer.

    Returns
    -------
    Figure
        Lines are colored by the cosine of the matched pair, the best pair drawn thickest and numbered.
    """
    figure = Figure(figsize=(9, 4.1 * len(matches) + 0.7), layout="constrained")
    rows = figure.subplots(len(matches), 2, squeeze=False)
    for (left, right), match, title in zip(rows, matches, titles, strict=True):
        # One scale for both images of a layer, centered on the average weight 1.
        weights = torch.cat([match.support_weights, match.query_weights])
        spread = max(float((weights - 1).abs().max()), 1e-3)
        _draw_weights(left, support, match.support_weights, match.feature_size, spread)
        heat = _draw_weights(right, query, match.query_weights, match.feature_size, spread)
        left.set_title(f"support, {title}", fontsize=10)
        right.set_title(f"query, {title}: best pair {float(match.similarities.max()):.2f}", fontsize=10)
        _draw_matches(figure, left, right, match, support.shape, query.shape)
        figure.colorbar(heat, ax=[left, right], label="LWE weight (average 1)", shrink=0.8, pad=0.01)
    lines = LineCollection([], norm=_SIMILARITY, cmap=_SIMILARITY_COLORS)
    lines.set_array([])
    figure.colorbar(
        lines,
        ax=rows,
        location="bottom",
        label="cosine of matched positions",
        shrink=0.5,
        aspect=40,
        pad=0.03,
    )
    return figure


def _draw_weights(
    axes: Axes, image: NDArray[np.floating], weights: Tensor, size: int, spread: float
) -> AxesImage:
    axes.set_axis_off()
    axes.imshow(image)
    heat = F.interpolate(weights.view(1, 1, size, size), image.shape[:2], mode="nearest")[0, 0].numpy()
    return axes.imshow(heat, cmap="coolwarm", alpha=0.35, vmin=1 - spread, vmax=1 + spread)


def _draw_matches(
    figure: Figure,
    left: Axes,
    right: Axes,
    match: LayerMatch,
    shape_s: tuple[int, ...],
    shape_q: tuple[int, ...],
) -> None:
    """Join matched positions, the most similar last and thickest so that it lies on top."""
    colors = matplotlib.colormaps[_SIMILARITY_COLORS]
    centers_s = _cell_centers(match.feature_size, shape_s)
    centers_q = _cell_centers(match.feature_size, shape_q)
    middle = (match.feature_size - 1) / 2
    for rank, position in enumerate(match.similarities.argsort().tolist(), start=1):
        best = rank == len(match.similarities)
        # Bent by column: else the matches of one row would lie on one line.
        bend = 0.12 * (position % match.feature_size - middle) / max(middle, 1)
        ends = centers_s[position], centers_q[int(match.assignment[position])]
        color = colors(_SIMILARITY(float(match.similarities[position])))
        line = ConnectionPatch(
            *ends,
            coordsA="data",
            coordsB="data",
            axesA=left,
            axesB=right,
            color=color,
            linewidth=3.2 if best else 1.6,
            arrowstyle="-",
            connectionstyle=f"arc3,rad={bend}",
        )
        line.set_path_effects([withStroke(linewidth=4.6 if best else 2.6, foreground="black", alpha=0.6)])
        line.set_in_layout(False)  # else the layout makes room for lines that lie between the images
        figure.add_artist(line)
        for axes, end in zip((left, right), ends, strict=True):
            axes.plot(*end, "o", markersize=7, color=color, markeredgecolor="black", markeredgewidth=0.8)


def _cell_centers(size: int, shape: tuple[int, ...]) -> NDArray[np.floating]:
    """Pixel coordinates (x, y) of the centers of F x F cells, row by row -> [P, 2]."""
    row, column = np.divmod(np.arange(size * size), size)
    return np.stack([(column + 0.5) * shape[1] / size - 0.5, (row + 0.5) * shape[0] / size - 0.5], axis=1)
