"""Calibration of the classifier's probabilities, and how well they tell images of unknown classes.

    python -m benchmarks.probabilities FOLDER birds caltech --shot 5 --maps runs/experiment/maps

FOLDER holds data sets as `lwfm experiment heads` reads them, whose maps it shares. Of each, episodes of up to
five classes (two are always left unknown) are classified by the published head of EfficientNet-Lite0 and by
that of `FewShotClassifier`, without and with views of the examples, with the temperature and the threshold
that the classifier finds on the examples. For each head:

* expected calibration error (15 bins) of the answers to images of the known classes;
* the factor by which one temperature for all of these answers would differ: below 1 they are less sure than
  they are right;
* area under the ROC curve of their best probability against that of images of unknown classes;
* shares of unknown images accepted, and of known ones rejected, at the threshold for 10 % false acceptance.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.classifiers import data_parser, open_classifiers
from lwfm.classifier.calibration import answers_without_their_class, calibrate, fit_temperature, softmax
from lwfm.cli.demo import recommended_head

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from benchmarks.classifiers import Classifier
    from lwfm.evaluation.heads import HeadOptions

    Integers = npt.NDArray[np.int64]

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
def measure(classifier: Classifier, episodes: list[tuple[Tensor, ...]]) -> str:
    """Return the measures of a head over episodes (support, known and unknown images) as a row of a table."""
    areas, accepted, rejected, answers, truth = [], [], [], [], []
    for support, known, unknown in episodes:
        own = torch.unique(classifier.labels[support], return_inverse=True)[1].numpy()

        def classify(kept: Integers, asked: Integers, support: Tensor = support) -> npt.NDArray[np.float32]:
            return classifier.logits(support[torch.as_tensor(kept)], support[torch.as_tensor(asked)])

        temperature = calibrate(classify, own)[0]
        left_out = softmax(answers_without_their_class(classify, own) / temperature).max(-1)
        threshold = float(np.quantile(left_out, 1 - FALSE_ACCEPTANCE))
        logits = classifier.logits(support, torch.cat([known, unknown])) / temperature
        sure = softmax(logits).max(-1)
        of_known, of_unknown = sure[: len(known)], sure[len(known) :]
        areas.append(area_under_curve(of_known, of_unknown))
        accepted.append(float((of_unknown >= threshold).mean()))
        rejected.append(float((of_known < threshold).mean()))
        answers.append(logits[: len(known)])
        names = torch.unique(classifier.labels[support])
        truth.append(torch.searchsorted(names, classifier.labels[known]).numpy())
    every, true = np.concatenate(answers), np.concatenate(truth)
    right = (every.argmax(-1) == true).astype(np.float64)
    shares = [float(right.mean()), calibration_error(softmax(every).max(-1), right)]
    shares += [float(np.mean(each)) for each in (areas, accepted, rejected)]
    percent = [f"{100 * share:.1f}" for share in shares]
    return " | ".join([*percent[:2], f"{fit_temperature(every, true):.2f}", *percent[2:]])


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
    parser = data_parser(__doc__, shot=5, episodes=40)
    parser.add_argument("--queries", type=int, default=5)
    options = parser.parse_args()
    head = recommended_head()
    heads: dict[str, HeadOptions] = {"default without views": {**head, "views": False}, "default": head}
    measures = "accuracy | calibration error | factor | AUROC | unknown accepted | known rejected"
    print(f"| data | head | {measures} |")
    print("|---|---|---|---|---|---|---|---|")
    for name, classifiers in open_classifiers(options.root, options.data, options.maps, heads):
        labels = next(iter(classifiers.values())).labels
        episodes = draw(labels, options.shot, options.queries, options.episodes)
        for row, classifier in classifiers.items():
            print(f"| {name} | {row} | {measure(classifier, episodes)} |", flush=True)


if __name__ == "__main__":
    main()
