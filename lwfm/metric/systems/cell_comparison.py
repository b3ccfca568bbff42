"""The comparison of :class:`lwfm.metric.CellTypeAnnotator` with its baselines."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import combinations, permutations, product
from typing import TYPE_CHECKING, Any, Self, get_args

import numpy as np

from lwfm._common.progress import progress
from lwfm.errors import UserError
from lwfm.metric.data.cells import open_cells
from lwfm.metric.evaluation import MetricEvaluation, Row
from lwfm.metric.scores import auroc, class_scores
from lwfm.metric.systems import cell_types
from lwfm.metric.systems.cell_types import PUBLISHED, CellTypeAnnotator, Vote, voting
from lwfm.metric.systems.system import build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lwfm.metric.data.cells import CellFile
    from lwfm.metric.evaluation import Role
    from lwfm.metric.scores import Scores

    Values = npt.NDArray[np.float32]
    Labels = npt.NDArray[Any]
    Choice = dict[str, Any]  # values of some parameters of an annotator
    Make = Callable[..., Any]

_BATCH_COLUMNS = ("protocol", "study", "species", "sample", "batch")
_TRAINED: dict[str, tuple[float, ...]] = {"balance": (0.5, 0.0, 1.0), "weight": (1.0, 0.3, 0.1)}
_DECIDED: dict[str, tuple[Any, ...]] = {"plain": (1.0, 0.0, 2.0), "vote": get_args(Vote)}
"""Values to choose from, for parameters of training and of the decision; the class's own come first."""
_CHOOSING = 2
"""Seeds whose scores are averaged for a choice."""
_SET_HERE = ("loss", "released", *_TRAINED, *_DECIDED, "seed")
_PLAIN = "nothing learned: neighbors by cosine"


class Plain:
    """Cells as they are, by cosine: nothing is learned.

    Parameters
    ----------
    k : int
        Cells that vote.
    plain : float
        Length to which cells are brought.
    vote : {"types", "cells"}
        See :class:`lwfm.metric.CellTypeAnnotator`.

    Examples
    --------
    >>> fitted = Plain(1).fit(np.eye(2, dtype=np.float32), np.array(["alpha", "beta"]))
    >>> fitted.decision_.probabilities(fitted.transform(np.array([[0.9, 0.0]], np.float32))).round(2).tolist()
    [[1.0, 0.0]]
    """

    def __init__(self, k: int, plain: float = 1.0, vote: Vote = "types") -> None:
        self.k, self.plain = k, plain
        self.decision_ = voting(vote, k)

    def fit(self, values: Values, types: Labels) -> Self:
        """Store cells [N, genes] and their types [N]."""
        self.classes_, codes = np.unique(types, return_inverse=True)
        self.decision_.fit(self.transform(values), codes, len(self.classes_))
        return self

    def transform(self, X: Values) -> Values:
        """Return the cells [N, genes], brought to their length."""
        scaled: Values = X * (self.plain / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-9))
        return scaled


def evaluate(
    root: Path, seeds: Sequence[int], *, label: str = "cell_type", batch: str | None = None, **options: Any
) -> MetricEvaluation:
    """Compare the annotator with its baselines, each value of a column of batches held out in turn.

    Balance, weight of the triplet loss, length of the plain values and vote are chosen for each held-out
    batch and row by holding out each of the other batches in turn, with the first two seeds; where there is
    one other batch only, they are those of the class.

    Parameters
    ----------
    root : Path
        An .h5ad or .csv.gz file, or a folder of them.
    seeds : sequence of int
        Of training.
    label, batch : str
        Columns of the types and of the batches (such as protocol, study, species); by default the first of
        protocol, study, species, sample, batch that exists.
    **options
        Parameters of :class:`CellTypeAnnotator`, but for `loss`, `released`, `seed`, those that are chosen,
        and, as every cell is answered with its most likely type, `threshold` and `kept`.
    """
    template = build(CellTypeAnnotator, options, set_here=_SET_HERE, unused=("threshold", "kept"))
    paths = sorted(root.glob("*.h5ad")) + sorted(root.glob("*.csv*")) if root.is_dir() else [root]
    if not paths:
        raise UserError(f"{root} holds no .h5ad and no .csv file")
    rows = [row for path in paths for row in _compare(open_cells(path), template, seeds, label, batch)]
    names = ", ".join(path.name for path in paths)
    published = cell_types.SYSTEM.published
    return MetricEvaluation("cell_types", names, tuple(seeds), tuple(rows), "macro-F1", published)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Batches [N], types [N] and values [N, genes] of cells."""

    batches: Labels
    types: Labels
    values: Values

    def some(self, rows: npt.NDArray[np.bool_]) -> _Cells:
        """Return those of the rows [N]."""
        return _Cells(self.batches[rows], self.types[rows], self.values[rows])


def _compare(
    file: CellFile, template: CellTypeAnnotator, seeds: Sequence[int], label: str, batch: str | None
) -> list[Row]:
    """Score all rows on one file."""
    column = batch or next((name for name in _BATCH_COLUMNS if name in file.columns), "batch")
    batches, types = file.column(column), file.column(label)
    if len(np.unique(batches)) < 2:
        raise UserError(f"{file.path} has one {column} only, {batches[0]}: nothing to hold out")
    cells = _Cells(batches, types, file.read())
    protocol = f"{file.path.name}: each {column} held out, mean"
    kinds: list[tuple[str, Role, dict[str, Any]]] = [
        ("cross-entropy + triplet", "system", {"loss": "joint"}),
        ("the published form", "ablation", {"loss": "joint", **PUBLISHED}),
        ("as released: triplet detached, last type not sampled", "ablation", {"released": True, **PUBLISHED}),
        ("cross-entropy", "baseline", {"loss": "cross_entropy", "weight": 1.0}),
        ("cross-entropy, published vote", "baseline", {"loss": "cross_entropy", **PUBLISHED}),
    ]
    rows = []
    for name, role, options in kinds:
        trained, decided = _grid(_TRAINED, options), _grid(_DECIDED, options)
        makes = [partial(_annotator, {**template.get_params(), **options, "seed": seed}) for seed in seeds]
        choices = _choices(cells, makes[:_CHOOSING], trained, decided)
        scores = [_held_out(cells, make, choices) for make in progress(makes, f"{name}: seeds", "seed")]
        rows.append(Row.over_seeds(protocol, name, role, scores))
    for name, fixed in (
        (_PLAIN, {"plain": 1.0, "vote": "cells"}),
        (f"{_PLAIN}, vote chosen", {"plain": 1.0}),
    ):
        make = partial(Plain, template.k)
        nothing = _held_out(cells, make, _choices(cells, [make], [{}], _grid(_DECIDED, fixed)))
        rows.append(Row.over_seeds(protocol, name, "baseline", [nothing] * len(seeds)))
    return rows


def _grid(values: dict[str, tuple[Any, ...]], fixed: dict[str, Any]) -> list[Choice]:
    """Return all combinations of values, of parameters that are fixed the one value."""
    each = [(fixed[name],) if name in fixed else values[name] for name in values]
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*each)]


def _annotator(parameters: dict[str, Any], **chosen: Any) -> CellTypeAnnotator:
    return CellTypeAnnotator(**{**parameters, **chosen})


def _held_out(cells: _Cells, make: Make, choices: dict[str, Choice]) -> Scores:
    """Score the known types of each batch after a fit on all others, and the detection of unknown ones."""
    found: dict[str, list[float]] = {}
    each: Scores = {}
    for batch, choice in choices.items():
        tested = cells.batches == batch
        train, test = cells.some(~tested), cells.some(tested)
        fitted = make(**choice).fit(train.values, train.types)
        shares, distances = fitted.decision_.compare(fitted.transform(test.values))
        known = np.isin(test.types, fitted.classes_)
        if not known.any():
            continue
        scores = class_scores(test.types[known], fitted.classes_[shares.argmax(1)][known])
        each[f"macro-F1 {batch}"] = scores["macro-F1"]
        if not known.all():
            scores["unknown by share"] = auroc(~known, -shares.max(1))
            scores["unknown by distance"] = auroc(~known, distances)
        for name, value in scores.items():
            found.setdefault(name, []).append(value)
    if not found:
        raise UserError("no batch has a type of cells that other batches have: nothing to compare")
    return {**{name: float(np.mean(values)) for name, values in found.items()}, **each}


def _choices(
    cells: _Cells, makes: Sequence[Make], trained: Sequence[Choice], decided: Sequence[Choice]
) -> dict[str, Choice]:
    """Return for each batch the choice with the best mean macro-F1 on the others, without seeing the batch.

    Each of the others is held out in turn; of equal choices, and where there is one other batch only, it is
    the first. What is trained without two batches serves both.

    Parameters
    ----------
    cells : _Cells
        All batches.
    makes : sequence of callable
        Build systems with parameters, such as one for each seed; their scores are averaged.
    trained, decided : sequence of dict
        Parameters of training and of the decision; all combinations are compared.
    """
    batches = np.unique(cells.batches).tolist()
    totals = {batch: np.zeros((len(trained), len(decided))) for batch in batches}
    for pair in combinations(batches, 2) if len(trained) * len(decided) > 1 else ():
        train = cells.some(~np.isin(cells.batches, pair))
        if len(np.unique(train.types)) < 2:
            continue
        for make, (number, parameters) in progress(
            list(product(makes, enumerate(trained))), f"choosing without {' and '.join(pair)}", "fit"
        ):
            fitted = make(**parameters, plain=1.0, vote="cells").fit(train.values, train.types)
            for batch, other in permutations(pair):
                test = cells.some((cells.batches == other) & np.isin(cells.types, train.types))
                if len(test.types):
                    totals[batch][number] += _decided_scores(fitted, test, decided)
    best = {batch: divmod(int(scores.argmax()), len(decided)) for batch, scores in totals.items()}
    return {batch: {**trained[number], **decided[vote]} for batch, (number, vote) in best.items()}


def _decided_scores(fitted: Any, test: _Cells, decided: Sequence[Choice]) -> list[float]:
    """Return the macro-F1 of each choice of the decision by a fitted system with ``plain=1``.

    Nothing is trained anew: columns of embeddings are scaled, and the vote is fitted.
    """
    references, codes = fitted.decision_.references, fitted.decision_.codes
    embedded = fitted.transform(test.values)
    learned = np.arange(references.shape[1]) < references.shape[1] - test.values.shape[1]
    scores = []
    for choice in decided:
        scale = np.where(learned, 1, choice["plain"]).astype(np.float32)
        decision = voting(choice["vote"], fitted.k).fit(references * scale, codes, len(fitted.classes_))
        answers = fitted.classes_[decision.probabilities(embedded * scale).argmax(1)]
        scores.append(class_scores(test.types, answers)["macro-F1"])
    return scores
