"""Which way of comparing matched positions helps? Many, on the same cached maps and episodes.

    python -m benchmarks.studies.heads runs/a/best.safetensors --deep 7@3 8@3 --fine 6@6 7@3 8@3

Forms that the head does not have are plain tensor expressions here (:mod:`benchmarks.studies.terms`). Every
image passes each backbone once; an episode yields, for each layer, the terms [Q, way] that scores are made
of, and each row of the table is a sum of them: accuracy, and difference to nearest class mean paired by
episode, over the episodes of all checkpoints. Choose on validation classes only. Without a checkpoint: a
pretrained network as it is (``--pretrained timm:tf_efficientnet_lite0``).
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from tqdm import tqdm

from benchmarks.studies.terms import TEMPERATURES, Terms, View, episode_terms, title
from lwfm.data import EpisodeSampler, episode_labels, images_needed, open_images
from lwfm.evaluation.episodes import encode_images
from lwfm.evaluation.heads import make_heads
from lwfm.evaluation.results import percent
from lwfm.evaluation.statistics import mean_and_interval
from lwfm.model import LWFM, ModelConfig, load_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Score = Callable[[Terms], Tensor]

WAY = 5
WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)


def average(form: str, views: Sequence[View]) -> Score:
    """Average a form of matching over views."""
    return lambda terms: torch.stack([terms[f"{form} {title([view])}"] for view in views]).mean(0)


def largest(form: str, views: Sequence[View]) -> Score:
    """Take the largest over the views, for each query and class."""
    return lambda terms: torch.stack([terms[f"{form} {title([view])}"] for view in views]).amax(0)


def plus(base: str, weight: float, matching: Score) -> Score:
    """Add a matching term to a base term."""
    return lambda terms: terms[base] + weight * matching(terms)


def rows_of(deep: Sequence[View], fine: Sequence[View]) -> dict[str, Score]:
    """All rows of the table but the fitted one: class means alone, matching alone, both."""
    return {**rows_of_one_term(deep, fine), **rows_of_both_terms(deep, fine)}


def rows_of_one_term(deep: Sequence[View], fine: Sequence[View]) -> dict[str, Score]:
    """Class means alone, matching alone."""
    rows: dict[str, Score] = {}
    for group in (deep, fine):
        for base in ("ncm {}", "mean {}", *(f"lwe {{}} t={t}" for t in TEMPERATURES)):
            rows[base.format(title(group))] = term(base.format(title(group)))
    for form in ("top 1", "top 3", "all"):
        rows[f"{form}, max of {title(deep)}"] = largest(form, deep)
        rows[f"{form}, mean of {title(deep)}"] = average(form, deep)
    views = list(dict.fromkeys([*fine, *deep]))
    for form in ("all", "merged"):
        for group in (*([view] for view in views), fine):
            rows[f"{form}, mean of {title(group)}"] = average(form, group)
    for form in (
        "in place",
        "soft",
        "weighted",
        "merged",
        "merged top 3",
        "merged weighted",
        "merged nearest",
    ):
        for group in (deep, fine):
            rows[f"{form}, mean of {title(group)}"] = average(form, group)
    return rows


def rows_of_both_terms(deep: Sequence[View], fine: Sequence[View]) -> dict[str, Score]:
    """Class means and matching, in different proportions."""
    rows: dict[str, Score] = {}
    paper = f"lwe {title(deep)} t=5"
    for weight in (0.25, 1.0):
        rows[f"{paper} + {weight} x top 1, max of {title(deep)}"] = plus(
            paper, weight, largest("top 1", deep)
        )
    for base in (f"lwe {title(fine)} t=5", f"mean {title(fine)}", f"ncm {title(deep)}"):
        for form in ("all", "merged"):
            for group in (deep, fine):
                for weight in WEIGHTS:
                    name = f"{base} + {weight} x {form}, mean of {title(group)}"
                    rows[name] = plus(base, weight, average(form, group))
    return rows


def fitted(found: Sequence[Terms], deep: Sequence[View], fine: Sequence[View]) -> Score:
    """Sum of base and merged matching of every view, with weights fitted to the right answers.

    Each half of the episodes is scored with the weights that fit the other half.
    """
    names = [f"lwe {title(fine)} t=5", f"ncm {title(deep)}", *(f"merged {title([view])}" for view in fine)]
    stacked = torch.cat([torch.stack([terms[name] for name in names], -1) for terms in found])
    weights = [_fit(stacked[1::2]), _fit(stacked[::2])]
    print(
        "fitted weights:",
        *(f"{n} {w:.2f}" for n, w in zip(names, (weights[0] + weights[1]) / 2, strict=True)),
        sep="  ",
    )

    def score(terms: Terms) -> Tensor:
        x = torch.stack([terms[name] for name in names], -1)  # [episodes, Q, way, terms]
        return torch.stack([x[i] @ weights[i % 2] for i in range(len(x))])

    return score


def _fit(x: Tensor) -> Tensor:
    """Minimize the cross-entropy of x [episodes, Q, way, terms] @ weights; relative to the first."""
    weights = torch.ones(x.shape[-1], requires_grad=True)
    truth = episode_labels(WAY, x.shape[1] // WAY).expand(len(x), -1)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy((x @ weights).flatten(0, 1), truth.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()


def term(name: str) -> Score:
    """Take one term as it is."""
    return lambda terms: terms[name]


@torch.inference_mode()
def collect(network: LWFM, options: argparse.Namespace, groups: Sequence[Sequence[View]]) -> Terms:
    """Terms [episodes, Q, way] of all episodes."""
    images = open_images(options.data, options.root, split=options.split)
    shape = {"way": WAY, "shot": options.shot, "queries": options.queries}
    drawn = list(EpisodeSampler(images.labels, **shape, episodes=options.episodes, seed=options.seed))
    views = sorted({view for group in groups for view in group})
    finest = dict(views)  # the last of a layer is its finest
    head = {"layers": list(finest), "feature_size": list(finest.values()), "embedding": False}
    heads = make_heads(network, {"study": head})  # type: ignore[dict-item]
    maps = encode_images(heads.encoder, images, images_needed(drawn))
    labels = episode_labels(WAY, options.shot)
    found: dict[str, list[Tensor]] = {}
    for episode in tqdm(drawn, desc=f"{options.shot}-shot", leave=False, disable=None):
        layers = dict(zip(finest, heads.others["study"].read(maps.select(episode)), strict=True))
        pooled = {view: F.adaptive_avg_pool2d(layers[view[0]], view[1]) for view in views}
        support = {view: x[: len(labels)] for view, x in pooled.items()}
        query = {view: x[len(labels) :] for view, x in pooled.items()}
        for name, term in episode_terms(groups, support, labels, query).items():
            found.setdefault(name, []).append(term)
    return {name: torch.stack(terms) for name, terms in found.items()}


def accuracies(found: Sequence[Terms], score: Score) -> Tensor:
    """Accuracy of every episode of every network."""
    right = []
    for terms in found:
        answers = score(terms).argmax(-1)  # [episodes, Q]
        right.append((answers == episode_labels(WAY, answers.shape[1] // WAY)).double().mean(-1))
    return torch.cat(right)


def view(text: str) -> View:
    """Read ``6@6``: layer 6 at 6 x 6."""
    layer, side = text.split("@")
    return int(layer), int(side)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--pretrained", help="a backbone with ImageNet weights, in place of checkpoints")
    parser.add_argument("--image_size", type=int, help="in place of the network's own")
    parser.add_argument("--deep", nargs="+", type=view, required=True, help="LAYER@SIDE ... as in the paper")
    parser.add_argument("--fine", nargs="+", type=view, required=True, help="LAYER@SIDE ... beside them")
    parser.add_argument("--data", default="emoji")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--shot", type=int, default=1)
    parser.add_argument("--queries", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=400)
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    networks = [load_model(path) for path in options.checkpoints]
    if options.pretrained:
        networks.append(LWFM(ModelConfig(options.pretrained, weights="imagenet")).eval())
    for network in networks if options.image_size else ():
        network.config = replace(network.config, image_size=options.image_size)
    groups = (options.deep, options.fine)
    found = [collect(network, options, groups) for network in networks]
    baseline = accuracies(found, term(f"ncm {title(options.deep)}"))
    rows = {**rows_of(*groups), "fitted weights": fitted(found, *groups)}
    for name, score in rows.items():
        accuracy = accuracies(found, score)
        gain = percent(*mean_and_interval((accuracy - baseline).tolist()), "+")
        print(f"{name:<62}{percent(*mean_and_interval(accuracy.tolist())):>15}{gain:>15}", flush=True)


if __name__ == "__main__":
    main()
