"""Commands of the systems that search images: fitting on class folders, hits as CSV and figure."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from matplotlib.figure import Figure

from lwfm._common.files import atomic_path
from lwfm._common.text import one_line
from lwfm.data import decode_image, open_image
from lwfm.data.layouts.folders import find_images
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.data.pictures import open_pictures
from lwfm.metric.retriever import ImageRetriever

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image

    from lwfm.metric.retriever import Hits

Retriever = TypeVar("Retriever", bound=ImageRetriever)
_SHOWN = 8


def fit_on_folders(retriever: Retriever, root: Path, *, classes: int = 4) -> Retriever:
    """Fit a retriever on all images of a folder or zip of class folders, and index them by their names."""
    with open_pictures(root, classes=classes) as pictures:
        retriever.fit(pictures.paths, pictures.labels)
        retriever.names_ = pictures.names
    return retriever


def write_hits(retriever: ImageRetriever, inputs: Sequence[Path], out: Path, figure: Path | None) -> str:
    """Search for images like each input; write a CSV of the ten nearest, and a figure of the first inputs."""
    if figure is not None:
        check_figure_suffix(figure)
    inputs = find_images(inputs)
    hits = retriever.search(inputs)
    labels = retriever.classes_[retriever.decision_.codes]
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["query", "rank", "image", "class", "distance"])
        for query, distances, indices in zip(inputs, hits.distances, hits.indices, strict=True):
            for place, (distance, index) in enumerate(zip(distances, indices, strict=True), start=1):
                name = retriever.names_[index] or str(index)
                table.writerow([query, place, name, labels[index], f"{distance:.5f}"])
    lines = [f"{len(inputs)} queries among {len(labels)} images: {out}"]
    if figure is not None:
        pictures = [open_image(path) for path in inputs[:_SHOWN]]
        save_figure(draw_hits(retriever, pictures, ["query"] * len(pictures), hits), figure)
        lines.append(f"the first queries and their nearest images: {figure}")
    return "\n".join(lines)


def draw_hits(
    retriever: ImageRetriever, queries: Sequence[Image], titles: Sequence[str], hits: Hits
) -> Figure:
    """Draw queries with their titles, and the five nearest images of each, in a row each."""
    labels: npt.NDArray[np.str_] = retriever.classes_[retriever.decision_.codes]
    figure = Figure(figsize=(9, 1.7 * len(queries)), layout="constrained")
    cells = figure.subplots(len(queries), 6, squeeze=False)
    for axes in cells.ravel():
        axes.set_axis_off()
    for row, query, title, indices, distances in zip(
        cells, queries, titles, hits.indices, hits.distances, strict=False
    ):
        row[0].imshow(query)
        row[0].set_title(one_line(title), fontsize=8, parse_math=False)
        for axes, index, distance in zip(row[1:], indices, distances, strict=False):
            picture = _named_image(retriever.names_[index])
            if picture is not None:
                axes.imshow(picture)
            axes.set_title(f"{one_line(str(labels[index]))}\n{distance:.2f}", fontsize=7, parse_math=False)
    return figure


def _named_image(name: str) -> Image | None:
    """Read an indexed image from its folder or zip; None where it is no longer there."""
    path = Path(name)
    if path.is_file():
        return open_image(path)
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    if not name or archive is None or not zipfile.is_zipfile(archive):
        return None
    with zipfile.ZipFile(archive) as members:
        member = path.relative_to(archive).as_posix()
        return decode_image(members.read(member)) if member in members.namelist() else None
