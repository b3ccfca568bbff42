"""Chest X-rays with several findings each: a metric of films and findings, weighted twice."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from torch import nn

from lwfm._common.ranges import check_between, check_counts, check_positive
from lwfm.errors import UserError
from lwfm.metric.data.xray import read_films, read_targets
from lwfm.metric.evaluation import MetricEvaluation, Row
from lwfm.metric.heads import LinearHead, PrototypeHead
from lwfm.metric.losses import DualWeightedMetricLoss, LabelCrossEntropy, Level
from lwfm.metric.multilabel import MultiLabelEstimator
from lwfm.metric.scores import Scores, label_aurocs, multi_label_scores
from lwfm.metric.simulation.chest_xray import FINDINGS, simulate_films
from lwfm.metric.systems.chest import RATES, Kind, best_of_grid, neighbor_shares, over_seeds, write_answers
from lwfm.metric.systems.system import System, build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from lwfm._common.devices import Accelerator
    from lwfm.metric.data.xray import Films
    from lwfm.metric.module import Indices

    Mask = npt.NDArray[np.bool_]

Loss = Literal["dual", "cross_entropy"]
PROTOCOL, EACH = "new patients", "AUC of each finding"
_GRID: dict[str, tuple[Any, ...]] = {"margin": (1.0, 1.5)}
_DUAL = {"loss": "dual", "temperature": 0.5, "power": 0.5, "level": "both"}
KINDS = (
    Kind("dual-weighted", "system", _DUAL, _GRID),
    Kind("not weighted", "ablation", {**_DUAL, "temperature": None, "power": 0.0}, _GRID),
    Kind("image level alone", "ablation", {**_DUAL, "level": "image"}, _GRID),
    Kind("disease level alone", "ablation", {**_DUAL, "level": "disease"}, _GRID),
    Kind("binary cross-entropy", "baseline", {"loss": "cross_entropy"}, {"learning_rate": RATES}),
)
"""The learned rows: two fits each, on the same network, batches and held out patients."""


class ChestXRayMultiLabel(MultiLabelEstimator):
    """Findings in chest X-rays by distances to learned prototypes, trained with weights on two levels.

    A network embeds a film near the prototypes of its findings, after batch normalization, without which all
    films start at nearly one place of the unit sphere. The loss is
    :class:`~lwfm.metric.losses.DualWeightedMetricLoss`, a *reading* of the published abstract. Research
    software: not for diagnosis.

    Parameters
    ----------
    labels : sequence of str, optional
        Names of the columns of the targets; by default their numbers.
    loss : {"dual", "cross_entropy"}
        Cross-entropy of a linear classifier is the baseline.
    temperature : float, optional
        Of the weights within a film; None for equal ones.
    power : float
        Of the weights of findings, by their number of films; 0 for equal ones.
    margin : float
        Distance beyond which absent findings have no loss.
    level : {"both", "image", "disease"}
        Which parts of the loss.
    dim : int
        Of the embedding.
    trunk, steps, batch_size, learning_rate, weight_decay, held_out, size, seed, accelerator
        As of :class:`~lwfm.metric.ChestXRayZeroShot`.

    Examples
    --------
    >>> from lwfm.metric.simulation.chest_xray import FINDINGS, simulate_films
    >>> films = simulate_films(80, 0)
    >>> system = ChestXRayMultiLabel(FINDINGS, steps=3, batch_size=16).fit(films.images, films.targets)
    >>> system.predict_proba(films.images[:2]).shape
    (2, 14)
    """

    system = "chest_multi_label"

    def __init__(
        self,
        labels: Sequence[str] | None = None,
        loss: Loss = "dual",
        temperature: float | None = 0.5,
        power: float = 0.5,
        margin: float = 1.5,
        level: Level = "both",
        dim: int = 32,
        trunk: str = "small",
        steps: int = 300,
        batch_size: int = 64,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        held_out: float = 0.2,
        size: int = 64,
        seed: int = 0,
        accelerator: Accelerator = "auto",
    ) -> None:
        self.labels, self.loss = labels, loss
        self.temperature, self.power, self.margin, self.level = temperature, power, margin, level
        self.dim, self.trunk = dim, trunk
        self.steps, self.batch_size = steps, batch_size
        self.learning_rate, self.weight_decay, self.held_out = learning_rate, weight_decay, held_out
        self.size, self.seed, self.accelerator = size, seed, accelerator

    def _check_parameters(self) -> None:
        super()._check_parameters()
        for name, known in (("loss", get_args(Loss)), ("level", get_args(Level))):
            if getattr(self, name) not in known:
                raise UserError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if self.temperature is not None:
            check_positive(temperature=self.temperature)
        check_between(0, float("inf"), power=self.power)
        check_positive(margin=self.margin)
        check_between(0, 2, margin=self.margin)
        check_counts(dim=self.dim)

    def _coded(self, labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Indices]:
        names, codes = super()._coded(labels)
        self.counts_ = np.asarray((codes == 1).sum(0), dtype=np.int64)
        return names, codes

    def _head(self) -> tuple[nn.Module, int]:
        if self.loss == "cross_entropy":
            return LinearHead(self.dim, len(self.classes_)), self.dim
        prototypes = PrototypeHead(learned=(len(self.classes_), self.dim))
        return nn.Sequential(nn.BatchNorm1d(self.dim), prototypes), self.dim

    def _loss(self) -> nn.Module:
        if self.loss == "cross_entropy":
            return LabelCrossEntropy(len(self.classes_))
        temperature = float("inf") if self.temperature is None else self.temperature
        return DualWeightedMetricLoss(self.counts_.tolist(), temperature, self.power, self.margin, self.level)

    def _described(self) -> dict[str, Any]:
        return {"counts": self.counts_.tolist()}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        del tensors
        self.counts_ = np.asarray(description["counts"], dtype=np.int64)


def evaluate(
    root: Path, seeds: Sequence[int], *, findings: Sequence[str] | None = None, **options: Any
) -> MetricEvaluation:
    """Compare the losses on films of patients that training does not see.

    Parameters
    ----------
    root : Path
        Folder or zip of films, see :func:`lwfm.metric.data.xray.read_films`.
    seeds : sequence of int
        Of training, and of the split of patients where there is no official one.
    findings : sequence of str, optional
        Of the reader.
    **options
        Further parameters of :class:`ChestXRayMultiLabel`, but for those that the comparison sets.
    """
    template = _template(options)
    films = read_films(root, size=template.size, findings=findings)
    data = f"{root.name}: {len(films.names)} films of {len(np.unique(films.patients))} patients"
    return _compare(lambda _: films, template, seeds, data, simulated=False)


def simulate(
    seeds: Sequence[int], *, films: int = 3000, table: str | None = None, **options: Any
) -> MetricEvaluation:
    """Compare the losses on simulated films, see :mod:`lwfm.metric.simulation.chest_xray`.

    Parameters
    ----------
    seeds : sequence of int
        Of films, training and split.
    films : int
        Number of films.
    table : str, optional
        Table of findings from which the labels are drawn; by default by the published shares.
    **options
        As of :func:`evaluate`.
    """
    template = _template({"size": 32, **options})
    check_counts(films=films)
    rows = None if table is None else read_targets(Path(table), FINDINGS)

    @cache
    def draw(seed: int) -> Films:
        return simulate_films(films, seed, size=template.size, table=rows)

    return _compare(draw, template, seeds, f"{films} films a seed", simulated=True)


def _template(options: dict[str, Any]) -> ChestXRayMultiLabel:
    own = ("loss", "temperature", "power", "margin", "level", "labels", "seed")
    template: ChestXRayMultiLabel = build(ChestXRayMultiLabel, options, set_here=own)
    return template


def _compare(
    draw: Callable[[int], Films],
    template: ChestXRayMultiLabel,
    seeds: Sequence[int],
    data: str,
    *,
    simulated: bool,
) -> MetricEvaluation:
    """Score all rows: the means of the findings, and each finding that all seeds have in the test."""

    def score(kind: Kind | None, seed: int) -> Scores:
        films = draw(seed)
        test = films.split(seed)
        if kind is None:
            shares = _nothing_learned(template, films, test, seed)
        else:
            fitted = best_of_grid(template, kind, films, ~test, seed, labels=films.findings)
            shares = fitted.predict_proba(films.images[test])
        truth, known = films.targets[test] > 0, (films.targets[~test] > 0).sum(0)
        each = dict(zip(films.findings, label_aurocs(truth, shares).tolist(), strict=True))
        defined = {name: value for name, value in each.items() if np.isfinite(value)}
        return {**multi_label_scores(truth, shares, known), **defined}

    rows = []
    for kind in (*KINDS, None):
        name, role = (kind.name, kind.role) if kind else ("nothing learned: neighbors by pixels", "baseline")
        scores = over_seeds(seeds, name, partial(score, kind))
        means = ("mean AUC", "rare third AUC", "Brier")
        rows.append(
            Row.over_seeds(PROTOCOL, name, role, [{key: one[key] for key in means} for one in scores])
        )
        single = [{key: value for key, value in one.items() if key not in means} for one in scores]
        rows.append(Row.over_seeds(EACH, name, role, single))
    ordered = sorted(rows, key=lambda row: row.protocol == EACH)
    return MetricEvaluation(
        "chest_multi_label", data, tuple(seeds), tuple(ordered), "mean AUC", SYSTEM.published, simulated
    )


def _nothing_learned(
    template: ChestXRayMultiLabel, films: Films, test: Mask, seed: int
) -> npt.NDArray[np.float64]:
    """Return the shares of the nearest films that have each finding."""
    system = ChestXRayMultiLabel(**{**template.get_params(), "labels": films.findings, "seed": seed})
    _, codes = system._coded(films.targets[~test])
    held = system._references(codes, films.patients[~test], np.random.default_rng(seed))
    usable = np.asarray((codes >= 0).any(1))
    return neighbor_shares(films, ~test, test, held, usable, np.ones(len(films.findings), dtype=bool))


def fit(root: Path, *, findings: Sequence[str] | None = None, **options: Any) -> ChestXRayMultiLabel:
    """Fit a system on all films of a folder or zip."""
    template: ChestXRayMultiLabel = build(ChestXRayMultiLabel, options, set_here=("labels",))
    films = read_films(root, size=template.size, findings=findings)
    template.set_params(labels=films.findings)
    return template.fit(films.images, films.targets, groups=films.patients)


def predict(system: ChestXRayMultiLabel, inputs: Sequence[Path], out: Path, figure: Path | None) -> str:
    """Write the probabilities of the findings of films, see :func:`.chest.write_answers`."""
    return write_answers(system, inputs, out, figure, size=system.shape_[-1])


SYSTEM = System(
    name="chest_multi_label",
    task="find several diseases in chest X-rays, also rare ones",
    reads="chest films in NIH's layout",
    formula="reading",
    published="mean AUC 0.826 on the 14 findings of ChestX-ray14",
    estimator=ChestXRayMultiLabel,
    evaluate=evaluate,
    fit=fit,
    predict=predict,
    simulate=simulate,
)
