"""Calibration of the classifier's probabilities, and how well they tell images of unknown classes.

    python -m benchmarks.probabilities FOLDER birds caltech --shot 5 --maps runs/experiment/maps

FOLDER holds data sets as `lwfm experiment heads` reads them. Of each, episodes of up to five classes (two are
always left unknown) are classified by the published and by the recommended head of EfficientNet-Lite0, with
the temperature and the threshold that `FewShotClassifier` finds on the examples. For each head:

* expected calibration error (15 bins) of the answers to images of the known classes;
* area under the ROC curve of their best probability against that of images of unknown classes;
* shares of unknown images accepted, and of known ones rejected, at the threshold for 10 % false acceptance.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lwfm.classifier.calibration import answers_without_their_class, calibrate, softmax
from lwfm.data import open_images
from lwfm.evaluation.heads import HeadOptions, make_heads
from lwfm.evaluation.map_store import stored_maps
from lwfm.evaluation.methods import HeadOnMaps
from lwfm.model import LWFM
from lwfm.model.default import pretrained_config

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from lwfm.nn import EncodedMaps, LWFMHead

    Integers = npt.NDArray[np.int64]

NETWORK = "timm:tf_efficientnet_lite0"
FALSE_ACCEPTANCE = 0.1


def calibration_error(sure: npt.NDArray[np.float64], right: npt.NDArray[np.float64], bins: int = 15) -> float:
    """Return the mean over answers of |accuracy - mean probability| in bins of equal width.

    Examples
    --------
    >>> round(calibration_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([1.0, 1.0, 1.0, 0.0])), 3)
    0.1
    """
    place = np.minimum((sure * bins).astype(int), bins - 1)
    total = np.bincount(place, sure - right, minlength=bins)
    return float(np.abs(total).sum() / len(sure))


def area_under_curve(known: npt.NDArray[np.float64], unknown: npt.NDArray[np.float64]) -> float:
    """Return the share of pairs in which the known image has the larger value; ties count one half.

    Examples
    --------
    >>> area_under_curve(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    differences = known[:, None] - unknown[None, :]
    return float(((differences > 0) + 0.5 * (differences == 0)).mean())


@torch.inference_mode()
def measure(head: LWFMHead, images: EncodedMaps, labels: Tensor, episodes: list[tuple[Tensor, ...]]) -> str:
    """Return the measures of a head over episodes (support, known and unknown images) as a row of a table."""
    areas, accepted, rejected, answers = [], [], [], []
    for support, known, unknown in episodes:
        names, own = np.unique(labels[support].numpy(), return_inverse=True)
        encoded = images[support]

        def classify(
            kept: Integers, asked: Integers, encoded: EncodedMaps = encoded, own: Integers = own
        ) -> npt.NDArray[np.float32]:
            classes = np.unique(own[kept], return_inverse=True)[1].tolist()
            compared = head.compare(encoded[kept.tolist()], classes, encoded[asked.tolist()])
            return np.asarray(head.logits(compared))

        temperature = calibrate(classify, own)[0]
        left_out = softmax(answers_without_their_class(classify, own) / temperature).max(-1)
        threshold = float(np.quantile(left_out, 1 - FALSE_ACCEPTANCE))
        asked = torch.cat([known, unknown])
        logits = head.logits(head.compare(encoded, own.tolist(), images[asked]))
        sure, best = (logits.double() / temperature).softmax(-1).max(-1)
        right = torch.as_tensor(names)[best[: len(known)]] == labels[known]
        of_known, of_unknown = sure[: len(known)], sure[len(known) :]
        areas.append(area_under_curve(of_known.numpy(), of_unknown.numpy()))
        accepted.append(float((of_unknown >= threshold).double().mean()))
        rejected.append(float((of_known < threshold).double().mean()))
        answers.append((of_known, right.double()))
    every, right_answers = (torch.cat(each).numpy() for each in zip(*answers, strict=True))
    shares = [float(right_answers.mean()), calibration_error(every, right_answers)]
    shares += [float(np.mean(each)) for each in (areas, accepted, rejected)]
    return " | ".join(f"{100 * share:.1f}" for share in shares)


def draw(labels: Tensor, shot: int, queries: int, count: int, seed: int = 0) -> list[tuple[Tensor, ...]]:
    """Draw episodes: support images, others of their classes, and as many of classes that are left out."""
    generator = torch.Generator().manual_seed(seed)
    classes = int(labels.max()) + 1
    way = min(5, classes - 2)
    episodes: list[tuple[Tensor, ...]] = []
    for _ in range(count):
        order = torch.randperm(classes, generator=generator)
        shuffled = torch.randperm(len(labels), generator=generator)
        of = [shuffled[labels[shuffled] == label] for label in order.tolist()]
        support = torch.cat([images[:shot] for images in of[:way]])
        known = torch.cat([images[shot : shot + queries] for images in of[:way]])
        unknown = torch.cat([images[:queries] for images in of[way : 2 * way]])
        episodes.append((support, known, unknown))
    return episodes


def main() -> None:
    """Print a row for each data set and head."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("data", nargs="+", help="names of folders of data sets, or emoji")
    parser.add_argument("--shot", type=int, default=5)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=40)
    parser.add_argument("--maps", type=Path, default=Path("runs/experiment/maps"))
    options = parser.parse_args()
    published = pretrained_config(NETWORK)
    recommended = pretrained_config(NETWORK, head="recommended")
    names = (name for name in HeadOptions.__annotations__ if hasattr(recommended, name))
    changed = {name: getattr(recommended, name) for name in names if name != "layers"}
    heads = make_heads(LWFM(published).eval(), {"recommended": HeadOptions(**changed)})  # type: ignore[typeddict-item]
    print("| data | head | accuracy | calibration error | AUROC | unknown accepted | known rejected |")
    print("|---|---|---|---|---|---|---|")
    for name in options.data:
        own = name == "emoji"
        images = open_images("emoji" if own else "folder", None if own else options.root / name, split="val")
        maps = stored_maps(heads.encoder, images, options.maps)
        labels = torch.as_tensor(images.labels)
        episodes = draw(labels, options.shot, options.queries, options.episodes)
        for row, method in {"published": heads.own, **heads.others}.items():
            assert isinstance(method, HeadOnMaps)  # none of them is a baseline
            with torch.inference_mode():
                encoded = method.head.encode(method.read(maps.select(range(len(labels)))))
            print(f"| {name} | {row} | {measure(method.head, encoded, labels, episodes)} |", flush=True)


if __name__ == "__main__":
    main()
