"""What both systems of chest films share: comparisons over seeds, nothing learned, and answers in files."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.neighbors import NearestNeighbors

from lwfm._common.files import atomic_path
from lwfm._common.progress import progress
from lwfm._common.text import one_line
from lwfm.data.decoding import image_endings
from lwfm.errors import UserError
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.data.archives import unpacked
from lwfm.metric.data.xray import read_images
from lwfm.metric.scores import defined_mean, label_aurocs
from lwfm.metric.systems.system import check_names_differ

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lwfm.metric.data.xray import Films
    from lwfm.metric.evaluation import Role
    from lwfm.metric.module import Indices
    from lwfm.metric.multilabel import MultiLabelEstimator

    Mask = npt.NDArray[np.bool_]
    Values = npt.NDArray[np.float64]

RATES = (1.5e-3, 3e-3)
NEIGHBORS = (5, 25, 100)
"""Learning rates of cross-entropy and numbers of neighbors that are tried on the patients held out."""
_SHOWN, _BARS = 6, 6


@dataclass(frozen=True)
class Kind:
    """One learned row of a comparison: its parameters, and the grid that is searched on held out patients."""

    name: str
    role: Role
    options: dict[str, Any]
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)


def best_of_grid(
    template: MultiLabelEstimator, kind: Kind, films: Films, train: Mask, seed: int, **fixed: Any
) -> MultiLabelEstimator:
    """Fit every member of the grid, and return the one with the best AUROC on the patients held out."""
    fitted = []
    for values in product(*kind.grid.values()):
        chosen = dict(zip(kind.grid, values, strict=True))
        options = {**template.get_params(), **kind.options, **fixed, **chosen, "seed": seed}
        estimator = type(template)(**options)
        fitted.append(estimator.fit(films.images[train], films.targets[train], groups=films.patients[train]))
    return max(fitted, key=lambda each: each.held_out_auc_)


def neighbor_shares(films: Films, train: Mask, test: Mask, held: Indices, usable: Mask, seen: Mask) -> Values:
    """Return the share [N, C] of the nearest training films that have each label, by pixels alone.

    Films are brought to mean 0 and standard deviation 1. Their number is chosen on the rows held out, by the
    labels that are seen.
    """
    pixels = films.images.reshape(len(films.images), -1)
    pixels = (pixels - pixels.mean(1, keepdims=True)) / (pixels.std(1, keepdims=True) + 1e-6)
    rows = np.flatnonzero(train)
    kept = rows[held]
    voters = rows[np.isin(np.arange(len(rows)), held, invert=True) & usable]
    truth = films.targets[kept][:, seen] > 0

    def shares(references: Indices, queries: Indices, k: int) -> Values:
        knn: Any = NearestNeighbors(n_neighbors=min(k, len(references))).fit(pixels[references])
        found = knn.kneighbors(pixels[queries], return_distance=False)
        return np.asarray((films.targets[references][found] > 0).mean(1), dtype=np.float64)

    reached = [defined_mean(label_aurocs(truth, shares(voters, kept, k)[:, seen])) for k in NEIGHBORS]
    return shares(rows[usable], np.flatnonzero(test), NEIGHBORS[int(np.argmax(reached))])


def over_seeds(seeds: Sequence[int], name: str, scores: Callable[[int], dict[str, float]]) -> list[Any]:
    """Return the scores of every seed, with those names alone that all seeds have, with a progress bar."""
    found = [scores(seed) for seed in progress(list(seeds), f"{name}: seeds", "seed")]
    common = [key for key in found[0] if all(key in each for each in found)]
    return [{key: each[key] for key in common} for each in found]


def write_answers(
    estimator: MultiLabelEstimator,
    inputs: Sequence[Path],
    out: Path,
    figure: Path | None,
    *,
    size: int,
    unseen: Sequence[str] = (),
) -> str:
    """Write the probabilities of every film as CSV, and a figure of the first films.

    Parameters
    ----------
    estimator : MultiLabelEstimator
        Fitted.
    inputs : sequence of Path
        Images, and folders and zips of images.
    out : Path
        CSV file: film, one column a label, and `found`, the labels that :meth:`~MultiLabelEstimator.predict`
        answers with, separated by ``|``.
    figure : Path, optional
        Films and their likeliest labels.
    size : int
        Pixels of the films in memory.
    unseen : sequence of str
        Labels to mark in the figure: no film with them was in the training data.
    """
    if figure is not None:
        check_figure_suffix(figure)
    with ExitStack() as stack:
        paths = [path for each in inputs for path in _films_in(each, stack)]
        check_names_differ(path.name for path in paths)
        images = read_images(paths, size)
    probabilities = estimator.predict_proba(images)
    found = estimator.calibration_.above_share(probabilities)
    labels = estimator.classes_
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["film", *labels, "found"])
        for path, row, mask in zip(paths, probabilities, found, strict=True):
            table.writerow([path.name, *(f"{value:.4f}" for value in row), "|".join(labels[mask])])
    lines = [f"{len(paths)} films, {len(labels)} labels: {out}"]
    if figure is not None:
        names = [one_line(path.name) for path in paths]
        save_figure(_panel(images, names, probabilities, labels, unseen), figure)
        lines.append(f"the first films and their likeliest labels: {figure}")
    return "\n".join([*lines, "research software: not for diagnosis"])


def _films_in(path: Path, stack: ExitStack) -> list[Path]:
    """Return the images of an input."""
    if path.is_file() and path.suffix.lower() in image_endings():
        return [path]
    if not path.exists():
        raise UserError(f"there is no film {path}")
    folder = path
    if not path.is_dir():
        folder = stack.enter_context(unpacked(path, other="an image", content="chest films"))
    found = sorted(each for each in folder.rglob("*") if each.suffix.lower() in image_endings())
    if not found:
        raise UserError(f"{path} holds no image")
    return found


def _panel(
    images: npt.NDArray[np.float32],
    names: Sequence[str],
    probabilities: Values,
    labels: npt.NDArray[np.str_],
    unseen: Sequence[str],
) -> Figure:
    """Draw films, each above the bars of its likeliest labels; those of unseen labels in orange."""
    count = min(len(images), _SHOWN)
    figure = Figure(figsize=(2.2 * count + 0.4, 4.2), layout="constrained")
    axes = figure.subplots(2, count, squeeze=False)
    for column in range(count):
        film, bars = axes[:, column]
        film.imshow(images[column, 0], cmap="gray")
        film.set_title(names[column], fontsize=7, parse_math=False)
        film.set_axis_off()
        order = np.argsort(-probabilities[column], kind="stable")[:_BARS][::-1]
        colors = ["tab:orange" if label in unseen else "tab:blue" for label in labels[order]]
        bars.barh(range(len(order)), probabilities[column, order], color=colors)
        bars.set_yticks(range(len(order)), [one_line(label) for label in labels[order]], fontsize=6)
        bars.set_xlim(0, max(float(probabilities.max()), 0.01))
        bars.tick_params(axis="x", labelsize=6)
    return figure
