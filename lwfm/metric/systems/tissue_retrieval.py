"""Similar cases among tiles of tissue: mixed attention and the multi-similarity loss."""

from __future__ import annotations

import csv
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from sklearn.metrics import balanced_accuracy_score
from torch import nn

from lwfm._common.files import atomic_path
from lwfm._common.progress import progress
from lwfm._common.ranges import check_between, check_counts, check_positive
from lwfm._common.text import one_line
from lwfm.errors import UserError
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.data.pictures import open_pictures
from lwfm.metric.data.slides import read_tiles, thumbnail
from lwfm.metric.encoders import ScaledNorm
from lwfm.metric.evaluation import MetricEvaluation, Row
from lwfm.metric.image_encoders import MixedAttentionResNet, check_shape
from lwfm.metric.losses import LinearCrossEntropy, Mined, SquaredContrastiveLoss
from lwfm.metric.module import MetricModule, class_batches
from lwfm.metric.retriever import Encoded, TrunkRetriever
from lwfm.metric.scores import Scores, retrieval_scores
from lwfm.metric.systems.protocols import (
    best_plain,
    choose,
    drawn,
    images_for_testing,
    inputs_and_plain,
    recall_at_1,
)
from lwfm.metric.systems.search import fit_on_folders, write_hits
from lwfm.metric.systems.system import System, build

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    from pytorch_metric_learning.distances import BaseDistance

    from lwfm._common.devices import Accelerator
    from lwfm.metric.decisions import Weights
    from lwfm.metric.evaluation import Role
    from lwfm.metric.module import Indices
    from lwfm.metric.retriever import Distance

LossName = Literal["multi_similarity", "contrastive", "cross_entropy"]
RATES = (5e-4, 2e-3)
"""Learning rates that :func:`evaluate` tries for every trained row, on a quarter of the training images."""
SHARES = (0.2, 0.4, 1.0)


class TissueRetriever(TrunkRetriever):
    """Search of tissue tiles by an SE-ResNet with a mask branch and the multi-similarity loss.

    After the third stage a mask branch (three SE bottlenecks, 1 x 1 convolution, batch normalization,
    sigmoid) weighs every channel and position; the fourth stage, a mean and a linear layer make a descriptor
    of length 1. Loss: multi-similarity (2, 5, 0.5) on pairs of a miner (0.2). The formula is *exact*: read in
    the authors' code.

    With ``trunk="se_resnet50"``, as published, the whole network is trained from pixels. By default
    the three first stages are those of a pretrained network and stay fixed, so that two cores suffice.

    Parameters
    ----------
    loss : {"multi_similarity", "contrastive", "cross_entropy"}
        Multi-similarity, or the losses of baselines.
    mask : bool
        Whether there is a mask branch.
    alpha, beta, base, epsilon : float
        Of the multi-similarity loss, and the margin of its miner.
    margin : float
        Of the contrastive loss.
    distance : {"euclid", "spm"} or BaseDistance
        By which candidates are ranked: Euclidean, semantic-pixel matching of the fourth stage's maps, or any
        distance of pytorch-metric-learning.
    trunk : str
        ``se_resnet50`` or ``se_resnet14`` (trained from pixels), or a pretrained, fixed backbone: ``auto``,
        ``resnet50``, ``timm:NAME``.
    weights : str
        Initial weights of an SE-ResNet: none, or a file (of timm's ``seresnet50``).
    image_size : int
        Side in pixels, a multiple of 32.
    dim : int
        Of the descriptors.
    steps, classes_per_batch, images_per_class, learning_rate : int, int, int, float
        Of training.
    candidates : int
        Found by Euclidean distance, then ranked.
    k : int
        Neighbors that vote in :meth:`predict`.
    seed : int
        Of weights, batches and augmentation; runs on the CPU repeat exactly.
    accelerator : {"auto", "cpu", "gpu"}
        Where to compute.

    Examples
    --------
    >>> maps = np.random.default_rng(0).random((24, 16, 4, 4), dtype=np.float32)
    >>> retriever = TissueRetriever(steps=2, dim=8).fit(maps, np.arange(24) % 4)
    >>> retriever.search(maps[:2], k=1).indices.tolist()
    [[0], [1]]
    """

    system = "tissue_retrieval"

    def __init__(
        self,
        loss: LossName = "multi_similarity",
        mask: bool = True,
        alpha: float = 2.0,
        beta: float = 5.0,
        base: float = 0.5,
        epsilon: float = 0.2,
        margin: float = 0.8,
        distance: Distance | BaseDistance = "euclid",
        trunk: str = "auto",
        weights: str = "none",
        image_size: int = 96,
        dim: int = 512,
        steps: int = 80,
        classes_per_batch: int = 6,
        images_per_class: int = 8,
        learning_rate: float = 2e-3,
        candidates: int = 100,
        k: int = 5,
        seed: int = 0,
        accelerator: Accelerator = "auto",
    ) -> None:
        self.loss, self.mask, self.alpha, self.beta, self.base = loss, mask, alpha, beta, base
        self.epsilon, self.margin, self.distance = epsilon, margin, distance
        self.trunk, self.weights, self.image_size, self.dim = trunk, weights, image_size, dim
        self.steps, self.classes_per_batch = steps, classes_per_batch
        self.images_per_class, self.learning_rate = images_per_class, learning_rate
        self.candidates, self.k, self.seed, self.accelerator = candidates, k, seed, accelerator

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.loss not in get_args(LossName):
            raise UserError(f"loss must be one of {', '.join(get_args(LossName))}, not {self.loss!r}")
        if not isinstance(self.mask, bool):
            raise UserError(f"mask must be true or false, not {self.mask!r}")
        check_counts(dim=self.dim, classes_per_batch=self.classes_per_batch)
        check_counts(images_per_class=self.images_per_class)
        if self.classes_per_batch * self.images_per_class < 2:
            raise UserError("classes_per_batch times images_per_class must be at least 2")
        check_positive(alpha=self.alpha, beta=self.beta)
        check_between(0, float("inf"), base=self.base, epsilon=self.epsilon, margin=self.margin)

    def _encoder(self, shape: tuple[int, ...]) -> nn.Module:
        check_shape(shape, self.trunk)
        trunk = MixedAttentionResNet(self.trunk, shape[0], mask=self.mask)
        return nn.Sequential(trunk, nn.Linear(trunk.width, self.dim), ScaledNorm())

    def _module(self, encoder: nn.Module, classes: int) -> MetricModule:
        loss: nn.Module
        if self.loss == "multi_similarity":
            similarity = MultiSimilarityLoss(self.alpha, self.beta, self.base)
            loss = Mined(similarity, MultiSimilarityMiner(self.epsilon))
        elif self.loss == "contrastive":
            loss = SquaredContrastiveLoss(self.margin)
        else:
            loss = LinearCrossEntropy(self.dim, classes, scale=16.0)
        return self._training(encoder, loss)

    def _batches(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        del groups
        return class_batches(codes, self.classes_per_batch, self.images_per_class, self.steps, random)

    def _vote(self) -> tuple[int, Weights]:
        return self.k, "uniform"


def evaluate(root: Path, seeds: Sequence[int], **options: Any) -> MetricEvaluation:
    """Compare losses, with and without the mask, trained on 20, 40 and 100 % of the training images.

    The test images search in the training images, and among themselves (leave-one-out). The learning rate is
    chosen for each trained row and seed on a quarter of its training images.

    Parameters
    ----------
    root : Path
        Folder or zip of images in class folders, best with folders ``train`` and ``test``; else a fifth of
        the images of each class is the test.
    seeds : sequence of int
        Of training, of the shares and of validation images.
    **options
        Parameters of :class:`TissueRetriever`, but for `loss`, `mask`, `distance`, `learning_rate`, `k` and
        `seed`.
    """
    template: TissueRetriever = build(
        TissueRetriever, options, set_here=("loss", "mask", "distance", "learning_rate", "seed"),
        unused=("k",),
    )  # fmt: skip
    with open_pictures(root, classes=2) as pictures:
        inputs, plain = inputs_and_plain(
            template.trunk, template.image_size, pictures.paths, template.accelerator
        )
    names, codes = np.unique(pictures.labels, return_inverse=True)
    tests = [images_for_testing(pictures, codes, seed) for seed in seeds]
    rows: list[Row] = []
    for share in SHARES:
        parts = [_part(~test, codes, share, seed) for test, seed in zip(tests, seeds, strict=True)]
        kinds = _KINDS if share == 1 else tuple(kind for kind in _KINDS if kind[0] in _SHORT)
        found: dict[str, list[Scores]] = {}
        for seed, test, train in progress(
            list(zip(seeds, tests, parts, strict=True)), f"{share:.0%}: seeds", "seed"
        ):
            score = partial(_scores, codes=codes, test=test, train=train)
            for name, _, chosen in kinds:
                base = TissueRetriever(**{**template.get_params(), **chosen, "seed": seed})
                known = inputs[train], codes[train]
                fitted = choose(base, {"learning_rate": RATES}, *known, score=recall_at_1).fit(*known)
                found.setdefault(name, []).append(score(fitted, fitted.encode(inputs)))
                if name == kinds[0][0]:
                    fitted.set_params(distance="spm")
                    found.setdefault(_SPM, []).append(score(fitted, fitted.encode(inputs)))
            found.setdefault(_PLAIN, []).append(score(template, plain[best_plain(plain, train, codes)]))
        roles: dict[str, Role] = {_SPM: "ablation", **{name: role for name, role, _ in kinds}}
        rows += [
            Row.over_seeds(f"{share:.0%} of the training images", name, roles.get(name, "baseline"), scores)
            for name, scores in found.items()
        ]
    data = (
        f"{root.name}: {len(names)} classes, {len(codes)} images, {int(tests[0].sum())} of them for testing"
    )
    return MetricEvaluation("tissue_retrieval", data, tuple(seeds), tuple(rows), "Recall@1", SYSTEM.published)


_SPM = "multi-similarity, mask: ranked by semantic pixels"
_PLAIN = "nothing learned: cosine of pretrained features"
_KINDS: tuple[tuple[str, Role, dict[str, Any]], ...] = (
    ("multi-similarity, mask", "system", {"loss": "multi_similarity", "mask": True}),
    ("multi-similarity, no mask", "ablation", {"loss": "multi_similarity", "mask": False}),
    ("contrastive, mask", "ablation", {"loss": "contrastive", "mask": True}),
    ("contrastive, no mask", "baseline", {"loss": "contrastive", "mask": False}),
    ("cross-entropy, no mask", "baseline", {"loss": "cross_entropy", "mask": False}),
)
_SHORT = ("multi-similarity, mask", "contrastive, no mask", "cross-entropy, no mask")
"""Rows for which less than all training images are tried too."""


def _part(training: npt.NDArray[np.bool_], codes: Indices, share: float, seed: int) -> Indices:
    """Return the rows of a share of the training images of each class."""
    rows = np.flatnonzero(training)
    return rows if share == 1 else rows[drawn(codes[rows], share, seed)]


def _scores(
    retriever: TissueRetriever,
    encoded: Encoded,
    *,
    codes: Indices,
    test: npt.NDArray[np.bool_],
    train: Indices,
) -> Scores:
    """Score the search of the test images in the training images, and among themselves."""
    queries, gallery = encoded.part(np.flatnonzero(test)), encoded.part(train)
    order = retriever.ranking(queries, gallery)
    alone = retrieval_scores(retriever.ranking(queries), codes[test])
    recall = balanced_accuracy_score(codes[test], codes[train][order[:, 0]])
    return {
        **retrieval_scores(order, codes[test], (1,), gallery=codes[train]),
        "class-mean Recall@1": float(recall),
        "leave-one-out Recall@1": alone["Recall@1"],
        "leave-one-out mAP": alone["mAP"],
    }


def fit(root: Path, **options: Any) -> TissueRetriever:
    """Fit a retriever on all tiles of a folder or zip of class folders, and index them."""
    retriever: TissueRetriever = build(TissueRetriever, options)
    return fit_on_folders(retriever, root, classes=2)


def predict(
    retriever: TissueRetriever,
    inputs: Sequence[Path],
    out: Path,
    figure: Path | None,
    *,
    tile: int | None = None,
) -> str:
    """Search for cases like each image, or name the tiles of slides.

    Parameters
    ----------
    retriever : TissueRetriever
        Fitted on labeled tiles.
    inputs : sequence of Path
        Images and folders of images, or slides.
    out : Path
        CSV file of the ten nearest of each image, or of the tiles of slides with corner, class, share of the
        votes, and the nearest case.
    figure : Path, optional
        Figure of the hits, or of the first slide with its tiles in the colors of their classes.
    tile : int, optional
        Side in pixels of the tiles into which slides are cut; None: the inputs are images.
    """
    if tile is None:
        return write_hits(retriever, inputs, out, figure)
    if figure is not None:
        check_figure_suffix(figure)
    found = [_named_tiles(retriever, path, tile) for path in inputs]
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["slide", "x", "y", "class", "share_of_votes", "nearest_case"])
        for path, tiles in zip(inputs, found, strict=True):
            table.writerows([path, *row[:3], f"{row[3]:.3f}", row[4]] for row in tiles)
    lines = [f"{sum(map(len, found))} tiles of {len(inputs)} slides: {out}"]
    if figure is not None:
        save_figure(_slide_figure(retriever, inputs[0], tile, found[0]), figure)
        lines.append(f"the first slide and its tiles: {figure}")
    return "\n".join(lines)


_TilesFound = list[tuple[int, int, str, float, str]]
_AT_ONCE = 256


def _named_tiles(retriever: TissueRetriever, path: Path, tile: int) -> _TilesFound:
    """Return corner, class, share of the votes and nearest case of each stained tile of a slide."""
    found: _TilesFound = []
    stream = iter(progress(read_tiles(path, tile), path.name, "tile"))
    while tiles := list(islice(stream, _AT_ONCE)):
        hits = retriever.search([each.image for each in tiles], retriever.k)
        shares = retriever.shares(hits)
        labels = retriever.classes_[shares.argmax(1)]
        found += [
            (each.x, each.y, str(label), float(share), retriever.names_[nearest])
            for each, label, share, nearest in zip(
                tiles, labels, shares.max(1), hits.indices[:, 0], strict=True
            )
        ]
    if not found:
        raise UserError(f"{path} has no tile with stained tissue")
    return found


def _slide_figure(retriever: TissueRetriever, path: Path, tile: int, tiles: _TilesFound) -> Figure:
    """Draw a slide with its tiles in the colors of their classes."""
    image, scale = thumbnail(path)
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(image)
    axes.set_axis_off()
    names = [str(name) for name in retriever.classes_]
    colors = {name: f"C{number % 10}" for number, name in enumerate(names)}
    for x, y, name, share, _ in tiles:
        place = ((x * scale, y * scale), tile * scale, tile * scale)
        axes.add_patch(Rectangle(*place, color=colors[name], alpha=0.5 * share, linewidth=0))
    shown = sorted({name for _, _, name, _, _ in tiles}, key=names.index)
    axes.legend(
        handles=[Patch(color=colors[name], alpha=0.5, label=one_line(name)) for name in shown],
        loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8,
    )  # fmt: skip
    return figure


SYSTEM = System(
    name="tissue_retrieval",
    task="find tissue tiles like one, with their diagnoses; name the tiles of a slide",
    reads="tiles in class folders, or a zip of them; slides",
    formula="exact",
    published="Recall@1 97.89, leave-one-out inside the test set, on Kimia Path24",
    estimator=TissueRetriever,
    evaluate=evaluate,
    fit=fit,
    predict=predict,
)
