"""Chest X-rays with findings that training never saw: images and label vectors in one space."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import torch

from lwfm._common.ranges import check_between, check_counts, check_positive
from lwfm._common.text import listed
from lwfm.errors import UserError
from lwfm.metric.data.xray import read_films, read_targets
from lwfm.metric.evaluation import MetricEvaluation, Row
from lwfm.metric.heads import PrototypeHead, label_vectors
from lwfm.metric.losses import LabelCrossEntropy, LabelRankingLoss, WeightedFocusedEuclideanLoss
from lwfm.metric.multilabel import MultiLabelEstimator
from lwfm.metric.scores import Scores, zero_shot_scores
from lwfm.metric.simulation.chest_xray import FINDINGS, simulate_films, simulated_vectors
from lwfm.metric.systems.chest import RATES, Kind, best_of_grid, neighbor_shares, over_seeds, write_answers
from lwfm.metric.systems.system import System, build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from torch import Tensor, nn

    from lwfm._common.devices import Accelerator
    from lwfm.metric.data.xray import Films
    from lwfm.metric.module import Indices

    Mask = npt.NDArray[np.bool_]

Loss = Literal["focused", "ranking", "cross_entropy"]
_FOCUSED = {"loss": "focused", "centered": True}
_GRID: dict[str, tuple[Any, ...]] = {"margin": (0.7, 1.0)}
KINDS = (
    Kind("focused, balanced", "system", {**_FOCUSED, "gamma": 2.0, "balanced": True}, _GRID),
    Kind("gamma 0", "ablation", {**_FOCUSED, "gamma": 0.0, "balanced": True}, _GRID),
    Kind("not balanced", "ablation", {**_FOCUSED, "gamma": 2.0, "balanced": False}, _GRID),
    Kind("contrastive: neither", "ablation", {**_FOCUSED, "gamma": 0.0, "balanced": False}, _GRID),
    Kind(
        "no common axis",
        "ablation",
        {**_FOCUSED, "gamma": 2.0, "balanced": True, "common": 0.0},
        _GRID,
    ),
    Kind(
        "vectors not centered, no common axis",
        "ablation",
        {"loss": "focused", "centered": False, "gamma": 2.0, "balanced": True, "common": 0.0},
        _GRID,
    ),
    Kind(
        "ranking loss of the earlier method",
        "baseline",
        {"loss": "ranking", "centered": True},
        {"margin": (0.2, 0.5)},
    ),
    Kind(
        "cross-entropy of distances",
        "baseline",
        {"loss": "cross_entropy", "centered": True},
        {"learning_rate": RATES},
    ),
)
"""The learned rows: a fit for each member of a grid, on the same network, batches and held out patients."""
COMMON = (0.0, 1.0)
"""Sizes of the common axis that :func:`evaluate` tries for every row which does not set it."""


class ChestXRayZeroShot(MultiLabelEstimator):
    """Findings in chest X-rays, also some that no training film has, by vectors of their names.

    A network embeds a film among the vectors of the labels, which come from a language model and are
    centered; labels are ranked by their distance. Labels without training films are ranked in the same way.
    The loss is :class:`~lwfm.metric.losses.WeightedFocusedEuclideanLoss`, a *reading* of the published
    abstract. Research software: not for diagnosis.

    Parameters
    ----------
    labels : sequence of str
        Names of the columns of the targets, seen and unseen.
    vectors : path, mapping or callable
        Their vectors, see :func:`lwfm.metric.heads.label_vectors`; any sentence encoder will do.
    unseen : sequence of str
        Labels that are not trained on: films that have one are left out of training.
    loss : {"focused", "ranking", "cross_entropy"}
        The others are baselines on the same distances.
    gamma, balanced, margin : float, bool, float
        Of the loss; `margin` of the ranking loss too.
    centered : bool
        Whether the mean of the label vectors is subtracted.
    common : float
        Size of a further coordinate that all labels share, along which films without any finding can move
        away from all of them; 0 for none. Of this package.
    trunk : str
        ``small``, a network of four convolutions for films of about 64 pixels, or the name of a model of
        timm, such as ``densenet121``, which starts without pretrained weights.
    steps, batch_size, learning_rate, weight_decay : int, int, float, float
        Of AdamW, with a one-cycle schedule.
    held_out : float
        Share of the patients that calibrate the probabilities and do not train.
    size : int
        Pixels to which the command line brings films.
    seed : int
        Of weights, batches and augmentation; runs on the CPU repeat exactly.
    accelerator : {"auto", "cpu", "gpu"}
        Where to compute.

    Examples
    --------
    >>> from lwfm.metric.simulation.chest_xray import FINDINGS, simulate_films, simulated_vectors
    >>> films = simulate_films(80, 0, size=32)
    >>> vectors = dict(zip(FINDINGS, simulated_vectors()))
    >>> system = ChestXRayZeroShot(FINDINGS, vectors, unseen=["Edema"], steps=3, batch_size=16)
    >>> system.fit(films.images, films.targets).predict_proba(films.images[:2]).shape
    (2, 14)
    """

    system = "chest_zero_shot"

    def __init__(
        self,
        labels: Sequence[str] | None = None,
        vectors: Any = None,
        unseen: Sequence[str] = (),
        loss: Loss = "focused",
        gamma: float = 2.0,
        balanced: bool = True,
        margin: float = 1.0,
        centered: bool = True,
        common: float = 1.0,
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
        self.labels, self.vectors, self.unseen = labels, vectors, unseen
        self.loss, self.gamma, self.balanced, self.margin = loss, gamma, balanced, margin
        self.centered, self.common, self.trunk = centered, common, trunk
        self.steps, self.batch_size = steps, batch_size
        self.learning_rate, self.weight_decay, self.held_out = learning_rate, weight_decay, held_out
        self.size, self.seed, self.accelerator = size, seed, accelerator

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.loss not in get_args(Loss):
            raise UserError(f"loss must be one of {', '.join(get_args(Loss))}, not {self.loss!r}")
        for name in ("balanced", "centered"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name} must be true or false, not {getattr(self, name)!r}")
        if isinstance(self.unseen, str):
            raise UserError(f"unseen must be a list of labels, not the text {self.unseen!r}")
        check_between(0, float("inf"), gamma=self.gamma, common=self.common)
        check_positive(margin=self.margin)
        check_between(0, 2, margin=self.margin)
        check_counts(size=self.size)
        check_between(16, 1024, size=self.size)

    def _coded(self, labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Indices]:
        if self.labels is None or self.vectors is None:
            raise UserError(
                "give the names of the labels and their vectors: ChestXRayZeroShot(labels, vectors)"
            )
        names, codes = super()._coded(labels)
        unseen = np.isin(names, np.array(self.unseen, dtype=str))
        if unknown := [name for name in self.unseen if name not in names]:
            raise UserError(f"unseen: there is no label {listed(unknown, 3)}")
        if (~unseen).sum() < 2:
            raise UserError("at least two labels must be seen")
        codes[(codes[:, unseen] == 1).any(1)] = -1
        codes[:, unseen] = -1
        if not (codes == 1).any():
            raise UserError("no film without unseen labels has a label: there is nothing to learn")
        self.vectors_ = label_vectors(self.vectors, list(names))
        self.added_ = self.vectors_[:0]
        return names, codes

    @property
    def is_unseen(self) -> Mask:
        """Which labels [C] have no training film: those of `unseen`, and those that were added."""
        listed_here = np.isin(self.classes_, np.array(self.unseen, dtype=str))
        later = np.arange(len(self.classes_)) >= len(self.labels or self.classes_)
        return np.asarray(listed_here | later)

    def _head(self) -> tuple[nn.Module, int]:
        head = PrototypeHead(self.vectors_, centered=self.centered, common=self.common)
        head.add(torch.as_tensor(self.added_))
        return head, head.dim

    def _loss(self) -> nn.Module:
        if self.loss == "ranking":
            return LabelRankingLoss(self.margin)
        if self.loss == "cross_entropy":
            return LabelCrossEntropy(len(self.classes_))
        return WeightedFocusedEuclideanLoss(self.gamma, self.margin, balanced=self.balanced)

    def add(self, labels: Sequence[str], vectors: Any) -> Self:
        """Add labels that films are ranked by from now on, without training.

        Parameters
        ----------
        labels : sequence of str
            Names [K] that are new.
        vectors : path, mapping or callable
            Their vectors, of the same language model.
        """
        self._check_fitted()
        if known := [name for name in labels if name in self.classes_]:
            raise UserError(f"there is a label {known[0]} already")
        found = label_vectors(vectors, labels)
        if found.shape[1] != self.vectors_.shape[1]:
            raise UserError(f"vectors have {found.shape[1]} values, fitted were {self.vectors_.shape[1]}")
        self.added_ = np.concatenate([self.added_, found])
        head = self.encoder_.head
        assert isinstance(head, PrototypeHead)  # noqa: S101 - what _head built
        head.add(torch.as_tensor(found))
        self.classes_ = np.concatenate([self.classes_, np.array(labels)])
        return self

    def _plain_parameters(self) -> dict[str, Any]:
        kept = {**self.get_params(deep=False), "vectors": None}  # the file has the vectors themselves
        kept |= {"labels": list(self.labels or ()), "unseen": list(self.unseen)}
        plain: dict[str, Any] = type(self)(**kept).get_params(deep=False)
        return plain

    def _tensors(self) -> dict[str, Tensor]:
        return {"vectors": torch.as_tensor(self.vectors_), "added": torch.as_tensor(self.added_)}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        del description
        self.vectors_, self.added_ = tensors["vectors"].numpy(), tensors["added"].numpy()
        if len(self.classes_) != len(self.vectors_) + len(self.added_):
            raise ValueError(f"{len(self.classes_)} labels need as many vectors")


def evaluate(
    root: Path,
    seeds: Sequence[int],
    *,
    vectors: str | None = None,
    unseen: Sequence[str] | None = None,
    findings: Sequence[str] | None = None,
    common: float | None = None,
    **options: Any,
) -> MetricEvaluation:
    """Compare the losses on films of patients that training does not see.

    Parameters
    ----------
    root : Path
        Folder or zip of films, see :func:`lwfm.metric.data.xray.read_films`.
    seeds : sequence of int
        Of training, of the split of patients, and of the unseen labels.
    vectors : str, optional
        Label vectors; by default ``label_vectors.npy`` in the folder.
    unseen : sequence of str, optional
        By default a quarter of the labels, drawn for each seed.
    findings : sequence of str, optional
        Of the reader.
    common : float, optional
        Size of the common axis of all rows but those without; by default each row chooses 0 or 1 on the
        patients held out, by the labels that are seen.
    **options
        Further parameters of :class:`ChestXRayZeroShot`, but for those that the comparison sets.
    """
    template = _template(options, common)
    path = _vectors_of(root, vectors)
    films = read_films(root, size=template.size, findings=findings)
    table = label_vectors(path, films.findings)
    data = f"{root.name}: {len(films.names)} films of {len(np.unique(films.patients))} patients"
    kinds = _kinds(common)
    return _compare(lambda _: films, table, template, kinds, seeds, unseen, data, simulated=False)


def simulate(
    seeds: Sequence[int],
    *,
    films: int = 3000,
    vectors: str | None = None,
    table: str | None = None,
    unseen: Sequence[str] | None = None,
    common: float | None = None,
    **options: Any,
) -> MetricEvaluation:
    """Compare the losses on simulated films, see :mod:`lwfm.metric.simulation.chest_xray`.

    Parameters
    ----------
    seeds : sequence of int
        Of films, training, split and unseen labels.
    films : int
        Number of films.
    vectors : str, optional
        Vectors of the 14 findings on which the films depend; by default simulated ones.
    table : str, optional
        Table of findings from which the labels are drawn; by default by the published shares.
    unseen, common, **options
        As of :func:`evaluate`.
    """
    template = _template({"size": 32, **options}, common)
    check_counts(films=films)
    found = simulated_vectors() if vectors is None else label_vectors(vectors, FINDINGS)
    rows = None if table is None else read_targets(Path(table), FINDINGS)

    @cache
    def draw(seed: int) -> Films:
        return simulate_films(films, seed, size=template.size, vectors=found, table=rows)

    data = f"{films} films a seed"
    return _compare(draw, found, template, _kinds(common), seeds, unseen, data, simulated=True)


def _template(options: dict[str, Any], common: float | None) -> ChestXRayZeroShot:
    if common is not None:
        options = {**options, "common": common}
    own = ("loss", "gamma", "balanced", "margin", "centered", "labels", "seed")
    template: ChestXRayZeroShot = build(ChestXRayZeroShot, options, set_here=own)
    return template


def _kinds(common: float | None) -> list[Kind]:
    """Return the rows; without a size of the common axis those that do not set it search for one."""
    if common is not None:
        return list(KINDS)
    searched = {"common": COMMON}
    return [
        kind if "common" in kind.options else replace(kind, grid={**kind.grid, **searched}) for kind in KINDS
    ]


def _vectors_of(root: Path, vectors: str | None) -> Path:
    """Return the file of label vectors."""
    path = root / "label_vectors.npy" if vectors is None else Path(vectors)
    if vectors is None and not path.is_file():
        raise UserError(
            f"{root} has no label_vectors.npy: give a file of label vectors by the option vectors (a .npy "
            "file, and the labels in a .txt file beside it)"
        )
    return path


def _compare(
    draw: Callable[[int], Films],
    vectors: npt.NDArray[np.float32],
    template: ChestXRayZeroShot,
    kinds: Sequence[Kind],
    seeds: Sequence[int],
    unseen: Sequence[str] | None,
    data: str,
    *,
    simulated: bool,
) -> MetricEvaluation:
    """Score all rows."""
    names = draw(seeds[0]).findings
    table = dict(zip(names, vectors, strict=True))

    def score(kind: Kind | None, seed: int) -> Scores:
        films = draw(seed)
        test = films.split(seed)
        chosen = _unseen(films, seed) if unseen is None else list(unseen)
        fixed = {"labels": names, "vectors": table, "unseen": chosen}
        mask = np.isin(names, chosen)
        if kind is None:
            values = _nothing_learned(template, films, test, mask, fixed, seed)
        else:
            fitted = best_of_grid(template, kind, films, ~test, seed, **fixed)
            values = fitted.decision_function(films.images[test])
        return zero_shot_scores(films.targets[test] > 0, values, mask)

    protocol = "new patients, unseen labels " + ("drawn" if unseen is None else listed(list(unseen), 14))
    rows = [
        Row.over_seeds(protocol, kind.name, kind.role, over_seeds(seeds, kind.name, partial(score, kind)))
        for kind in kinds
    ]
    name = "nothing learned: neighbors by pixels, their label vectors"
    rows.append(Row.over_seeds(protocol, name, "baseline", over_seeds(seeds, name, partial(score, None))))
    return MetricEvaluation(
        "chest_zero_shot", data, tuple(seeds), tuple(rows), "harmonic AUROC", SYSTEM.published, simulated
    )


def _unseen(films: Films, seed: int) -> list[str]:
    """Draw a quarter of the labels."""
    count = max(round(len(films.findings) / 4), 1)
    return [str(name) for name in np.random.default_rng(seed).permutation(films.findings)[:count]]


def _nothing_learned(
    template: ChestXRayZeroShot, films: Films, test: Mask, unseen: Mask, fixed: dict[str, Any], seed: int
) -> npt.NDArray[np.float64]:
    """Score labels by the mean label vector of the nearest films, by cosine."""
    options = {**template.get_params(), **fixed, "seed": seed}
    system = ChestXRayZeroShot(**options)
    _, codes = system._coded(films.targets[~test])
    held = system._references(codes, films.patients[~test], np.random.default_rng(seed))
    shares = neighbor_shares(films, ~test, test, held, np.asarray((codes >= 0).any(1)), ~unseen)
    prototypes = PrototypeHead(system.vectors_).prototypes.double().numpy()
    shares[:, unseen] = 0
    mixed = (shares - shares.mean(0)) @ prototypes
    return np.asarray(mixed @ prototypes.T, dtype=np.float64)


def fit(
    root: Path,
    *,
    vectors: str | None = None,
    findings: Sequence[str] | None = None,
    **options: Any,
) -> ChestXRayZeroShot:
    """Fit a system on all films of a folder or zip, with label vectors from a file."""
    path = _vectors_of(root, vectors)
    template: ChestXRayZeroShot = build(ChestXRayZeroShot, options, set_here=("labels",))
    films = read_films(root, size=template.size, findings=findings)
    template.set_params(labels=films.findings, vectors=str(path))
    return template.fit(films.images, films.targets, groups=films.patients)


def predict(
    system: ChestXRayZeroShot,
    inputs: Sequence[Path],
    out: Path,
    figure: Path | None,
    *,
    labels: Sequence[str] = (),
    vectors: str | None = None,
) -> str:
    """Rank the labels of films, and further labels with their vectors; see :func:`.chest.write_answers`."""
    if labels:
        if vectors is None:
            raise UserError("new labels need their vectors: give the option vectors, a .npy file")
        system.add(list(labels), vectors)
    unseen = list(system.classes_[system.is_unseen])
    return write_answers(system, inputs, out, figure, size=system.shape_[-1], unseen=unseen)


SYSTEM = System(
    name="chest_zero_shot",
    task="find diseases in chest X-rays, also such that training did not see",
    reads="chest films in NIH's layout and label vectors (.npy)",
    formula="reading",
    published=(
        "better than the ranking loss of the earlier method on ten seen and four unseen labels of "
        "ChestX-ray14; figures not at hand"
    ),
    estimator=ChestXRayZeroShot,
    evaluate=evaluate,
    fit=fit,
    predict=predict,
    simulate=simulate,
)
