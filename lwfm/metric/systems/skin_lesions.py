"""Skin lesions in dermoscopic images: a teacher without labels, and attention transfer to a classifier."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from lwfm._common.devices import choose_device
from lwfm._common.files import atomic_path
from lwfm._common.ranges import check_between, check_counts, check_positive
from lwfm._common.text import one_line
from lwfm.data import open_image
from lwfm.data.layouts.folders import find_images
from lwfm.errors import UserError
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.data.pictures import open_pictures
from lwfm.metric.encoders import mlp
from lwfm.metric.estimator import NeighborEstimator
from lwfm.metric.image_encoders import (
    StagedResNet,
    Varied,
    check_shape,
    check_trunk,
    is_encoded,
    read_inputs,
    start_from,
)
from lwfm.metric.losses import AttentionTransferLoss, TwoViewsLoss
from lwfm.metric.module import MetricModule, class_batches, embed, seeded, shuffled_batches, train
from lwfm.metric.systems.system import System, build

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from lwfm._common.devices import Accelerator
    from lwfm.metric.decisions import Weights
    from lwfm.metric.evaluation import MetricEvaluation
    from lwfm.metric.module import Indices

Transfer = Literal["attention", "finetune", "none"]
RESEARCH = "research software: not a medical device, no diagnosis"


class SkinLesionClassifier(NeighborEstimator):
    """Classes of skin lesions by a student network whose attention follows a teacher's.

    **Research software: not a medical device, no diagnosis.**

    The teacher is trained without labels by NT-Xent on two views of each image; its recipe is a *reading*.
    The student of the same form is trained by cross-entropy plus the difference of both attention maps at
    every stage (`beta` 1000), which is *exact*: see :class:`~lwfm.metric.losses.AttentionTransferLoss`.
    Batches have the same number of images of each class, so that rare ones count as much.

    Parameters
    ----------
    transfer : {"attention", "finetune", "none"}
        Attention transfer; a student that begins with the teacher's weights instead; neither.
    beta : float
        Weight of the transfer.
    temperature : float
        Of NT-Xent.
    trunk, weights, image_size
        See :class:`~lwfm.metric.TissueRetriever`.
    teacher_steps, steps, learning_rate : int, int, float
        Of both trainings.
    batch_size, images_per_class : int
        Images of a step of the teacher (two views of each), and of each class of a step of the student.
    k : int
        Similar cases that ``decision_`` finds.
    seed : int
        Of weights, batches and views; runs on the CPU repeat exactly.
    accelerator : {"auto", "cpu", "gpu"}
        Where to compute.

    Attributes
    ----------
    teacher_ : StagedResNet or None
        While in memory; it is not saved.

    Examples
    --------
    >>> maps = np.random.default_rng(0).random((24, 16, 4, 4), dtype=np.float32)
    >>> classifier = SkinLesionClassifier(teacher_steps=2, steps=2, batch_size=8, images_per_class=4)
    >>> classifier.fit(maps, np.arange(24) % 2, unlabeled=maps).predict_proba(maps).shape
    (24, 2)
    """

    system = "skin_lesions"

    def __init__(
        self,
        transfer: Transfer = "attention",
        beta: float = 1000.0,
        temperature: float = 0.2,
        trunk: str = "auto",
        weights: str = "none",
        image_size: int = 96,
        teacher_steps: int = 120,
        steps: int = 80,
        learning_rate: float = 2e-3,
        batch_size: int = 64,
        images_per_class: int = 6,
        k: int = 5,
        seed: int = 0,
        accelerator: Accelerator = "auto",
    ) -> None:
        self.transfer, self.beta, self.temperature = transfer, beta, temperature
        self.trunk, self.weights, self.image_size = trunk, weights, image_size
        self.teacher_steps, self.steps, self.learning_rate = teacher_steps, steps, learning_rate
        self.batch_size, self.images_per_class, self.k = batch_size, images_per_class, k
        self.seed, self.accelerator = seed, accelerator

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.transfer not in get_args(Transfer):
            raise UserError(f"transfer must be one of {', '.join(get_args(Transfer))}, not {self.transfer!r}")
        check_trunk(self.trunk, self.image_size, self.weights)
        check_counts(teacher_steps=self.teacher_steps, steps=self.steps, batch_size=self.batch_size)
        check_counts(images_per_class=self.images_per_class, k=self.k)
        check_between(0, float("inf"), beta=self.beta)
        check_positive(temperature=self.temperature, learning_rate=self.learning_rate)
        if self.batch_size < 2:
            raise UserError(f"batch_size must be at least 2, not {self.batch_size}")

    def _inputs(self, X: Any) -> Tensor:
        if is_encoded(X, self.trunk, self.image_size):
            return super()._inputs(X)
        return read_inputs(self.trunk, self.image_size, X, self.accelerator)

    def fit(
        self,
        X: Any,
        y: Any,
        groups: Any = None,
        *,
        unlabeled: Any = None,
        teacher: StagedResNet | None = None,
    ) -> Self:
        """Train a teacher on all images, then the student on the labeled ones.

        Parameters
        ----------
        X : sequence of images, or stack of tensors
            N images.
        y : array
            [N] labels of at least two classes.
        groups : array, optional
            Not used.
        unlabeled : sequence of images, or stack of tensors, optional
            Further images for the teacher.
        teacher : StagedResNet, optional
            Of :meth:`train_teacher`, which then is not called.
        """
        self._check_parameters()
        inputs = self._inputs(X)
        self.teacher_ = teacher
        if self.transfer != "none" and teacher is None:
            more = [] if unlabeled is None else [self._inputs(unlabeled)]
            self.teacher_ = self.train_teacher(torch.cat([inputs, *more]))
        return super().fit(inputs, y, groups)

    def train_teacher(self, X: Any) -> StagedResNet:
        """Train a teacher on images without labels."""
        self._check_parameters()
        inputs = self._inputs(X)
        check_shape(tuple(inputs.shape[1:]), self.trunk)
        with seeded(self.seed) as random:
            teacher = StagedResNet(self.trunk, inputs.shape[1])
            start_from(self.weights, teacher, self.trunk)
            encoder = nn.Sequential(teacher, mlp([teacher.width, teacher.width, 64]))
            view = Varied()
            module = MetricModule(
                encoder,
                TwoViewsLoss(self.temperature),
                augment=lambda batch: torch.cat([view(batch), view(batch)]),
                **self._optimization(self.teacher_steps),
            )
            size = min(self.batch_size, len(inputs))
            epochs = -(-self.teacher_steps // (len(inputs) // size))
            batches = shuffled_batches(len(inputs), size, epochs, random)[: self.teacher_steps]
            none = torch.zeros(len(inputs), dtype=torch.int64)
            train(module, inputs, none, batches, choose_device(self.accelerator))
        return teacher.eval()

    def _optimization(self, steps: int) -> dict[str, Any]:
        """Return the optimizer and schedule of a training."""
        return {
            "optimizer": partial(torch.optim.AdamW, lr=self.learning_rate, weight_decay=1e-2),
            "schedule": partial(
                torch.optim.lr_scheduler.OneCycleLR, max_lr=self.learning_rate, total_steps=steps
            ),
        }

    def _encoder(self, shape: tuple[int, ...]) -> nn.Module:
        check_shape(shape, self.trunk)
        return StagedResNet(self.trunk, shape[0])

    def _module(self, encoder: nn.Module, classes: int) -> MetricModule:
        assert isinstance(encoder, StagedResNet)  # noqa: S101 - of _encoder
        start_from(self.weights, encoder, self.trunk)
        if self.transfer == "finetune" and self.teacher_ is not None:
            encoder.load_state_dict(self.teacher_.state_dict())
        self.classifier_ = nn.Linear(encoder.width, classes)
        transfer = AttentionTransferLoss(self.beta) if self.transfer == "attention" else None
        pair = StudentAndTeacher(encoder, self.teacher_ if transfer else None)
        loss = TransferLoss(self.classifier_, transfer)
        return MetricModule(pair, loss, augment=Varied(), **self._optimization(self.steps))

    def _batches(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        del groups
        classes = len(np.unique(codes))
        return class_batches(codes, classes, self.images_per_class, self.steps, random)

    def _vote(self) -> tuple[int, Weights]:
        return self.k, "uniform"

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the probability [N, classes] of each of `classes_`, by the student's classifier."""
        return self.probabilities(self.transform(X))

    def probabilities(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the probabilities [N, classes] of features [N, dim]."""
        with torch.inference_mode():
            logits = self.classifier_(torch.as_tensor(features))
            found: npt.NDArray[np.float64] = F.softmax(logits.double(), dim=1).numpy()
        return found

    def attention(self, X: Any) -> npt.NDArray[np.float32]:
        """Compute the attention map [N, F, F] of the last stage, from 0 to 1."""
        self._check_fitted()
        maps = embed(LastMaps(self.encoder_), self._inputs(X), device=choose_device(self.accelerator))
        squares = np.square(maps).mean(1)
        largest: npt.NDArray[np.float32] = squares / squares.max((1, 2), keepdims=True).clip(1e-12)
        return largest

    def _tensors(self) -> dict[str, Tensor]:
        return {"classifier.weight": self.classifier_.weight, "classifier.bias": self.classifier_.bias}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        weight, bias = tensors["classifier.weight"], tensors["classifier.bias"]
        self.classifier_ = nn.Linear(weight.shape[1], len(description["classes"]))
        self.classifier_.load_state_dict({"weight": weight, "bias": bias})
        self.teacher_ = None


class StudentAndTeacher(nn.Module):
    """Features and maps of a student, with the maps of its teacher, if there is one.

    Parameters
    ----------
    student : StagedResNet
        Trained.
    teacher : StagedResNet, optional
        Fixed; its running statistics stay too.
    """

    def __init__(self, student: StagedResNet, teacher: StagedResNet | None) -> None:
        super().__init__()
        self.student = student
        self._teacher = [] if teacher is None else [teacher]  # hidden from the optimizer

    def forward(self, inputs: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute the maps of the student and of the teacher."""
        theirs: list[Tensor] = []
        for teacher in self._teacher:
            with torch.no_grad():
                teacher.to(inputs.device).eval()
                theirs = teacher.maps(inputs)
        return self.student.maps(inputs), theirs


class TransferLoss(nn.Module):
    """Cross-entropy of a classifier on pooled features, plus attention transfer.

    Parameters
    ----------
    classifier : nn.Linear
        On the mean of the last maps.
    transfer : AttentionTransferLoss, optional
        None for cross-entropy alone.
    """

    def __init__(self, classifier: nn.Linear, transfer: AttentionTransferLoss | None) -> None:
        super().__init__()
        self.classifier, self.transfer = classifier, transfer

    def forward(self, maps: tuple[list[Tensor], list[Tensor]], labels: Tensor) -> Tensor:
        """Compute the loss of the maps of student and teacher, and labels [B]."""
        student, teacher = maps
        loss = F.cross_entropy(self.classifier(student[-1].mean((2, 3))), labels)
        if self.transfer is None:
            return loss
        transferred: Tensor = loss + self.transfer(student, teacher)
        return transferred


class LastMaps(nn.Module):
    """The last maps of a staged network.

    Parameters
    ----------
    network : StagedResNet
        The network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(self, inputs: Tensor) -> Tensor:
        """Compute the maps [B, C, F, F] of inputs [B, ...]."""
        maps: Tensor = self.network.maps(inputs)[-1]
        return maps


def fit(root: Path, *, unlabeled: str | None = None, **options: Any) -> SkinLesionClassifier:
    """Fit a classifier on images in class folders; `unlabeled` is a folder or zip of more for the teacher."""
    classifier: SkinLesionClassifier = build(SkinLesionClassifier, options)
    more = None
    if unlabeled is not None:
        with open_pictures(Path(unlabeled), classes=1) as pictures:
            more = classifier._inputs(pictures.paths)
    with open_pictures(root, classes=2) as pictures:
        return classifier.fit(pictures.paths, pictures.labels, unlabeled=more)


def predict(classifier: SkinLesionClassifier, inputs: Sequence[Path], out: Path, figure: Path | None) -> str:
    """Write the probability of every class for each image as CSV, and draw the first images."""
    if figure is not None:
        check_figure_suffix(figure)
    inputs = find_images(inputs)
    encoded = classifier._inputs(inputs)
    probabilities = classifier.predict_proba(encoded)
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image", "most_likely", *classifier.classes_])
        for path, row in zip(inputs, probabilities, strict=True):
            table.writerow([path, classifier.classes_[row.argmax()], *(f"{value:.4f}" for value in row)])
    lines = [f"{len(inputs)} images: {out}", RESEARCH]
    if figure is not None:
        shown = slice(_SHOWN)
        drawn_figure = draw_lesions(
            classifier, inputs[shown], probabilities[shown], classifier.attention(encoded[shown])
        )
        save_figure(drawn_figure, figure)
        lines.insert(1, f"the first images, their attention and probabilities: {figure}")
    return "\n".join(lines)


_SHOWN = 6


def draw_lesions(
    classifier: SkinLesionClassifier,
    images: Sequence[Path],
    probabilities: npt.NDArray[np.float64],
    attention: npt.NDArray[np.float32],
) -> Figure:
    """Draw images, the attention of the network on them, and the probabilities of the classes."""
    figure = Figure(figsize=(8, 1.9 * len(images)), layout="constrained")
    figure.suptitle(RESEARCH, fontsize=9)
    cells = figure.subplots(len(images), 3, squeeze=False, width_ratios=(1, 1, 1.6))
    names = [one_line(str(name)) for name in classifier.classes_]
    for (left, middle, right), path, shares, weights in zip(
        cells, images, probabilities, attention, strict=True
    ):
        image = open_image(path)
        extent = (0, image.width, image.height, 0)
        left.imshow(image)
        left.set_title(one_line(path.name), fontsize=7, parse_math=False)
        middle.imshow(image, alpha=0.6)
        middle.imshow(weights, extent=extent, alpha=0.4, cmap="magma", interpolation="bilinear")
        middle.set_title("attention", fontsize=7)
        for axes in (left, middle):
            axes.set_axis_off()
        right.barh(range(len(names)), shares, color="tab:blue", alpha=0.6)
        right.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
        right.set_xlim(0, 1)
        right.invert_yaxis()
        right.tick_params(labelsize=7)
    return figure


def evaluate(root: Path, seeds: Sequence[int], **options: Any) -> MetricEvaluation:
    """Compare with the baselines, see :func:`lwfm.metric.systems.skin_comparison.evaluate`."""
    from lwfm.metric.systems import skin_comparison

    return skin_comparison.evaluate(root, seeds, **options)


SYSTEM = System(
    name="skin_lesions",
    task="classify skin lesions in dermoscopic images (research only)",
    reads="images in class folders, or a zip of them",
    formula="transfer exact, teacher a reading",
    published="accuracy 67.9 without, 72.5 with attention transfer, on eight classes of dermoscopic images",
    estimator=SkinLesionClassifier,
    evaluate=evaluate,
    fit=fit,
    predict=predict,
)
