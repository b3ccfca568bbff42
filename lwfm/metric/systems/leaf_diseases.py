"""Diseases of leaves: detection, a metric, and an index that takes new diseases without training."""

from __future__ import annotations

import csv
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner

from lwfm._common.files import atomic_path
from lwfm._common.progress import progress
from lwfm._common.ranges import check_between, check_counts
from lwfm._common.tensor_files import tensors_under
from lwfm._common.text import one_line
from lwfm.data import open_image
from lwfm.data.layouts.folders import find_images
from lwfm.data.user_images import to_rgb
from lwfm.errors import UserError
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.data.boxes import BoxedImage, class_count, compose_scene, one_class, open_boxes
from lwfm.metric.data.pictures import open_pictures
from lwfm.metric.decisions import UNKNOWN
from lwfm.metric.detection import EPOCHS, SIZE, BoxDetector
from lwfm.metric.encoders import GeM, ScaledNorm
from lwfm.metric.estimator import check_lengths, is_model
from lwfm.metric.heads import BNNeck, BNNeckLoss
from lwfm.metric.image_encoders import SE_RESNETS, MixedAttentionResNet, WithPretrained, check_shape
from lwfm.metric.losses import Mined
from lwfm.metric.module import MetricModule, class_batches
from lwfm.metric.retriever import Hits, TrunkRetriever, image_names
from lwfm.metric.systems.protocols import drawn
from lwfm.metric.systems.search import fit_on_folders
from lwfm.metric.systems.system import System, build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from PIL.Image import Image
    from pytorch_metric_learning.distances import BaseDistance
    from torch import Tensor, nn

    from lwfm._common.devices import Accelerator
    from lwfm.metric.decisions import Weights
    from lwfm.metric.evaluation import MetricEvaluation
    from lwfm.metric.module import Indices
    from lwfm.metric.retriever import Distance

    Detect = Callable[[Image], Any]

LossName = Literal["joint", "cross_entropy", "triplet"]
_DETECTOR = "detector."
_GROUND = 160
"""Pixels of the ground of a single leaf, as many as a leaf has of a scene."""
_SHOWN = 4


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


def composed_scenes(leaves: Sequence[Path], rows: Indices, count: int, seed: int) -> list[BoxedImage]:
    """Compose scenes of three to nine leaves each, whose classes are their rows."""
    random = np.random.default_rng(seed)
    scenes = []
    for _ in range(count):
        chosen = random.choice(rows, random.integers(3, min(9, len(rows)) + 1), replace=False)
        scene = compose_scene([open_image(leaves[row]) for row in chosen], random)
        scenes.append(scene._replace(codes=chosen))
    return scenes


def on_grounds(leaves: Sequence[Path], rows: Indices, seed: int) -> list[Image]:
    """Return leaves that are cut out on black as crops of scenes: turned, on a ground of blurred noise."""
    random = np.random.default_rng(seed)
    scenes = [compose_scene([open_image(leaves[row])], random, size=_GROUND) for row in rows]
    return [_crop(to_rgb(scene.image, 0), _plain_boxes(scene)[0]) for scene in scenes]


def fit(
    root: Path,
    *,
    boxes: str | None = None,
    scenes: int = 0,
    detector: str | None = None,
    detector_size: int = SIZE,
    epochs: int = EPOCHS,
    **options: Any,
) -> LeafDiseaseRetriever:
    """Fit a retriever on images of single leaves in class folders, and a detector if one is asked for.

    Parameters
    ----------
    root : Path
        Folder or zip of images of single leaves in folders of their diseases.
    boxes : str, optional
        Folder or zip of photographs with boxes, on all of which a detector is trained.
    scenes : int
        Train a detector on so many scenes that are composed of the leaves, which must be cut out on black;
        the retriever then learns the leaves on grounds like those of the scenes.
    detector : str, optional
        File of a detector, see :func:`new_detector`. It is trained further on `boxes` or `scenes`, if there
        are any.
    detector_size, epochs : int, int
        Longer side of the photographs in pixels, and epochs, of the detector.
    **options
        Parameters of :class:`LeafDiseaseRetriever`.
    """
    retriever: LeafDiseaseRetriever = build(LeafDiseaseRetriever, options)
    if boxes and scenes:
        raise UserError("a detector learns from boxes or from scenes, not from both")
    check_counts(epochs=epochs, detector_size=detector_size)
    make = partial(
        new_detector,
        detector,
        image_size=detector_size,
        epochs=epochs,
        seed=retriever.seed,
        accelerator=retriever.accelerator,
    )
    with ExitStack() as stack:
        images: list[BoxedImage] = []
        if boxes:
            splits = stack.enter_context(open_boxes(Path(boxes)))
            images = [image for split in splits.values() for image in split]
        found = None
        if boxes or scenes or detector:
            found = make(1 if scenes else class_count(images) if boxes else None)
        if scenes:
            pictures = stack.enter_context(open_pictures(root, classes=2))
            rows = np.arange(len(pictures.paths))
            retriever.fit(on_grounds(pictures.paths, rows, retriever.seed), pictures.labels)
            retriever.names_ = pictures.names
            images = one_class(composed_scenes(pictures.paths, rows, scenes, retriever.seed))
        else:
            fit_on_folders(retriever, root, classes=2)
        retriever.detector_ = found.fit(images) if found is not None and images else found
    return retriever


def new_detector(file: str | None, classes: int | None, **options: Any) -> BoxDetector:
    """Build a detector from scratch, or from a file.

    Parameters
    ----------
    file : str, optional
        Weights of torchvision's ``fcos_resnet50_fpn``, see
        :meth:`~lwfm.metric.detection.BoxDetector.from_file`; or a model of this system with a detector, whose
        trunk, size and classes are taken over.
    classes : int, optional
        Number of classes, by default that of the file.
    **options
        Of :class:`~lwfm.metric.detection.BoxDetector`.
    """
    if file is None:
        return BoxDetector(classes or 1, **options)
    path = Path(file)
    if not is_model(path):
        return BoxDetector.from_file(path, classes=classes, **options)
    found = LeafDiseaseRetriever.load(path).detector_
    if not isinstance(found, BoxDetector):
        raise UserError(f"{path} has no detector: it was fitted without boxes and scenes")
    own = {name: found.options[name] for name in ("trunk", "image_size", "classes")}
    return BoxDetector.restored({**found.options, **options, **own}, found.tensors())


def predict(retriever: LeafDiseaseRetriever, inputs: Sequence[Path], out: Path, figure: Path | None) -> str:
    """Name the diseases of the leaves on photographs; write a CSV, and draw the first photographs.

    Without a detector in the model each photograph is one leaf.
    """
    if figure is not None:
        check_figure_suffix(figure)
    inputs = find_images(inputs)
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


def evaluate(root: Path, seeds: Sequence[int], **options: Any) -> MetricEvaluation:
    """Compare with the baselines, see :func:`lwfm.metric.systems.leaf_comparison.evaluate`."""
    from lwfm.metric.systems import leaf_comparison

    return leaf_comparison.evaluate(root, seeds, **options)


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
