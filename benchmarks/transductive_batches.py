"""What `transductive=True` gains and loses, by how the classes are shared out in a call.

    python -m benchmarks.transductive_batches FOLDER groceries birds --shot 5 --maps runs/experiment/maps

FOLDER holds data sets as `lwfm experiment heads` reads them, whose maps it shares. Episodes of up to five
classes are classified by the head of `FewShotClassifier` with views of the examples, image by image and all
images together: 15 images of each class (or as many as there are); of two classes, and one of each other; of
one class. Points above nearest class mean on the same episodes, mean of the data sets, with 95 % intervals
over episodes.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.classifiers import data_parser, open_classifiers
from lwfm.cli.demo import recommended_head
from lwfm.data import EpisodeSampler
from lwfm.evaluation.results import percent
from lwfm.evaluation.statistics import mean_and_interval
from lwfm.nn import ClassLists
from lwfm.nn.baselines.class_means import class_mean_cosines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from benchmarks.classifiers import Classifier
    from lwfm.evaluation.heads import HeadOptions

MOST = 15
BATCHES = {
    f"{MOST} of each class": [MOST] * 5,
    f"{MOST} of two classes, 1 of each other": [MOST, MOST, 1, 1, 1],
    "all of one class": [MOST, 0, 0, 0, 0],
}
"""For each kind of batch the images of each class, or as many as there are."""


def draw(labels: Tensor, shot: int, queries: int, count: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield the support images [S] of each episode, class by class, and the other images of each class."""
    sizes = torch.bincount(labels)
    way, most = min(5, len(sizes)), min(queries, int(sizes.min()) - shot)
    sampler = EpisodeSampler(labels.numpy(), way=way, shot=shot, queries=most, episodes=count, seed=0)
    for episode in sampler:
        images = torch.as_tensor(np.asarray(episode)).view(-1, way)  # shot-major
        yield images[:shot].flatten(), list(images[shot:].T)


def right(scores: Tensor, support: Tensor, labels: Tensor, query: Tensor) -> float:
    """Return the share of right answers; columns of the scores are classes in ascending order."""
    return float((torch.unique(labels[support])[scores.argmax(-1)] == labels[query]).double().mean())


@torch.inference_mode()
def gains(
    classifiers: Mapping[str, Classifier], features: Tensor, episodes: list[tuple[Tensor, list[Tensor]]]
) -> dict[tuple[str, str], list[float]]:
    """Return for each kind of batch and head the difference to nearest class mean in each episode."""
    found: dict[tuple[str, str], list[float]] = {}
    for (support, others), (kind, counts) in product(episodes, BATCHES.items()):
        query = torch.cat([images[:count] for images, count in zip(others, counts, strict=False)])
        labels = next(iter(classifiers.values())).labels
        own = torch.unique(labels[support], return_inverse=True)[1]
        means = class_mean_cosines(features[support][None], ClassLists(own), features[query][None])[0]
        baseline = right(means, support, labels, query)
        for name, classifier in classifiers.items():
            scores = torch.as_tensor(classifier.logits(support, query))
            found.setdefault((kind, name), []).append(right(scores, support, labels, query) - baseline)
    return found


def main() -> None:
    """Print a row for each kind of batch and number of shots."""
    parser = data_parser(__doc__, shot=1, episodes=60)
    options = parser.parse_args()
    head = recommended_head()
    heads: dict[str, HeadOptions] = {"one by one": head, "together": {**head, "centre": "episode"}}
    found: dict[tuple[str, str], list[list[float]]] = {}
    for _, classifiers in open_classifiers(options.root, options.data, options.maps, heads):
        labels = classifiers["published"].labels
        episodes = list(draw(labels, options.shot, MOST, options.episodes))
        chosen = {name: classifiers[name] for name in heads}
        for key, values in gains(chosen, classifiers["published"].features, episodes).items():
            found.setdefault(key, []).append(values)
    print("| images in the call | shots | one by one | together |\n|---|---|---|---|")
    for kind in BATCHES:
        cells = [percent(*over_sets(found[kind, name]), sign="+") for name in heads]
        print(f"| {kind} | {options.shot} | {' | '.join(cells)} |")


def over_sets(values: list[list[float]]) -> tuple[float, float]:
    """Return the mean of the sets' means, and half width of its interval for other episodes of these sets."""
    means, widths = zip(*(mean_and_interval(each) for each in values), strict=True)
    return math.fsum(means) / len(means), math.hypot(*(width or 0.0 for width in widths)) / len(widths)


if __name__ == "__main__":
    main()
