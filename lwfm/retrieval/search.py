"""Search for similar images, found by cosine and ranked by matching: ``lwfm search``."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from lwfm._common.ranges import check_at_least
from lwfm._common.tables import text_table
from lwfm._common.text import listed, one_line
from lwfm.data import open_image
from lwfm.errors import UserError, keeping
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.model.encode import encode_images
from lwfm.model.engines import Encoder, parse_engine
from lwfm.retrieval.index import Hit, ImageIndex, load_index

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from lwfm.data.white_levels import WhiteLevels

_COLUMNS, _ROWS = 5, 10  # at most, of the figure


@dataclass(frozen=True)
class Hits:
    """Results of a search.

    Attributes
    ----------
    query : Path
        The image that was searched with.
    index : ImageIndex
        The index that was searched.
    hits : tuple of Hit
        The most similar first.
    """

    query: Path
    index: ImageIndex
    hits: tuple[Hit, ...]

    def __str__(self) -> str:
        rows = [
            (
                str(rank),
                f"{hit.similarity:.3f}",
                f"{hit.cosine:.3f}",
                str(hit.cosine_rank),
                str(_from_here(self.index.path(hit.number))),
            )
            for rank, hit in enumerate(self.hits, start=1)
        ]
        return text_table(">>>><", ("rank", "similarity", "cosine", "rank by cosine", "image"), rows)

    def figure(self) -> Figure:
        """Draw the query and its results, at most 49, five images in a row."""
        paths = [self.index.path(hit.number) for hit in self.hits]
        titles = [f"{rank}: {hit.similarity:.2f}" for rank, hit in enumerate(self.hits, start=1)]
        shown = list(zip(["query", *titles], [self.query, *paths], strict=True))[: _COLUMNS * _ROWS]
        rows = -(-len(shown) // _COLUMNS)
        figure = Figure(figsize=(10, 2.2 * rows), layout="constrained")
        cells = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
        for axes in cells:
            axes.set_axis_off()
        for axes, (title, path) in zip(cells, shown, strict=False):
            _draw_image(axes, path, self.index.white)
            name = one_line(f"{path.parent.name}/{path.name}")
            axes.set_title(f"{title}\n{name}", fontsize=8, parse_math=False)
        return figure


def _from_here(path: Path) -> Path:
    """Return a path relative to the current folder, if it is below that."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _draw_image(axes: Axes, path: Path, white: WhiteLevels) -> None:
    try:
        axes.imshow(open_image(path, white))
    except UserError:  # removed or overwritten since it was indexed
        axes.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=8)


def search_index(
    index: Path,
    image: Path,
    *,
    k: int = 10,
    candidates: int = 100,
    show: Path | None = None,
    root: Path | None = None,
    engine: str = "auto",
) -> Hits:
    """Find the indexed images that are most similar to an image.

    Candidates are found by the cosine of their mean features, then ranked by LWFM-SPM.

    Parameters
    ----------
    index : Path
        File that `lwfm index` wrote.
    image : Path
        The query.
    k : int
        Number of results.
    candidates : int
        Number of nearest images by cosine that the head ranks.
    show : Path, optional
        Figure (png, pdf, svg, ...) of the query and its first 49 results; without a name, similar.png.
    root : Path, optional
        The indexed folder, where it is no longer where it was.
    engine : str
        What runs the network: torch, onnxruntime (pip install 'lwfm[fast]') or auto: ONNX Runtime on a CPU,
        if it is installed and the images are many. Execution providers of ONNX Runtime follow a colon:
        onnxruntime:CUDAExecutionProvider.

    Returns
    -------
    Hits
        Prints as a table.

    Raises
    ------
    UserError
        For a missing or damaged index or image, a figure that cannot be written, or numbers out of range.
    """
    check_at_least(1, k=k, candidates=candidates)
    parse_engine(engine)
    if root is not None and not root.is_dir():
        raise UserError(f"there is no folder {root}: --root must be the present place of the indexed folder")
    if show is not None:
        check_figure_suffix(show)
    images = load_index(index)
    if root is not None:
        images = replace(images, root=root.resolve())
    (maps,) = encode_images(Encoder(images.network, engine), [image], white=images.white)
    features = images.features()
    if not features.isfinite().all():
        raise UserError(f"{index} is not a whole index: its maps hold NaN or infinite values; index again")
    (found,) = images.nearest(maps, features, k, candidates=candidates)
    _warn_of_changes(images, found, index)
    hits = Hits(image, images, tuple(found))
    if show is not None:
        with keeping(hits):
            save_figure(hits.figure(), show)
    return hits


def _warn_of_changes(images: ImageIndex, hits: list[Hit], index: Path) -> None:
    """Warn of results whose files changed or disappeared since they were indexed."""
    states = {hit.number: images.state(hit.number) for hit in hits}
    stale = [f"{images.path(number)} ({state})" for number, state in states.items() if state != "same"]
    if stale:
        advice = f"index again: lwfm index {images.root} --out {index}"
        if "gone" in states.values():
            advice = f"if the folder was moved, name its place by --root FOLDER; otherwise {advice}"
        warnings.warn(
            f"{len(stale)} of {len(hits)} images found are not what was indexed: {listed(stale, 3)}; "
            f"{advice}",
            stacklevel=2,
        )
