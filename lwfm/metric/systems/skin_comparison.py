"""The comparison of :class:`lwfm.metric.SkinLesionClassifier` with its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from torch import Tensor

from lwfm._common.devices import choose_device
from lwfm._common.progress import progress
from lwfm.errors import UserError
from lwfm.metric.data.pictures import open_pictures
from lwfm.metric.evaluation import MetricEvaluation, Row
from lwfm.metric.module import embed
from lwfm.metric.retriever import Encoded, matched_distances
from lwfm.metric.scores import Scores, auroc
from lwfm.metric.systems import skin_lesions
from lwfm.metric.systems.protocols import best_plain, choose, drawn, images_for_testing, inputs_and_plain
from lwfm.metric.systems.skin_lesions import LastMaps, SkinLesionClassifier
from lwfm.metric.systems.system import build

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from lwfm.metric.evaluation import Role
    from lwfm.metric.module import Indices

RATES = (5e-4, 2e-3)
"""Learning rates that :func:`evaluate` tries for every trained row, on a quarter of the training images."""
SHARES = (1.0, 0.25)


def evaluate(
    root: Path, seeds: Sequence[int], *, external: str | None = None, **options: Any
) -> MetricEvaluation:
    """Compare attention transfer with plain cross-entropy and with fine-tuning from the teacher.

    With all labels, and with those of a quarter of the training images: the teacher always sees all of them.

    Parameters
    ----------
    root : Path
        Folder or zip of images in class folders.
    seeds : sequence of int
        Of training, of the test images and of the labels.
    external : str, optional
        Folder or zip of images of another site, for testing alone. Its classes are those whose names begin
        or end the same.
    **options
        Parameters of :class:`SkinLesionClassifier`, but for `transfer`, `learning_rate`, `k` and `seed`.
    """
    template: SkinLesionClassifier = build(
        SkinLesionClassifier, options, set_here=("transfer", "learning_rate", "seed"), unused=("k",)
    )
    with open_pictures(root, classes=2) as pictures:
        inputs, plain = inputs_and_plain(
            template.trunk, template.image_size, pictures.paths, template.accelerator
        )
    names, codes = np.unique(pictures.labels, return_inverse=True)
    site = None if external is None else _Site.read(template, Path(external), names)
    found: dict[tuple[str, str, Role], list[Scores]] = {}
    for seed in progress(seeds, "seeds", "seed"):
        test = images_for_testing(pictures, codes, seed)
        rows = np.flatnonzero(~test)
        base = SkinLesionClassifier(**{**template.get_params(), "seed": seed})
        teacher = base.train_teacher(inputs[rows])
        for share in SHARES:
            part = rows if share == 1 else rows[drawn(codes[rows], share, seed)]
            known, asked = (inputs[part], codes[part]), (inputs[test], codes[test])
            protocol = f"labels of {share:.0%} of the training images"
            for name, role, options in _KINDS:
                tried = SkinLesionClassifier(**{**base.get_params(), **options})
                chosen = choose(tried, {"learning_rate": RATES}, *known, score=_macro_f1, teacher=teacher)
                fitted = chosen.fit(*known, teacher=teacher)
                scores = _scores(fitted.predict_proba(asked[0]), asked[1], names)
                if site is not None:
                    scores |= site.scores(fitted.predict_proba(site.inputs))
                found.setdefault((protocol, name, role), []).append(scores)
                if role == "system":
                    shares = _by_pixels(fitted, *known, asked[0])
                    found.setdefault((protocol, _SPM, "ablation"), []).append(
                        _scores(shares, asked[1], names)
                    )
            best = best_plain(plain, part, codes)
            descriptors = plain[best].descriptors
            logistic = LogisticRegression(C=10.0, class_weight="balanced", max_iter=500)
            logistic.fit(descriptors[part].numpy(), codes[part])
            scores = _scores(logistic.predict_proba(descriptors[test].numpy()), asked[1], names)
            if site is not None:
                scores |= site.scores(logistic.predict_proba(site.plain[best].descriptors.numpy()))
            found.setdefault((protocol, _LOGISTIC, "baseline"), []).append(scores)
            scores = _scores(_nearest(plain[best], part, test, codes), asked[1], names)
            found.setdefault((protocol, _PLAIN, "baseline"), []).append(scores)
    result = [Row.over_seeds(protocol, name, role, each) for (protocol, name, role), each in found.items()]
    data = f"{root.name}: {len(names)} classes, {len(codes)} images, a fifth of them for testing"
    data += "" if site is None else f"; other site: {Path(str(external)).name}, {len(site.codes)} images"
    return MetricEvaluation(
        "skin_lesions", data, tuple(seeds), tuple(result), "macro-F1", skin_lesions.SYSTEM.published
    )


_KINDS: tuple[tuple[str, Role, dict[str, Any]], ...] = (
    ("attention transfer", "system", {"transfer": "attention"}),
    ("attention transfer, beta 10", "ablation", {"transfer": "attention", "beta": 10.0}),
    ("fine-tuned from the teacher", "baseline", {"transfer": "finetune"}),
    ("plain cross-entropy: beta 0", "ablation", {"transfer": "none"}),
)
"""On maps of few positions a beta of 1000 outweighs cross-entropy, hence the smaller one."""
_SPM = "attention transfer: neighbors by semantic pixels"
_LOGISTIC = "logistic regression on pretrained features"
_PLAIN = "nothing learned: nearest pretrained features"


def _scores(probabilities: npt.NDArray[Any], codes: Indices, names: npt.NDArray[np.str_]) -> Scores:
    """Score probabilities [N, classes] of all classes: accuracy, macro-F1 and the F1 of each class."""
    answers = probabilities.argmax(1)
    each = f1_score(codes, answers, labels=range(len(names)), average=None, zero_division=0)
    return {
        "macro-F1": float(each.mean()),
        "accuracy": float((answers == codes).mean()),
        **{f"F1 {name}": float(value) for name, value in zip(names, each, strict=True)},
    }


def _macro_f1(classifier: SkinLesionClassifier, inputs: Tensor, codes: Indices) -> float:
    return float(f1_score(codes, classifier.predict(inputs), average="macro", zero_division=0))


def _nearest(plain: Encoded, part: Indices, test: npt.NDArray[np.bool_], codes: Indices) -> npt.NDArray[Any]:
    """Return the class of the nearest labeled image as probabilities [Q, classes]."""
    distances = torch.cdist(plain.descriptors[test], plain.descriptors[part])
    found: npt.NDArray[np.float64] = np.eye(codes.max() + 1)[codes[part][distances.argmin(1).numpy()]]
    return found


def _by_pixels(
    fitted: SkinLesionClassifier, labeled: Tensor, codes: Indices, asked: Tensor, candidates: int = 50
) -> npt.NDArray[np.float64]:
    """Return the votes [Q, classes] of the k labeled images nearest by semantic pixels of the last maps.

    They are among the candidates that are nearest by features.
    """
    device = choose_device(fitted.accelerator)
    network = LastMaps(fitted.encoder_)
    ours, theirs = (torch.as_tensor(embed(network, each, device=device)) for each in (asked, labeled))
    distances = torch.cdist(ours.mean((2, 3)), theirs.mean((2, 3)))
    keys = distances.topk(min(candidates, len(codes)), largest=False).indices
    best = matched_distances(ours, theirs, keys).topk(min(fitted.k, keys.shape[1]), largest=False).indices
    votes = np.eye(len(fitted.classes_))[codes[keys.gather(1, best).numpy()]]
    return np.asarray(votes.mean(1), dtype=np.float64)


class _Site:
    """Images of another site, whose classes are some of the known ones."""

    def __init__(self, inputs: Tensor, plain: Sequence[Encoded], codes: Indices) -> None:
        self.inputs, self.plain, self.codes = inputs, plain, codes
        self.present = np.unique(codes)

    @classmethod
    def read(cls, template: SkinLesionClassifier, root: Path, names: npt.NDArray[np.str_]) -> _Site:
        """Read the images of another site; UserError for a class that is not exactly one of the known."""
        if not root.exists():
            raise UserError(f"there is no file or folder {root}")
        with open_pictures(root, classes=2) as pictures:
            known = {name: _counterpart(name, names, root) for name in np.unique(pictures.labels)}
            inputs, plain = inputs_and_plain(
                template.trunk, template.image_size, pictures.paths, template.accelerator
            )
        return cls(inputs, plain, np.array([known[name] for name in pictures.labels]))

    def scores(self, probabilities: npt.NDArray[Any]) -> Scores:
        """Score probabilities [N, classes], of which only those of the classes of this site are compared."""
        few = probabilities[:, self.present]
        answers = self.present[few.argmax(1)]
        found = {
            "other site macro-F1": float(f1_score(self.codes, answers, average="macro", zero_division=0)),
            "other site accuracy": float((answers == self.codes).mean()),
        }
        if len(self.present) == 2:
            share = few[:, 0] / few.sum(1).clip(1e-12)
            found["other site AUROC"] = auroc(self.codes == self.present[0], share)
        return found


def _counterpart(name: str, names: npt.NDArray[np.str_], root: Path) -> int:
    """Return the number of the known class that is, begins or ends with a name."""
    same = [number for number, known in enumerate(names) if known == name]
    near = same or [
        number for number, known in enumerate(names) if known.startswith(name) or known.endswith(name)
    ]
    if len(near) != 1:
        raise UserError(f"the class {name} of {root} is none of {', '.join(names)}: rename its folder")
    return near[0]
