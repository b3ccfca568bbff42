"""Figures of the report as ``data:`` addresses, which need no further file."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from lwfm._common.text import one_line
from lwfm.evaluation.methods import METHODS
from lwfm.figures.files import draw_figure

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from lwfm.evaluation.results import EvaluationResult, MethodResult

LABELS = {
    "lwfm": "LWFM-SPM",
    "base": "its base term alone",
    "matching": "its matching term alone",
    "nearest_class_mean": "nearest class mean",
}
"""Titles of the methods of :data:`lwfm.evaluation.methods.METHODS`."""

_COLORS = dict(zip(METHODS, ("#1f6feb", "#8250df", "#bf8700", "#57606a"), strict=True))
_LINES = ("-", "--", ":", "-.")


def figure_uri(figure: Figure) -> str:
    """Return a figure as a ``data:`` address."""
    stream = io.BytesIO()
    draw_figure(figure, stream, format="png")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def image_uri(image: Image, side: int = 84) -> str:
    """Return a thumbnail of an image as a ``data:`` address."""
    small = image.copy()
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()


def shots_figure(result: EvaluationResult) -> Figure:
    """Draw accuracy and intervals over the number of shots, one line for each method and number of ways."""
    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    ways = sorted({method.way for method in result.methods})
    for name, way in dict.fromkeys((method.method, method.way) for method in result.methods):
        of_line = sorted(
            (m for m in result.methods if (m.method, m.way) == (name, way)), key=lambda m: m.shot
        )
        axes.errorbar(
            [m.shot for m in of_line],
            [100 * m.accuracy for m in of_line],
            yerr=[100 * (m.interval or 0) for m in of_line],
            label=LABELS.get(name, name) + (f", {way}-way" if len(ways) > 1 else ""),
            color=_COLORS.get(name),
            linestyle=_LINES[ways.index(way) % len(_LINES)],
            marker="o",
            markersize=4,
            capsize=3,
        )
    axes.set_xticks(sorted({m.shot for m in result.methods}))
    axes.set_xlabel("shots")
    axes.set_ylabel("accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure


def confusion_figure(method: MethodResult) -> Figure:
    """Draw the share of the queries of each class (row) classified as each other class (column)."""
    classes = sorted(set(method.confusion) | {name for row in method.confusion.values() for name in row})
    place = {name: index for index, name in enumerate(classes)}
    names = [one_line(name) for name in classes]
    counts = np.zeros((len(names), len(names)))
    for true, row in method.confusion.items():
        for answer, count in row.items():
            counts[place[true], place[answer]] = count
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    np.fill_diagonal(share, np.nan)
    side = min(4 + 0.2 * len(names), 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    heat = axes.imshow(share, cmap="magma_r", interpolation="nearest")
    figure.colorbar(heat, ax=axes, label="queries taken for another class (%)", shrink=0.7)
    if len(names) <= 80:
        size = 8 if len(names) <= 25 else 6
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        axes.set_yticks(range(len(names)), names, fontsize=size)
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    return figure


def embedding_figure(before: Tensor, after: Tensor, labels: list[str]) -> Figure:
    """Draw t-SNE of the query features [Q, C] of one episode, before and after layer-wise embedding."""
    from sklearn.manifold import TSNE  # an extra: without it the page has no such figure

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    names = sorted(set(labels))
    for axes, features, title in zip(
        figure.subplots(1, 2),
        (before, after),
        ("before: mean over positions", "after: weighted by layer-wise embedding"),
        strict=True,
    ):
        perplexity = min(30.0, (len(labels) - 1) / 3)
        plane = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features.numpy())
        for name in names:
            rows = [index for index, label in enumerate(labels) if label == name]
            axes.scatter(plane[rows, 0], plane[rows, 1], s=14, label=one_line(name))
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.legend(
        *axes.get_legend_handles_labels(), loc="outside lower center", ncols=min(len(names), 5), fontsize=8
    )
    return figure
