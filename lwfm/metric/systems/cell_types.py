"""Types of cells from their expressed genes: a metric across protocols, studies and species."""

from __future__ import annotations

import csv
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import MultipleLosses, TripletMarginLoss
from torch import Tensor, nn

from lwfm._common.files import atomic_path
from lwfm._common.ranges import check_between, check_counts, check_positive
from lwfm.errors import UserError
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.data.cells import CellFile, open_cells, read_orthologues
from lwfm.metric.decisions import UNKNOWN, ClassVote, NeighborVote
from lwfm.metric.encoders import ScaledNorm, WithInput, mlp
from lwfm.metric.estimator import MetricEstimator
from lwfm.metric.losses import LinearCrossEntropy
from lwfm.metric.module import MetricModule, shuffled_batches, weighted_batches
from lwfm.metric.systems.system import System, build, check_names_differ

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from lwfm._common.devices import Accelerator
    from lwfm.metric.evaluation import MetricEvaluation
    from lwfm.metric.module import Indices

    Values = npt.NDArray[np.float32]
    Labels = npt.NDArray[Any]

Loss = Literal["joint", "cross_entropy", "triplet"]
Vote = Literal["types", "cells"]
PUBLISHED: dict[str, Any] = {"weight": 1.0, "balance": 0.0, "plain": 0.0, "vote": "cells"}
"""Parameters of the published form."""
_LENGTH = 10.0
_DRAWN = 1500


class CellTypeAnnotator(MetricEstimator):
    """Types of cells by a metric learned on annotated ones, with "Unknown" for those that fit none.

    A perceptron (G - 256 - 64, dropout, embeddings of length 10) is trained by cross-entropy plus the triplet
    loss ``[0.5 + d(a, p) - d(a, n)]+`` of cosine distances d over the violating triplets, with normal noise
    on the input; in the published form the 6 nearest annotated cells vote in proportion to 1 / distance. The
    formula is *exact*: read in the authors' code. That code detaches the triplet term, so that it trains
    nothing, and never samples the last type; this class trains it and samples all. ``released=True`` repeats
    both faults.

    Of this package are `balance`, `plain` and `vote`, which help rare types, and rejecting cells by their
    distance. ``balance=0, plain=0, vote="cells"`` is the published form.

    Parameters
    ----------
    loss : {"joint", "cross_entropy", "triplet"}
        The sum, or one of its parts.
    released : bool
        Repeat the faults of the released code, as an ablation.
    hidden, dim : int
        Widths of the perceptron.
    dropout, noise : float
        Probability, and standard deviation of the noise.
    margin, weight : float
        Of the triplet loss, and its weight beside cross-entropy.
    balance : float
        Cells are sampled in proportion to the number of cells of their type to the power of minus this: 0 for
        every cell once an epoch, 1 for all types alike.
    plain : float
        Length of the values themselves beside learned embeddings of length 1, in the distances that decide;
        0 for the embeddings alone.
    vote : {"types", "cells"}
        Whether the k nearest cells of each type count, see :class:`lwfm.metric.decisions.ClassVote`, or the k
        nearest of all.
    k : int
        Cells that vote.
    threshold : float
        A type whose share of the votes is smaller than this is answered as "Unknown"; 0 for never.
    kept : float, optional
        Cells that are farther from their neighbors than this share of the annotated cells are from theirs are
        "Unknown" too; None for never. Across species nearly all cells are far: give None.
    networks : int
        Perceptrons that are trained one after the other from different weights and batches; their embeddings
        are joined, to the length of one.
    epochs, batch_size, learning_rate : int, int, float
        Of stochastic gradient descent with momentum 0.9 and weight decay 0.005.
    seed : int
        Of weights, batches and noise; runs on the CPU repeat exactly.
    accelerator : {"auto", "cpu", "gpu"}
        Where to compute.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> cells = random.poisson(1.0, (60, 30)).astype(np.float32); cells[30:, :10] += 5
    >>> types = np.repeat(["alpha", "beta"], 30)
    >>> annotator = CellTypeAnnotator(epochs=5).fit(np.log1p(cells), types)
    >>> annotator.predict(np.log1p(cells[:2])).tolist()
    ['alpha', 'alpha']
    """

    system = "cell_types"
    decision_: ClassVote | NeighborVote

    def __init__(
        self,
        loss: Loss = "joint",
        released: bool = False,
        hidden: int = 256,
        dim: int = 64,
        dropout: float = 0.5,
        noise: float = 1.0,
        margin: float = 0.5,
        weight: float = 1.0,
        balance: float = 0.5,
        plain: float = 1.0,
        vote: Vote = "types",
        k: int = 6,
        threshold: float = 0.5,
        kept: float | None = 0.99,
        networks: int = 1,
        epochs: int = 60,
        batch_size: int = 128,
        learning_rate: float = 1e-3,
        seed: int = 0,
        accelerator: Accelerator = "auto",
    ) -> None:
        self.loss, self.released, self.hidden, self.dim = loss, released, hidden, dim
        self.dropout, self.noise, self.margin, self.weight = dropout, noise, margin, weight
        self.balance, self.plain, self.vote = balance, plain, vote
        self.k, self.threshold, self.kept, self.networks = k, threshold, kept, networks
        self.epochs, self.batch_size, self.learning_rate = epochs, batch_size, learning_rate
        self.seed, self.accelerator = seed, accelerator

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if not isinstance(self.released, bool):
            raise UserError(f"released must be true or false, not {self.released!r}")
        if self.loss not in get_args(Loss):
            raise UserError(f"loss must be one of {', '.join(get_args(Loss))}, not {self.loss!r}")
        check_counts(hidden=self.hidden, dim=self.dim, k=self.k, epochs=self.epochs)
        check_counts(batch_size=self.batch_size)
        check_between(0, 1, dropout=self.dropout, threshold=self.threshold)
        check_between(0, float("inf"), noise=self.noise, margin=self.margin, weight=self.weight)
        check_between(0, float("inf"), balance=self.balance, plain=self.plain)
        if self.vote not in get_args(Vote):
            raise UserError(f"vote must be one of {', '.join(get_args(Vote))}, not {self.vote!r}")
        check_positive(learning_rate=self.learning_rate)
        if self.kept is not None:
            check_positive(kept=self.kept)
            check_between(0, 1, kept=self.kept)

    def _encoder(self, shape: tuple[int, ...]) -> nn.Module:
        if len(shape) != 1:
            raise UserError(f"cells must be an array [N, genes], not {['N', *shape]}")
        perceptron = mlp([shape[0], self.hidden, self.dim], dropout=self.dropout)
        return nn.Sequential(perceptron, ScaledNorm(_LENGTH))

    def _joined(self, encoders: list[nn.Module]) -> nn.Module:
        return WithInput(super()._joined(encoders), length=_LENGTH * self.plain)

    def _module(self, encoder: nn.Module, classes: int) -> MetricModule:
        entropy = LinearCrossEntropy(self.dim, classes)
        triplet = TripletMarginLoss(margin=self.margin, distance=CosineSimilarity())
        triplet = Detached(triplet) if self.released else triplet
        joint = MultipleLosses([entropy, triplet], weights=[1, self.weight])
        losses = {"joint": joint, "cross_entropy": entropy, "triplet": triplet}
        return MetricModule(
            encoder,
            losses[self.loss],
            optimizer=partial(torch.optim.SGD, lr=self.learning_rate, momentum=0.9, weight_decay=5e-3),
            schedule=partial(torch.optim.lr_scheduler.LambdaLR, lr_lambda=lambda step: 1 / (1 + 1e-4 * step)),
            augment=lambda cells: cells + self.noise * torch.randn_like(cells),
        )

    def _batches(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        del groups
        sampled = np.flatnonzero(codes < codes.max()) if self.released else np.arange(len(codes))
        if not self.balance:
            return sampled[shuffled_batches(len(sampled), self.batch_size, self.epochs, random)]
        size = min(self.batch_size, len(sampled))
        weights = np.bincount(codes)[codes[sampled]].astype(np.float64) ** -self.balance
        return sampled[weighted_batches(weights, size, len(sampled) // size * self.epochs, random)]

    def _decide_by(self, references: Values, codes: Indices) -> None:
        self.decision_ = voting(self.vote, self.k).fit(references, codes, len(self.classes_))

    def predict(self, X: Any) -> Labels:
        """Return the type [N] with the largest share of the votes, or "Unknown" where that is too small."""
        return self.answers(self.transform(X))[0]

    def answers(self, embeddings: Values) -> tuple[Labels, npt.NDArray[np.float64]]:
        """Return the types [N] of embedded cells [N, dim], and the share of the votes of each [N]."""
        shares, distances = self.decision_.compare(embeddings)
        names = self.classes_.astype(object)[shares.argmax(1)]
        names[shares.max(1) < self.threshold] = UNKNOWN
        if self.kept is not None:
            names[distances > self.limit_] = UNKNOWN
        return names, shares.max(1)

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train on cells [N, genes] of log1p values with types [N]; see :meth:`MetricEstimator.fit`."""
        super().fit(X, y, groups)
        self.genes_: tuple[str, ...] = ()
        self.limit_ = np.inf if self.kept is None else self.decision_.usual_distance(self.kept)
        return self

    def _described(self) -> dict[str, Any]:
        limit = self.limit_ if np.isfinite(self.limit_) else None
        return {"genes": list(self.genes_), "limit": limit}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        del tensors
        self.genes_ = tuple(description["genes"])
        self.limit_ = np.inf if description["limit"] is None else float(description["limit"])


def voting(vote: Vote, k: int) -> ClassVote | NeighborVote:
    """Return what decides by the k nearest cells of each type, or of all, before it is fitted."""
    return ClassVote(k) if vote == "types" else NeighborVote(k, "distance")


class Detached(nn.Module):
    """A loss without gradient, as in the released code.

    Parameters
    ----------
    loss : nn.Module
        The loss.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, embeddings: Tensor, labels: Tensor, indices_tuple: Any = None) -> Tensor:
        """Compute the loss of embeddings [B, dim] and labels [B], without its gradient.

        The zero term keeps the graph, which training by this loss alone needs.
        """
        loss: Tensor = self.loss(embeddings.detach(), labels, indices_tuple)
        return loss + 0 * embeddings.sum()


def evaluate(root: Path, seeds: Sequence[int], **options: Any) -> MetricEvaluation:
    """Compare with the baselines, see :func:`lwfm.metric.systems.cell_comparison.evaluate`."""
    from lwfm.metric.systems import cell_comparison

    return cell_comparison.evaluate(root, seeds, **options)


def fit(root: Path, *, label: str = "cell_type", **options: Any) -> CellTypeAnnotator:
    """Fit an annotator on all cells of a file; the column `label` holds their types."""
    annotator: CellTypeAnnotator = build(CellTypeAnnotator, options)
    file = open_cells(root)
    types = file.column(label)
    annotator.fit(file.read(), types)
    annotator.genes_ = file.genes
    return annotator


def predict(
    annotator: CellTypeAnnotator,
    inputs: Sequence[Path],
    out: Path,
    figure: Path | None,
    *,
    orthologues: str | Path | None = None,
) -> str:
    """Annotate the cells of files; write a CSV, beside it a copy of each .h5ad with its types, and the map.

    Cells of .h5ad files are read in parts, so that these may be larger than the memory.

    Parameters
    ----------
    annotator : CellTypeAnnotator
        Fitted on a file of cells.
    inputs : sequence of Path
        Files of cells.
    out : Path
        CSV file: file, cell, cell_type, share_of_votes.
    figure : Path, optional
        Map of reference and query in two dimensions.
    orthologues : Path, optional
        Table of genes of the inputs and of the model, see :func:`lwfm.metric.data.cells.read_orthologues`.
    """
    if figure is not None:
        check_figure_suffix(figure)
    if not annotator.genes_:
        raise UserError(
            "the model was fitted on arrays, without names of genes: fit it by lwfm metric fit cell_types"
        )
    check_names_differ(path.name for path in inputs)
    taken = {path.resolve() for path in inputs}
    if written := [path for path in inputs if _annotated(path, out).resolve() in taken]:
        target = _annotated(written[0], out)
        raise UserError(f"the copy of {written[0]} with annotations would replace the input {target}")
    names = read_orthologues(Path(orthologues)) if orthologues else {}
    lines, drawn = [], []
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "cell", "cell_type", "share_of_votes"])
        for path in inputs:
            file = open_cells(path)
            types, shares, embedded = _annotate(annotator, file, names)
            table.writerows(zip([path.name] * len(types), file.cells, types, shares, strict=True))
            unknown = int((types == UNKNOWN).sum())
            lines.append(f"{path}: {len(types)} cells, {unknown} of them {UNKNOWN}")
            if path.suffix == ".h5ad":
                target = _annotated(path, out)
                _write_columns(path, target, types, shares)
                lines.append(f"with obs columns lwfm_cell_type and lwfm_share: {target}")
            drawn.append((embedded, types[: len(embedded)]))
    if figure is not None:
        save_figure(cell_map(annotator, *drawn[0]), figure)
        lines.append(f"map of the reference and {inputs[0].name}: {figure}")
    return "\n".join([*lines, f"every cell: {out}"])


def _annotate(
    annotator: CellTypeAnnotator, file: CellFile, orthologues: Mapping[str, str]
) -> tuple[Labels, npt.NDArray[np.float64], Values]:
    """Return the types [N] of a file, their shares of the votes [N], and the first embeddings, for a map."""
    types: list[Labels] = []
    shares: list[npt.NDArray[np.float64]] = []
    embedded: list[Values] = []
    for values in file.batches(annotator.genes_, orthologues):
        embeddings = annotator.transform(values)
        names, votes = annotator.answers(embeddings)
        types.append(names)
        shares.append(votes)
        embedded.append(embeddings[: max(_DRAWN - sum(len(part) for part in embedded), 0)])
    return np.concatenate(types), np.concatenate(shares), np.concatenate(embedded)


def _annotated(path: Path, out: Path) -> Path:
    """Return where the annotated copy of an .h5ad file goes."""
    return out.with_name(f"{path.stem}-annotated.h5ad")


def _write_columns(path: Path, target: Path, types: Labels, shares: npt.NDArray[np.float64]) -> None:
    """Copy an .h5ad file and add two obs columns to the copy, without reading its values."""
    import h5py
    import pandas
    from anndata.io import read_elem, write_elem

    with atomic_path(target) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+") as file:
            obs = read_elem(file["obs"])
            obs["lwfm_cell_type"] = pandas.Categorical(types.astype(str))
            obs["lwfm_share"] = shares
            write_elem(file, "obs", obs)


def cell_map(annotator: CellTypeAnnotator, embeddings: Values, types: Labels) -> Figure:
    """Draw reference and query [Q, dim] in two dimensions (t-SNE of at most 1500 cells each)."""
    from sklearn.manifold import TSNE

    decision = annotator.decision_
    chosen = np.linspace(0, len(decision.references) - 1, min(_DRAWN, len(decision.references))).astype(int)
    joined = np.concatenate([decision.references[chosen], embeddings])
    perplexity = min(30.0, (len(joined) - 1) / 3)
    plane = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(joined)
    labels = [annotator.classes_[decision.codes[chosen]].astype(str), types.astype(str)]
    names = [*annotator.classes_.astype(str), UNKNOWN]
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    parts = np.split(plane, [len(chosen)])
    for axes, part, of_part, title in zip(
        figure.subplots(1, 2, sharex=True, sharey=True),
        parts,
        labels,
        ("reference", "annotated"),
        strict=True,
    ):
        axes.scatter(*plane.T, s=3, color="0.9")
        for number, name in enumerate(names):
            color = "black" if name == UNKNOWN else f"C{number % 10}"
            axes.scatter(*part[of_part == name].T, s=5, color=color, label=name)
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    axes.legend(fontsize=7, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


SYSTEM = System(
    name="cell_types",
    task="annotate cells with their types, across protocols, studies and species",
    reads="AnnData files (.h5ad), .csv or .csv.gz of cells and genes",
    formula="exact",
    published=(
        "TripletCell: more accurate than other annotators across protocols, species and samples, "
        "on other data"
    ),
    estimator=CellTypeAnnotator,
    evaluate=evaluate,
    fit=fit,
    predict=predict,
)
