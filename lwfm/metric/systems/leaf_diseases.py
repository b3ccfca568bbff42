"""Diseases of leaves: detection, a metric, and an index that takes new diseases without training."""

from __future__ import annotations

import csv
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from sklearn.metrics import f1_score
from torch import Tensor, nn
from torchvision.ops import box_iou

from lwfm._common.files import atomic_path
from lwfm._common.progress import progress
from lwfm._common.ranges import check_between, check_counts
from lwfm._common.tensor_files import tensors_under
from lwfm._common.text import one_line
from lwfm.data import open_image
from lwfm.data.user_images import to_rgb
from lwfm.errors import UserError
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.data.boxes import BoxedImage, compose_scene, one_class, open_boxes
from lwfm.metric.data.pictures import open_pictures
from lwfm.metric.decisions import UNKNOWN
from lwfm.metric.detection import BoxDetector, average_precision
from lwfm.metric.encoders import GeM, ScaledNorm
from lwfm.metric.estimator import check_lengths
from lwfm.metric.evaluation import MetricEvaluation, Role, Row
from lwfm.metric.heads import BNNeck, BNNeckLoss
from lwfm.metric.image_encoders import SE_RESNETS, MixedAttentionResNet, WithPretrained, check_shape
from lwfm.metric.losses import Mined
from lwfm.metric.module import MetricModule, class_batches
from lwfm.metric.retriever import Encoded, Hits, TrunkRetriever, image_names
from lwfm.metric.scores import Scores, auroc
from lwfm.metric.systems.protocols import (
    best_plain,
    choose,
    drawn,
    images_for_testing,
    inputs_and_plain,
    recall_at_1,
)
from lwfm.metric.systems.search import fit_on_folders
from lwfm.metric.systems.system import System, build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from PIL.Image import Image
    from pytorch_metric_learning.distances import BaseDistance

    from lwfm._common.devices import Accelerator
    from lwfm.metric.decisions import Weights
    from lwfm.metric.module import Indices
    from lwfm.metric.retriever import Distance

    Detect = Callable[[Image], Any]

LossName = Literal["joint", "cross_entropy", "triplet"]
RATES = (5e-4, 2e-3)
"""Learning rates that :func:`evaluate` tries for every trained row, on a quarter of the training images."""
WEIGHTS = (0.0, 1.0, 2.0, 4.0)
"""Of the pretrained means: :func:`evaluate` chooses, with a known class in the role of the added one."""
SHOTS = (5, 20, 160)
"""Images of the added disease, or as many as there are."""
_DETECTOR = "detector."


class Leaf(NamedTuple):
    """A leaf on a photograph: box (left, top, right, bottom), disease, share of the votes, distance."""

    box: tuple[float, float, float, float]
    disease: Any
    share: float
    distance: float


class LeafDiseaseRetriever(TrunkRetriever):
    """Diseases of leaves by the vote of the nearest indexed leaves; new ones are added without training.

    A trunk with GeM pooling is trained by a batch-hard triplet loss before a BNNeck, and by cross-entropy
    with smoothed labels after it; the index compares cosines after it. Leaves that are farther from their
    neighbors than most held-out leaves of known diseases are answered as "Unknown". The recipe is known from
    its abstract: a *reading*. That the means of the pretrained trunk are part of a descriptor is of this
    package: diseases that are added later need them.

    Parameters
    ----------
    loss : {"joint", "cross_entropy", "triplet"}
        The sum, or one of its parts.
    margin, smoothing : float
        Of the triplet loss, and of the labels.
    pretrained : float
        Length of the means of the pretrained maps, beside the learned part of length 1; 0 for that alone. Not
        used with a trunk that is trained from pixels.
    held_out : float
        Share of the training images on which rejection is calibrated: they are not trained on, but indexed
        afterwards.
    kept : float, optional
        Share of the held-out known leaves that is not rejected; None to reject nothing.
    distance : {"euclid", "spm"} or BaseDistance
        By which candidates are ranked: Euclidean (as the cosine), semantic-pixel matching of the last maps,
        or any distance of pytorch-metric-learning.
    trunk, weights, image_size
        See :class:`~lwfm.metric.TissueRetriever`.
    steps, classes_per_batch, images_per_class, learning_rate : int, int, int, float
        Of training.
    candidates : int
        Found by Euclidean distance, then ranked.
    k : int
        Neighbors that vote.
    seed : int
        Of weights, batches, augmentation and held-out images; runs on the CPU repeat exactly.
    accelerator : {"auto", "cpu", "gpu"}
        Where to compute.

    Attributes
    ----------
    limit_ : float
        Distance beyond which a leaf is unknown.
    detector_ : callable or None
        From an image to boxes, for :meth:`identify`; a :class:`~lwfm.metric.detection.BoxDetector` is saved
        along.

    Examples
    --------
    >>> maps = np.random.default_rng(0).random((24, 16, 4, 4), dtype=np.float32)
    >>> labels = np.array(["rust", "scab"])[np.arange(24) % 2]
    >>> retriever = LeafDiseaseRetriever(steps=2, k=1).fit(maps, labels)
    >>> retriever.add_class(maps[:3] + 1, "mildew").classes_.tolist()
    ['mildew', 'rust', 'scab']
    """

    system = "leaf_diseases"
    detector_: Detect | None

    def __init__(
        self,
        loss: LossName = "joint",
        margin: float = 0.3,
        smoothing: float = 0.1,
        pretrained: float = 2.0,
        held_out: float = 0.2,
        kept: float | None = 0.95,
        distance: Distance | BaseDistance = "euclid",
        trunk: str = "auto",
        weights: str = "none",
        image_size: int = 96,
        steps: int = 80,
        classes_per_batch: int = 6,
        images_per_class: int = 12,
        learning_rate: float = 2e-3,
        candidates: int = 100,
        k: int = 5,
        seed: int = 0,
        accelerator: Accelerator = "auto",
    ) -> None:
        self.loss, self.margin, self.smoothing = loss, margin, smoothing
        self.pretrained, self.held_out, self.kept, self.distance = pretrained, held_out, kept, distance
        self.trunk, self.weights, self.image_size, self.steps = trunk, weights, image_size, steps
        self.classes_per_batch, self.images_per_class = classes_per_batch, images_per_class
        self.learning_rate, self.candidates, self.k = learning_rate, candidates, k
        self.seed, self.accelerator = seed, accelerator

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.loss not in get_args(LossName):
            raise UserError(f"loss must be one of {', '.join(get_args(LossName))}, not {self.loss!r}")
        check_counts(classes_per_batch=self.classes_per_batch, images_per_class=self.images_per_class)
        if self.classes_per_batch * self.images_per_class < 2:
            raise UserError("classes_per_batch times images_per_class must be at least 2")
        check_between(0, 1, smoothing=self.smoothing, held_out=self.held_out)
        check_between(0, float("inf"), margin=self.margin, pretrained=self.pretrained)
        if self.kept is not None:
            check_between(0, 1, kept=self.kept)

    def _encoder(self, shape: tuple[int, ...]) -> nn.Module:
        check_shape(shape, self.trunk)
        trunk = MixedAttentionResNet(self.trunk, shape[0], mask=False, pool=GeM())
        weight = 0.0 if self.trunk in SE_RESNETS else self.pretrained
        return WithPretrained(trunk, BNNeck(trunk.width), ScaledNorm(), weight=weight)

    def _module(self, encoder: nn.Module, classes: int) -> MetricModule:
        trunk, neck = encoder.get_submodule("0"), encoder.get_submodule("1")
        assert isinstance(neck, BNNeck)  # noqa: S101 - of _encoder
        plain = LpDistance(normalize_embeddings=False)
        triplet = Mined(TripletMarginLoss(self.margin, distance=plain), BatchHardMiner(distance=plain))
        loss = BNNeckLoss(
            neck,
            None if self.loss == "cross_entropy" else triplet,
            0 if self.loss == "triplet" else classes,
            smoothing=self.smoothing,
        )
        return self._training(trunk, loss)

    def _batches(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        del groups
        return class_batches(codes, self.classes_per_batch, self.images_per_class, self.steps, random)

    def _vote(self) -> tuple[int, Weights]:
        return self.k, "uniform"

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train on leaves with diseases [N], calibrate rejection on held-out ones, and index all.

        Parameters
        ----------
        X : sequence of images, or stack of tensors
            N images of one leaf each.
        y : array
            [N] diseases; every one needs a leaf for training beside the held-out ones.
        groups : array, optional
            Not used.
        """
        self._check_parameters()
        labels = np.asarray(y)
        check_lengths(len(X), labels=labels)
        inputs = self._inputs(X)
        held = drawn(labels, self.held_out, self.seed) if self.held_out else np.zeros(0, np.int64)
        rest = np.setdiff1d(np.arange(len(labels)), held)
        super().fit(inputs[rest], labels[rest], groups)
        self.limit_, self.detector_ = np.inf, None
        if len(held) and self.kept is not None:
            self.limit_ = float(np.quantile(self._distances(self.search(inputs[held], self.k)), self.kept))
        self._index(inputs, labels, image_names(X))
        return self

    def add_class(self, X: Any, name: Any) -> Self:
        """Index images of a new disease, without training; the order of other hits does not change.

        Parameters
        ----------
        X : sequence of images, or stack of tensors
            Images of one leaf each.
        name : str or number
            Of the disease, of the kind of the labels of :meth:`fit`.
        """
        return self.add(X, np.array([name] * len(X)))

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the disease [N] with most votes, or "Unknown" for a leaf that is far from all."""
        return self.answers(self.search(X, self.k))[0]

    def answers(self, hits: Hits) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the diseases [Q] of hits, the shares of the votes [Q], and the mean distances [Q]."""
        shares, distances = self.shares(hits), self._distances(hits)
        names = self.classes_.astype(object)[shares.argmax(1)]
        names[distances > self.limit_] = UNKNOWN
        return names, shares.max(1), distances

    def _distances(self, hits: Hits) -> npt.NDArray[np.float64]:
        """Return the mean distance [Q] of the neighbors that vote."""
        means: npt.NDArray[np.float64] = hits.distances[:, : self.k].mean(1, dtype=np.float64)
        return means

    def identify(self, image: Any, detect: Detect | None = None) -> list[Leaf]:
        """Find the leaves on a photograph, and the disease of each.

        Parameters
        ----------
        image : path or PIL image
            The photograph.
        detect : callable, optional
            From a PIL image to boxes [N, 4] in pixels, or to an object with such ``boxes``; by default
            `detector_`. Without either the photograph is one leaf.
        """
        opened = to_rgb(image, 0)
        detect = detect or self.detector_
        whole = np.array([[0, 0, *opened.size]])
        boxes = _plain_boxes(whole if detect is None else detect(opened))
        if not boxes:
            return []
        leaves = [_crop(opened, box) for box in boxes]
        names, shares, distances = self.answers(self.search(leaves, self.k))
        return [Leaf(*each) for each in zip(boxes, names, shares, distances, strict=True)]

    def _described(self) -> dict[str, Any]:
        detector = self.detector_.options if isinstance(self.detector_, BoxDetector) else None
        limit = self.limit_ if np.isfinite(self.limit_) else None
        return {**super()._described(), "limit": limit, "detector": detector}

    def _tensors(self) -> dict[str, Tensor]:
        detector: dict[str, Tensor] = {}
        if isinstance(self.detector_, BoxDetector):
            detector = self.detector_.tensors()
        return {**super()._tensors(), **{f"{_DETECTOR}{name}": each for name, each in detector.items()}}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        super()._restore(description, tensors)
        self.limit_ = np.inf if description["limit"] is None else float(description["limit"])
        options = description["detector"]
        self.detector_ = None
        if options is not None:
            self.detector_ = BoxDetector.restored(options, tensors_under(_DETECTOR, tensors))


def _plain_boxes(found: Any) -> list[tuple[float, float, float, float]]:
    """Return the boxes of a detector as numbers; UserError for another form."""
    boxes = np.asarray(getattr(found, "boxes", found), dtype=np.float64)
    if boxes.size and (boxes.ndim != 2 or boxes.shape[1] != 4):
        raise UserError(f"a detector must return boxes [N, 4], not {list(boxes.shape)}")
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in boxes.reshape(-1, 4)]


def _crop(image: Image, box: tuple[float, float, float, float], border: float = 0.05) -> Image:
    """Cut a square around a box out of an image, with a border; what is beyond the image is black."""
    left, top, right, bottom = box
    half = max(right - left, bottom - top, 1) * (0.5 + border)
    x, y = (left + right) / 2, (top + bottom) / 2
    return image.crop((round(x - half), round(y - half), round(x + half), round(y + half)))


def evaluate(
    root: Path,
    seeds: Sequence[int],
    *,
    boxes: str | None = None,
    scenes: int = 60,
    epochs: int = 20,
    **options: Any,
) -> MetricEvaluation:
    """Compare losses when one disease is added to the index only; and detection on scenes of several leaves.

    In each seed another disease is the one that training does not see.

    Parameters
    ----------
    root : Path
        Folder or zip of images of single leaves in folders of their diseases.
    seeds : sequence of int
        Of training, of the test images, and of the disease that is added.
    boxes : str, optional
        Folder or zip of images with boxes, on which the detector is measured too.
    scenes : int
        Composed scenes on which a detector is trained; a fifth as many are for testing.
    epochs : int
        Of the detectors; 0 leaves detection out.
    **options
        Parameters of :class:`LeafDiseaseRetriever`, but for `loss`, `distance`, `learning_rate`,
        `pretrained`, `seed` and `kept`.
    """
    template: LeafDiseaseRetriever = build(
        LeafDiseaseRetriever, options, set_here=("loss", "distance", "learning_rate", "pretrained", "seed"),
        unused=("kept",),
    )  # fmt: skip
    found: _Found = {}
    with open_pictures(root, classes=3) as pictures:
        inputs, plain = inputs_and_plain(
            template.trunk, template.image_size, pictures.paths, template.accelerator
        )
        names, codes = np.unique(pictures.labels, return_inverse=True)
        for seed in progress(seeds, "seeds", "seed"):
            test = images_for_testing(pictures, codes, seed)
            case = _Case(seed, seed % len(names), codes, test)
            known = inputs[case.train], codes[case.train]
            for name, role, loss in _KINDS:
                options = {**template.get_params(), "loss": loss, "pretrained": 0.0, "seed": seed}
                base = LeafDiseaseRetriever(**options)
                chosen = choose(base, {"learning_rate": RATES}, *known, score=recall_at_1)
                if loss == "joint":
                    joined = _weighted(chosen, *known).fit(*known)
                    _add_scores(found, _JOINED, "system", case, joined, joined.encode(inputs))
                    if epochs:
                        shots = case.shots(SHOTS[-1])
                        grown = deepcopy(joined).add(inputs[shots], codes[shots])
                        _add_detection(found, case, grown, pictures.paths, (scenes, epochs))
                    joined.set_params(distance="spm")
                    _add_scores(found, _SPM, "ablation", case, joined, joined.encode(inputs))
                fitted = chosen.fit(*known)
                _add_scores(found, name, role, case, fitted, fitted.encode(inputs))
            chosen_plain = plain[best_plain(plain, case.train, codes)]
            _add_scores(found, _PLAIN, "baseline", case, template, chosen_plain)
            if boxes and epochs:
                _add_boxes(found, Path(boxes), seed, epochs, template.accelerator)
    rows = [Row.over_seeds(protocol, name, role, scores) for (protocol, name, role), scores in found.items()]
    rows.sort(key=lambda row: list(dict.fromkeys(key[0] for key in found)).index(row.protocol))
    data = f"{root.name}: {len(names)} classes, {len(codes)} images, a fifth of them for testing"
    return MetricEvaluation("leaf_diseases", data, tuple(seeds), tuple(rows), "Recall@1", SYSTEM.published)


_KINDS: tuple[tuple[str, Role, LossName], ...] = (
    ("cross-entropy + triplet alone", "ablation", "joint"),
    ("triplet alone", "ablation", "triplet"),
    ("cross-entropy alone", "baseline", "cross_entropy"),
)
_Found = dict[tuple[str, str, Role], list[Scores]]
_SCENE_PROTOCOL = "composed scenes of several leaves"
_SHOWN = 4
_JOINED = "cross-entropy + triplet, pretrained means"
_SPM = "the same, ranked by semantic pixels"
_PLAIN = "nothing learned: cosine of pretrained features"


def _weighted(base: LeafDiseaseRetriever, inputs: Tensor, codes: Indices) -> LeafDiseaseRetriever:
    """Choose the weight of the pretrained means as a class is added that was left out of training.

    The inner training sees all known classes but the first; the score is Recall@1 over all known classes on a
    quarter of the images, with 20 images of the first class in the index.
    """
    left_out = int(codes.min())
    held = np.zeros(len(codes), dtype=bool)
    held[drawn(codes, 0.25, base.seed)] = True
    if len(np.unique(codes)) < 3:
        return LeafDiseaseRetriever(**{**base.get_params(), "pretrained": WEIGHTS[-1]})
    case = _Case(base.seed, left_out, codes, held)
    fitted = LeafDiseaseRetriever(**base.get_params()).fit(inputs[case.train], codes[case.train])
    rows = np.concatenate([case.train, case.shots(20)])
    encoder: Any = fitted.encoder_
    recalls = []
    for weight in WEIGHTS:
        encoder.weight = weight
        encoded = fitted.encode(inputs)
        nearest, _ = _nearest(fitted, encoded.part(np.flatnonzero(held)), encoded.part(rows), codes[rows])
        recalls.append(float((nearest == codes[held]).mean()))
    best = WEIGHTS[int(np.argmax(recalls))]
    return LeafDiseaseRetriever(**{**base.get_params(), "pretrained": best})


class _Case(NamedTuple):
    """One seed: the added class, the classes [N] and the test images [N]."""

    seed: int
    added: int
    codes: Indices
    test: npt.NDArray[np.bool_]

    @property
    def train(self) -> Indices:
        """Rows of training: images of the other classes."""
        return np.flatnonzero(~self.test & (self.codes != self.added))

    @property
    def known_leaves(self) -> Indices:
        """Rows of leaves that are not for testing, of all classes: detection does not ask for the disease."""
        return np.flatnonzero(~self.test)

    def shots(self, count: int) -> Indices:
        """Return rows of the added class for the index."""
        rows = np.flatnonzero(~self.test & (self.codes == self.added))
        return np.random.default_rng(self.seed).permutation(rows)[:count]


def _add_scores(
    found: _Found,
    name: str,
    role: Role,
    case: _Case,
    retriever: LeafDiseaseRetriever,
    encoded: Encoded,
) -> None:
    """Score the search of the test images before and after a class is added by some images."""
    queries, truth = encoded.part(np.flatnonzero(case.test)), case.codes[case.test]
    new = truth == case.added
    before, distances = _nearest(retriever, queries, encoded.part(case.train), case.codes[case.train])
    for shots in SHOTS:
        rows = np.concatenate([case.train, case.shots(shots)])
        after, _ = _nearest(retriever, queries, encoded.part(rows), case.codes[rows])
        protocol = f"one disease added by {shots} images, without training"
        scores = {
            "Recall@1": float((after == truth).mean()),
            "F1 of the added": float(f1_score(new, after == case.added)),
            "known Recall@1": float((after == truth)[~new].mean()),
            "known before": float((before == truth)[~new].mean()),
            "AUROC of rejection": auroc(new, distances),
        }
        found.setdefault((protocol, name, role), []).append(scores)


def _nearest(
    retriever: LeafDiseaseRetriever, queries: Encoded, gallery: Encoded, codes: Indices
) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Return the class of the nearest image of a gallery [Q], and the mean distance to the nearest k [Q]."""
    keys = torch.as_tensor(retriever.ranking(queries, gallery)[:, : retriever.k].copy())
    distances = retriever.compare(queries, gallery, keys)
    return codes[keys[:, 0].numpy()], distances.double().mean(1).numpy()


def _add_detection(
    found: _Found,
    case: _Case,
    retriever: LeafDiseaseRetriever,
    leaves: Sequence[Path],
    training: tuple[int, int],
) -> None:
    """Score the diseases named on composed scenes of test leaves, by detected and by true boxes."""
    count, epochs = training
    detector = BoxDetector(epochs=epochs, seed=case.seed, accelerator=retriever.accelerator)
    detector.fit(one_class(composed_scenes(leaves, case.known_leaves, count, case.seed)))
    scenes = composed_scenes(leaves, np.flatnonzero(case.test), max(1, count // 5), case.seed + 1)
    detected = [detector(scene.image) for scene in scenes]
    kinds: tuple[tuple[str, Role, list[Any]], ...] = (
        ("detected boxes", "system", detected),
        ("true boxes", "ablation", [scene.boxes for scene in scenes]),
    )
    for name, role, boxes in kinds:
        counts = np.zeros(2)
        for scene, each in zip(scenes, boxes, strict=True):
            counts += _right_leaves(retriever.identify(scene.image, partial(_given, each)), scene, case.codes)
        every = sum(len(scene.boxes) for scene in scenes)
        scores = {"found": counts[0] / every, "found and named right": counts[1] / every}
        if role == "system":
            scores["AP@50"] = average_precision(detected, one_class(scenes))
        found.setdefault((_SCENE_PROTOCOL, name, role), []).append(scores)


def _given(boxes: Any, image: Any) -> Any:
    """Return boxes that are known already, as a detector."""
    del image
    return boxes


def _add_boxes(found: _Found, boxes: Path, seed: int, epochs: int, accelerator: Accelerator) -> None:
    """Score a detector on images with boxes: trained on the folder ``train``, tested on ``val``."""
    with open_boxes(boxes) as images:
        classes = 1 + max(int(image.codes.max(initial=0)) for image in images["train"])
        detector = BoxDetector(classes, epochs=epochs, seed=seed, accelerator=accelerator)
        detector.fit(images["train"])
        detected = [detector(image.image) for image in images["val"]]
        scores = {"mAP@50": average_precision(detected, images["val"])}
        found.setdefault((f"boxes of {boxes.name}", "detector", "system"), []).append(scores)


def composed_scenes(leaves: Sequence[Path], rows: Indices, count: int, seed: int) -> list[BoxedImage]:
    """Compose scenes of three to nine leaves each, whose classes are their rows."""
    random = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        chosen = random.choice(rows, random.integers(3, min(9, len(rows)) + 1), replace=False)
        scene = compose_scene([open_image(leaves[row]) for row in chosen], random)
        scenes.append(scene._replace(codes=chosen))
    return scenes


def _right_leaves(found: list[Leaf], scene: BoxedImage, codes: Indices) -> npt.NDArray[np.float64]:
    """Count the leaves of a scene that were found, and those that were named right too."""
    if not found:
        return np.zeros(2)
    overlaps = box_iou(torch.as_tensor([leaf.box for leaf in found]), torch.as_tensor(scene.boxes).double())
    best = overlaps.max(0)
    hit = (best.values >= 0.5).numpy()
    named = np.array([found[row].disease for row in best.indices.tolist()], dtype=object)
    return np.array([hit.sum(), (hit & (named == codes[scene.codes])).sum()], dtype=np.float64)


def fit(
    root: Path, *, boxes: str | None = None, scenes: int = 0, epochs: int = 20, **options: Any
) -> LeafDiseaseRetriever:
    """Fit a retriever on images of single leaves in class folders, and a detector if one is asked for.

    Parameters
    ----------
    root : Path
        Folder or zip of images of single leaves in folders of their diseases.
    boxes : str, optional
        Folder or zip of photographs with boxes, on all of which a detector is trained.
    scenes : int
        Train a detector on so many scenes that are composed of the leaves, which must be cut out on black.
    epochs : int
        Of the detector.
    **options
        Parameters of :class:`LeafDiseaseRetriever`.
    """
    retriever: LeafDiseaseRetriever = build(LeafDiseaseRetriever, options)
    if boxes and scenes:
        raise UserError("a detector learns from boxes or from scenes, not from both")
    check_counts(epochs=epochs)
    fit_on_folders(retriever, root, classes=2)
    detector = partial(BoxDetector, epochs=epochs, seed=retriever.seed, accelerator=retriever.accelerator)
    if boxes:
        with open_boxes(Path(boxes)) as images:
            given = [image for split in images.values() for image in split]
            classes = 1 + max(int(image.codes.max(initial=0)) for image in given)
            retriever.detector_ = detector(classes).fit(given)
    if scenes:
        with open_pictures(root, classes=2) as pictures:
            rows = np.arange(len(pictures.paths))
            composed = composed_scenes(pictures.paths, rows, scenes, retriever.seed)
            retriever.detector_ = detector().fit(one_class(composed))
    return retriever


def predict(retriever: LeafDiseaseRetriever, inputs: Sequence[Path], out: Path, figure: Path | None) -> str:
    """Name the diseases of the leaves on photographs; write a CSV, and draw the first photographs.

    Without a detector in the model each photograph is one leaf.
    """
    if figure is not None:
        check_figure_suffix(figure)
    found = [retriever.identify(path) for path in progress(inputs, "identifying", "image")]
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "left", "top", "right", "bottom", "disease", "share_of_votes", "distance"])
        for path, leaves in zip(inputs, found, strict=True):
            for leaf in leaves:
                corners = [f"{value:.0f}" for value in leaf.box]
                table.writerow([path, *corners, leaf.disease, f"{leaf.share:.3f}", f"{leaf.distance:.4f}"])
    lines = [f"{sum(map(len, found))} leaves on {len(inputs)} images: {out}"]
    if figure is not None:
        save_figure(draw_leaves(retriever, inputs[:_SHOWN], found[:_SHOWN]), figure)
        lines.append(f"the first images and their leaves: {figure}")
    return "\n".join(lines)


def draw_leaves(
    retriever: LeafDiseaseRetriever, images: Sequence[Path], found: Sequence[Sequence[Leaf]]
) -> Figure:
    """Draw images with the boxes of their leaves, a color for each disease, and their names."""
    columns = min(2, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(5 * columns, 5 * rows), layout="constrained")
    colors = {str(name): f"C{number % 10}" for number, name in enumerate(retriever.classes_)}
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, path, leaves in zip(panels, images, found, strict=False):
        axes.imshow(open_image(path))
        axes.set_title(one_line(path.name), fontsize=8, parse_math=False)
        for leaf in leaves:
            left, top, right, bottom = leaf.box
            color = colors.get(str(leaf.disease), "white")
            corner = (left, top)
            axes.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, color=color))
            axes.text(
                left, top, f"{one_line(str(leaf.disease))} {leaf.share:.0%}", fontsize=7, parse_math=False,
                color="black", backgroundcolor=color, verticalalignment="top",
            )  # fmt: skip
    return figure


SYSTEM = System(
    name="leaf_diseases",
    task="name the diseases of leaves on photographs, also new ones without training",
    reads="images of single leaves in class folders, or a zip of them; photographs with boxes (YOLO)",
    formula="reading",
    published="detection, metric learning and retrieval of leaf diseases; figures not at hand",
    estimator=LeafDiseaseRetriever,
    evaluate=evaluate,
    fit=fit,
    predict=predict,
)
