"""One self-contained HTML page about an evaluation."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lwfm._common.files import atomic_path
from lwfm.errors import UserError
from lwfm.evaluation.methods import BASELINE
from lwfm.evaluation.results import EvaluationResult, percent
from lwfm.figures import curves_figure
from lwfm.figures.logs import log_files
from lwfm.report.charts import LABELS, confusion_figure, figure_uri, shots_figure
from lwfm.report.episodes import Redrawn, facts, redraw

if TYPE_CHECKING:
    from lwfm.evaluation.results import MethodResult

_MOST_CONFUSIONS = 20


def report(
    result: Path,
    *,
    out: Path | None = None,
    hardest: int = 3,
    root: Path | None = None,
    checkpoint: Path | None = None,
) -> Path:
    """Write an evaluation as one HTML page that needs no network.

    It shows accuracies beside the baseline, classes with filters, confusions, the hardest episodes with their
    images and matches, an embedding map, the curves of the training run, and how to repeat it all.

    Parameters
    ----------
    result : Path
        File that `lwfm evaluate --out` wrote.
    out : Path, optional
        The page; by default beside the result, with the ending html. An existing file is replaced.
    hardest : int
        How many of the hardest episodes are drawn at each number of ways and shots; 0 leaves them out. They
        need the data and the model of the evaluation; where these are gone, the page says so.
    root : Path, optional
        The folder of the data set, where it is no longer where it was.
    checkpoint : Path, optional
        The model, where it is no longer where it was.

    Returns
    -------
    Path
        Where the page is.

    Raises
    ------
    UserError
        For a file that is no evaluation result, or a page that cannot be written.
    """
    if hardest < 0:
        raise UserError(f"hardest must be at least 0, not {hardest}")
    page = out or result.with_suffix(".html")
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"the report is an HTML page: --out must end in .html, not {page}")
    html = render(EvaluationResult.read(result), hardest=hardest, root=root, checkpoint=checkpoint)
    with atomic_path(page) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")
    return page


def render(
    result: EvaluationResult, *, hardest: int = 3, root: Path | None = None, checkpoint: Path | None = None
) -> str:
    """Render the page as text; arguments as in :func:`report`."""
    note, redrawn = "", Redrawn([], None)
    if hardest:
        try:
            redrawn = redraw(result, hardest=hardest, root=root, checkpoint=checkpoint)
        except UserError as error:
            note = f"They cannot be drawn again: {error}."
            warnings.warn(f"the hardest episodes are left out of the report: {error}", stacklevel=2)
    shots = sorted({method.shot for method in result.methods})
    environment = Environment(
        loader=PackageLoader("lwfm.report", "."), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("page.html").render(
        title=f"Few-shot accuracy on {Path(result.data['name']).name} ({result.data['split']})",
        options=result.options,
        versions=result.versions,
        methods=result.methods,
        names=list(dict.fromkeys(method.method for method in result.methods)),
        labels=LABELS,
        baseline=BASELINE,
        percent=percent,
        settings=sorted({(method.way, method.shot) for method in result.methods}),
        shots_chart=figure_uri(shots_figure(result)) if len(shots) > 1 else None,
        confusions=[_confusions(method) for method in result.methods if _has_confusions(method)],
        note=note,
        episodes=redrawn.episodes,
        embedding_map=redrawn.embedding_map,
        curves=_curves(result, checkpoint),
        facts=facts(result),
    )


def _has_confusions(method: MethodResult) -> bool:
    return method.method == "lwfm" and bool(method.confusion)


def _confusions(method: MethodResult) -> dict[str, Any]:
    """Return chart and most frequent confusions of one method at one number of ways and shots."""
    pairs = [
        (true, answer, count)
        for true, row in method.confusion.items()
        for answer, count in row.items()
        if true != answer
    ]
    frequent = sorted(pairs, key=lambda pair: (-pair[2], pair[:2]))[:_MOST_CONFUSIONS]
    return {
        "way": method.way,
        "shot": method.shot,
        "chart": figure_uri(confusion_figure(method)),
        "frequent": frequent,
    }


def _curves(result: EvaluationResult, checkpoint: Path | None) -> str | None:
    """Draw the curves of the evaluated model's training run, if its log is still beside it."""
    place = result.model["checkpoint"]
    if place is None:
        return None
    path = checkpoint or Path(place)
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != result.model["sha256"]:
        return None  # the log beside it is that of another model
    logs = path.parent / "logs"
    return figure_uri(curves_figure(logs)) if log_files(logs) else None
