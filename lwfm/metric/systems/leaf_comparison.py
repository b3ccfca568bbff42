"""The comparison of :class:`lwfm.metric.LeafDiseaseRetriever` with its baselines."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torchvision.ops import box_iou

from lwfm._common.progress import progress
from lwfm.metric.data.boxes import BoxedImage, class_count, one_class, open_boxes
from lwfm.metric.data.pictures import open_pictures
from lwfm.metric.detection import EPOCHS, SIZE, BoxDetector, average_precision
from lwfm.metric.evaluation import MetricEvaluation, Role, Row
from lwfm.metric.scores import Scores, auroc
from lwfm.metric.systems import leaf_diseases
from lwfm.metric.systems.leaf_diseases import (
    Leaf,
    LeafDiseaseRetriever,
    LossName,
    composed_scenes,
    new_detector,
    on_grounds,
)
from lwfm.metric.systems.protocols import (
    best_plain,
    choose,
    drawn,
    images_for_testing,
    inputs_and_plain,
    recall_at_1,
)
from lwfm.metric.systems.system import build

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from lwfm.metric.module import Indices
    from lwfm.metric.retriever import Encoded


RATES = (5e-4, 2e-3)
"""Learning rates that :func:`evaluate` tries for every trained row, on a quarter of the training images."""
WEIGHTS = (0.0, 1.0, 2.0, 4.0)
"""Of the pretrained means: :func:`evaluate` chooses, with a known class in the role of the added one."""
SHOTS = (5, 20, 160)
"""Images of the added disease, or as many as there are."""


def evaluate(
    root: Path,
    seeds: Sequence[int],
    *,
    boxes: str | None = None,
    scenes: int = 60,
    detector: str | None = None,
    detector_size: int = SIZE,
    epochs: int = EPOCHS,
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
    detector : str, optional
        File of the weights from which the detectors are trained, see :func:`.leaf_diseases.new_detector`.
    detector_size, epochs : int, int
        Longer side of the images in pixels, and epochs, of the detectors; 0 epochs leave detection out.
    **options
        Parameters of :class:`LeafDiseaseRetriever`, but for `loss`, `distance`, `learning_rate`,
        `pretrained`, `seed` and `kept`.
    """
    template: LeafDiseaseRetriever = build(
        LeafDiseaseRetriever, options, set_here=("loss", "distance", "learning_rate", "pretrained", "seed"),
        unused=("kept",),
    )  # fmt: skip
    make = partial(
        new_detector, detector, image_size=detector_size, epochs=epochs, accelerator=template.accelerator
    )
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
                        answering = _answering(joined, inputs, pictures.paths, case)
                        detector_of_leaves = make(1, seed=seed)
                        _add_detection(found, case, answering, pictures.paths, detector_of_leaves, scenes)
                    joined.set_params(distance="spm")
                    _add_scores(found, _SPM, "ablation", case, joined, joined.encode(inputs))
                fitted = chosen.fit(*known)
                _add_scores(found, name, role, case, fitted, fitted.encode(inputs))
            chosen_plain = plain[best_plain(plain, case.train, codes)]
            _add_scores(found, _PLAIN, "baseline", case, template, chosen_plain)
            if boxes and epochs:
                _add_boxes(found, Path(boxes), partial(make, seed=seed))
    rows = [Row.over_seeds(protocol, name, role, scores) for (protocol, name, role), scores in found.items()]
    rows.sort(key=lambda row: list(dict.fromkeys(key[0] for key in found)).index(row.protocol))
    data = f"{root.name}: {len(names)} classes, {len(codes)} images, a fifth of them for testing"
    return MetricEvaluation(
        "leaf_diseases", data, tuple(seeds), tuple(rows), "Recall@1", leaf_diseases.SYSTEM.published
    )


_KINDS: tuple[tuple[str, Role, LossName], ...] = (
    ("cross-entropy + triplet alone", "ablation", "joint"),
    ("triplet alone", "ablation", "triplet"),
    ("cross-entropy alone", "baseline", "cross_entropy"),
)
_Found = dict[tuple[str, str, Role], list[Scores]]
_SCENE_PROTOCOL = "composed scenes of several leaves"
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
    answering: tuple[LeafDiseaseRetriever, LeafDiseaseRetriever],
    leaves: Sequence[Path],
    detector: BoxDetector,
    count: int,
) -> None:
    """Score the diseases named on composed scenes of test leaves, by detected and by true boxes."""
    detector.fit(one_class(composed_scenes(leaves, case.known_leaves, count, case.seed)))
    scenes = composed_scenes(leaves, np.flatnonzero(case.test), max(1, count // 5), case.seed + 1)
    detected = [detector(scene.image) for scene in scenes]
    true = [scene.boxes for scene in scenes]
    on_ground, cut_out = answering
    kinds: tuple[tuple[str, Role, list[Any], LeafDiseaseRetriever], ...] = (
        ("detected boxes", "system", detected, on_ground),
        ("true boxes", "ablation", true, on_ground),
        ("true boxes, leaves learned as cut out on black", "ablation", true, cut_out),
    )
    every = sum(len(scene.boxes) for scene in scenes)
    for name, role, boxes, retriever in kinds:
        counts = np.zeros(2)
        for scene, each in zip(scenes, boxes, strict=True):
            counts += _right_leaves(retriever.identify(scene.image, partial(_given, each)), scene, case.codes)
        scores = {"found": counts[0] / every, "found and named right": counts[1] / every}
        if role == "system":
            ranked = [detector(scene.image, threshold=0) for scene in scenes]
            scores["AP@50"] = average_precision(ranked, one_class(scenes)).mean
            answered = sum(len(each.boxes) for each in detected)
            scores["precision"] = counts[0] / answered if answered else 0.0
        found.setdefault((_SCENE_PROTOCOL, name, role), []).append(scores)


def _answering(
    retriever: LeafDiseaseRetriever, inputs: Tensor, leaves: Sequence[Path], case: _Case
) -> tuple[LeafDiseaseRetriever, LeafDiseaseRetriever]:
    """Fit the known diseases and add the other one, from leaves on grounds and as they are cut out."""
    on_ground = retriever._inputs(on_grounds(leaves, np.arange(len(leaves)), case.seed))
    shots = case.shots(SHOTS[-1])

    def grown(rows: Tensor) -> LeafDiseaseRetriever:
        fitted = LeafDiseaseRetriever(**retriever.get_params()).fit(rows[case.train], case.codes[case.train])
        fitted.add(rows[shots], case.codes[shots])
        return fitted

    return grown(on_ground), grown(inputs)


def _given(boxes: Any, image: Any) -> Any:
    """Return boxes that are known already, as a detector."""
    del image
    return boxes


def _add_boxes(found: _Found, boxes: Path, make: Callable[[int], BoxDetector]) -> None:
    """Score a detector on images with boxes: trained on the folder ``train``, tested on ``val``."""
    with open_boxes(boxes) as images:
        detector = make(class_count(images["train"])).fit(images["train"])
        detected = [detector(each.image, threshold=0) for each in images["val"]]
        precision = average_precision(detected, images["val"])
        scores = {"mAP@50": precision.mean}
        scores |= {f"AP@50 of class {code}": value for code, value in precision.classes.items()}
        scores["mAP@30"] = average_precision(detected, images["val"], overlap=0.3).mean
        found.setdefault((f"boxes of {boxes.name}", "detector", "system"), []).append(scores)


def _right_leaves(found: list[Leaf], scene: BoxedImage, codes: Indices) -> npt.NDArray[np.float64]:
    """Count the leaves of a scene that were found, and those that were named right too."""
    if not found:
        return np.zeros(2)
    overlaps = box_iou(torch.as_tensor([leaf.box for leaf in found]), torch.as_tensor(scene.boxes).double())
    best = overlaps.max(0)
    hit = (best.values >= 0.5).numpy()
    named = np.array([found[row].disease for row in best.indices.tolist()], dtype=object)
    return np.array([hit.sum(), (hit & (named == codes[scene.codes])).sum()], dtype=np.float64)
