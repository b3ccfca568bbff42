"""The matches between two images: ``lwfm match``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import matplotlib
import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from lwfm.data.decoding import open_image
from lwfm.data.normalization import IMAGENET
from lwfm.data.transforms import evaluation_transform
from lwfm.data.user_images import white_levels
from lwfm.errors import UserError
from lwfm.figures.files import check_figure_suffix, save_figure
from lwfm.model import ModelConfig, load_model
from lwfm.model.default import build_network
from lwfm.nn.explain import LayerMatch, explain_pair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray
    from PIL.Image import Image
    from torch import Tensor

    from lwfm.data.white_levels import WhiteLevels
    from lwfm.model import LWFM
    from lwfm.nn import EncodedMaps

Box: TypeAlias = tuple[float, float, float, float]

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

    Both images are drawn side by side under their layer-wise embedding weights as heat maps; lines join the
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
        The network when there is no checkpoint, for example `--model.weights imagenet`; without its
        embedding, which has not been trained.
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
    check_figure_suffix(out)
    if model is not None:
        network = build_network(replace(model, embedding=False))
    else:
        assert checkpoint is not None  # noqa: S101 - for the type checker: one of both is given
        network = load_model(checkpoint)
    figure, _ = match_files(network, support, query)
    save_figure(figure, out)
    return out


def match_files(
    model: LWFM,
    support: Path,
    query: Path,
    *,
    white: WhiteLevels | None = None,
    title: str = "",
    task: EncodedMaps | None = None,
) -> tuple[Figure, tuple[LayerMatch, ...]]:
    """Draw how the model matches two image files; UserError naming one that is missing or no image.

    The white levels of images of more than 8 bits are by default chosen by these two. Otherwise as
    :func:`match_images`.
    """
    white = white_levels([support, query]) if white is None else white
    images = (open_image(path, white) for path in (support, query))
    return match_images(model, *images, title=title, task=task)


def match_images(
    model: LWFM, support: Image, query: Image, *, title: str = "", task: EncodedMaps | None = None
) -> tuple[Figure, tuple[LayerMatch, ...]]:
    """Draw how the model matches two images: weights as heat maps, matches as lines, per layer.

    Parameters
    ----------
    model : LWFM
        The network; its own resolution and normalization (ImageNet's if it has none) are used.
    support, query : PIL image
        In RGB.
    title : str
        Lines above the figure.
    task : EncodedMaps, optional
        Support images of the task, for a head that centers by their mean; see
        :func:`lwfm.nn.explain.explain_pair`.

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
    matches = explain_pair(model.head, [x[:1] for x in maps], [x[1:] for x in maps], task=task)
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalization.mean, normalization.std))
    shown = [(image * std + mean).clamp(0, 1).permute(1, 2, 0).numpy() for image in images]
    titles = [f"layer {layer}" for layer in model.backbone.layers]
    return match_figure(shown[0], shown[1], matches, titles, title=title), matches


def match_figure(
    support: NDArray[np.floating],
    query: NDArray[np.floating],
    matches: Sequence[LayerMatch],
    titles: Sequence[str],
    *,
    title: str = "",
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
    title : str
        Lines above the figure.

    Returns
    -------
    Figure
        Lines are colored by the cosine of the matched pair, the best pair drawn thickest and numbered.
    """
    layout = _Layout(rows=len(matches), title_lines=len(title.splitlines()))
    figure = Figure(figsize=(layout.width, layout.height))
    if title:
        figure.suptitle(title, y=1 - 0.1 / layout.height, fontsize=11, parse_math=False)
    images = [[figure.add_axes(layout.image(row, side)) for side in (0, 1)] for row in range(len(matches))]
    for row, (match, name) in enumerate(zip(matches, titles, strict=True)):
        left, right = images[row]
        # One scale for both images of a layer, centered on the average weight 1.
        weights = torch.cat([match.support_weights, match.query_weights])
        spread = max(float((weights - 1).abs().max()), 1e-3)
        _draw_weights(left, support, match.support_weights, match.feature_size, spread)
        heat = _draw_weights(right, query, match.query_weights, match.feature_size, spread)
        best = f"best pair {float(match.similarities.max()):.2f}"
        # With y given, Matplotlib need not look for what the title could cover.
        left.set_title(f"support, {name}", fontsize=10, y=1.0)
        right.set_title(f"query, {name}: {best}", fontsize=10, y=1.0)
        _draw_matches(figure, left, right, match, support.shape, query.shape)
        bar = figure.add_axes(layout.weight_bar(row))
        figure.colorbar(heat, cax=bar, label="LWE weight (average 1)", ticks=MaxNLocator(5))
    colors = ScalarMappable(norm=_SIMILARITY, cmap=_SIMILARITY_COLORS)
    bar = figure.add_axes(layout.similarity_bar)
    figure.colorbar(colors, cax=bar, orientation="horizontal", ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_xlabel("cosine of matched positions")
    return figure


@dataclass(frozen=True)
class _Layout:
    """Places of the images and color bars, in inches: an automatic layout takes longer than the drawing."""

    rows: int
    title_lines: int
    width: float = 9.3

    _IMAGE, _GAP, _LEFT, _BOTTOM, _ROW = 3.6, 0.5, 0.2, 0.9, 3.95

    @property
    def height(self) -> float:
        return self._BOTTOM + self.rows * self._ROW + 0.1 + 0.2 * self.title_lines

    def image(self, row: int, side: int) -> Box:
        left = self._LEFT + side * (self._IMAGE + self._GAP)
        return self._box(left, self._bottom(row), self._IMAGE, self._IMAGE)

    def weight_bar(self, row: int) -> Box:
        left = self._LEFT + 2 * self._IMAGE + self._GAP + 0.25
        return self._box(left, self._bottom(row) + 0.1 * self._IMAGE, 0.15, 0.8 * self._IMAGE)

    @property
    def similarity_bar(self) -> Box:
        return self._box(self._LEFT + self._IMAGE / 2, 0.62, self._IMAGE + self._GAP, 0.15)

    def _bottom(self, row: int) -> float:
        return self._BOTTOM + (self.rows - 1 - row) * self._ROW

    def _box(self, left: float, bottom: float, width: float, height: float) -> Box:
        """As fractions of the figure, as Matplotlib has it."""
        return left / self.width, bottom / self.height, width / self.width, height / self.height


def _draw_weights(
    axes: Axes, image: NDArray[np.floating], weights: Tensor, size: int, spread: float
) -> AxesImage:
    axes.set_axis_off()
    extent = axes.imshow(image).get_extent()
    heat = weights.view(size, size).numpy()
    return axes.imshow(
        heat,
        cmap="coolwarm",
        alpha=0.35,
        vmin=1 - spread,
        vmax=1 + spread,
        extent=extent,
        interpolation="nearest",
    )


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
        figure.add_artist(line)
        for axes, end in zip((left, right), ends, strict=True):
            axes.plot(*end, "o", markersize=7, color=color, markeredgecolor="black", markeredgewidth=0.8)


def _cell_centers(size: int, shape: tuple[int, ...]) -> NDArray[np.floating]:
    """Pixel coordinates (x, y) of the centers of F x F cells, row by row -> [P, 2]."""
    row, column = np.divmod(np.arange(size * size), size)
    return np.stack([(column + 0.5) * shape[1] / size - 0.5, (row + 0.5) * shape[0] / size - 0.5], axis=1)
