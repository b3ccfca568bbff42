"""The hardest episodes of an evaluation, recomputed from its data and its model."""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast, get_args

import torch

from lwfm.classifier.support_set import most_similar
from lwfm.data import EpisodeSampler, episode_labels, open_images
from lwfm.data.image_sets import DataName
from lwfm.errors import UserError
from lwfm.evaluation import open_network
from lwfm.evaluation.cached_maps import compute_maps
from lwfm.figures import match_images
from lwfm.model import ModelConfig
from lwfm.report.charts import embedding_figure, figure_uri, image_uri

if TYPE_CHECKING:
    from torch import Tensor

    from lwfm.data import ImageSet
    from lwfm.evaluation.results import EvaluationResult, MethodResult
    from lwfm.model import LWFM
    from lwfm.nn import EncodedMaps, EpisodeSimilarities

_WRONG_SHOWN = 12


@dataclass(frozen=True)
class WrongAnswer:
    """A misclassified query: ``data:`` address of the image, both class names."""

    image: str
    truth: str
    answer: str


@dataclass(frozen=True)
class HardEpisode:
    """An episode with its images.

    Attributes
    ----------
    number : int
        Number in the evaluation, from 1.
    accuracy, way, shot : float, int, int
        Of the whole method in this episode, and its numbers of classes and shots.
    support : dict of str to list of str
        ``data:`` addresses of the support images of each class.
    wrong : list of WrongAnswer
        The misclassified queries, at most 12.
    match : str or None
        ``data:`` address of a figure: the first of them matched with the most similar support image of the
        predicted class.
    """

    number: int
    accuracy: float
    way: int
    shot: int
    support: dict[str, list[str]]
    wrong: list[WrongAnswer]
    match: str | None


@dataclass(frozen=True)
class Redrawn:
    """Hard episodes, and the embedding map of the hardest: a ``data:`` address, None without scikit-learn."""

    episodes: list[HardEpisode]
    embedding_map: str | None


def redraw(
    result: EvaluationResult, *, hardest: int, root: Path | None, checkpoint: Path | None = None
) -> Redrawn:
    """Recompute the hardest episodes of the method ``lwfm``, for each number of ways and shots.

    Parameters
    ----------
    result : EvaluationResult
        Names the data, the model and the options.
    hardest : int
        Number of episodes for each number of ways and shots.
    root : Path, optional
        Present folder of the data; by default the one of the evaluation.
    checkpoint : Path, optional
        Present place of the model; by default the one of the evaluation.

    Raises
    ------
    UserError
        When the data or the checkpoint are gone, or have changed since the evaluation.
    """
    images = _reopen(result, root)
    network = _reload(result, images, checkpoint)
    options = result.options
    episodes: list[HardEpisode] = []
    embedding_map: str | None = None
    for method in (m for m in result.methods if m.method == "lwfm"):
        sampler = EpisodeSampler(
            images.labels,
            way=method.way,
            shot=method.shot,
            queries=options["queries"],
            episodes=options["episodes"],
            seed=options["seed"],
            classes=images.classes,
        )
        order = sorted(range(len(method.episode_accuracy)), key=lambda i: (method.episode_accuracy[i], i))
        for number in order[:hardest]:
            episode = _compare(network, images, sampler.episode(number), method)
            episodes.append(_show(network, images, episode, method, number))
            if embedding_map is None:
                embedding_map = _embedding_map(images, episode)
    return Redrawn(episodes, embedding_map)


def _reopen(result: EvaluationResult, root: Path | None) -> ImageSet:
    place = root or result.data["root"]
    named = result.data["name"] in get_args(DataName)
    data = cast("DataName", result.data["name"] if named else "folder")
    if place is not None and not Path(place).is_dir():
        raise UserError(f"there is no folder {place}: name its present place by --root FOLDER")
    # The fingerprint tells whether the same images are left out: no image need be readable.
    with warnings.catch_warnings(record=True) as left_out:
        warnings.simplefilter("always")
        images = open_images(
            data,
            place,
            split=result.data["split"],
            unreadable="skip",
            class_split=result.options.get("class_split"),
            crop=result.options.get("crop", False),
        )
    if images.fingerprint != result.data["fingerprint"]:
        details = "".join(f"; {warning.message}" for warning in left_out)
        raise UserError(f"the images of {place or data} are not those that were evaluated{details}")
    return images


def _reload(result: EvaluationResult, images: ImageSet, checkpoint: Path | None) -> LWFM:
    place = result.model["checkpoint"]
    if place is not None:
        path = checkpoint or Path(place)
        if not path.is_file():
            raise UserError(f"there is no model {path}: name its present place by --checkpoint FILE")
        if hashlib.sha256(path.read_bytes()).hexdigest() != result.model["sha256"]:
            raise UserError(f"the model {path} is not the one that was evaluated")
        return open_network(path, None, images, result.options["seed"])
    config = ModelConfig.from_dict(result.model["config"])
    return open_network(None, config, images, result.options["seed"])


class _Episode(NamedTuple):
    """An episode compared again: the images drawn, support images first, and their similarities."""

    drawn: list[int]
    labels: Tensor
    """[S] int64."""
    support: EncodedMaps
    query: EncodedMaps
    similarities: EpisodeSimilarities


@torch.inference_mode()
def _compare(network: LWFM, images: ImageSet, drawn: list[int], method: MethodResult) -> _Episode:
    encoded = network.head.encode(compute_maps(network, images, sorted(drawn)).select(drawn))
    labels = episode_labels(method.way, method.shot)
    support, query = encoded[: len(labels)], encoded[len(labels) :]
    similarities = network.head.compare(support, labels, query, features=True)
    return _Episode(drawn, labels, support, query, similarities)


@torch.inference_mode()
def _show(
    network: LWFM, images: ImageSet, episode: _Episode, method: MethodResult, number: int
) -> HardEpisode:
    """Return the images of the episode, misclassified queries and a match."""
    way, drawn, supports = method.way, episode.drawn, len(episode.labels)
    answers = network.head.logits(episode.similarities).argmax(-1)  # [Q]
    truth = episode_labels(way, len(answers) // way)
    classes = [images.names[index].split("/")[0] for index in drawn[:way]]
    wrong = (answers != truth).nonzero().squeeze(1).tolist()[:_WRONG_SHOWN]
    match = None
    if wrong:
        first = wrong[:1]
        known = episode.support, episode.labels
        nearest = int(most_similar(network.head, *known, episode.query[first], answers[first])[0])
        pair = drawn[nearest], drawn[supports + wrong[0]]
        shown = (images.image(index) for index in pair)
        match = figure_uri(match_images(network, *shown, task=episode.support)[0])
    return HardEpisode(
        number=number + 1,
        accuracy=method.episode_accuracy[number],
        way=way,
        shot=method.shot,
        support={
            name: [image_uri(images.image(index)) for index in drawn[label:supports:way]]
            for label, name in enumerate(classes)
        },
        wrong=[
            WrongAnswer(
                image_uri(images.image(drawn[supports + index])),
                classes[int(truth[index])],
                classes[int(answers[index])],
            )
            for index in wrong
        ],
        match=match,
    )


@torch.inference_mode()
def _embedding_map(images: ImageSet, episode: _Episode) -> str | None:
    """Draw t-SNE of the queries of one episode; None without scikit-learn or with fewer than four queries."""
    weighted = cast("Tensor", episode.similarities.query_features)
    plain = torch.cat([layer.mean(1) for layer in episode.query.positions], dim=-1)  # [Q, C], centered
    names = [images.names[index].split("/")[0] for index in episode.drawn[len(episode.labels) :]]
    try:
        return figure_uri(embedding_figure(plain, weighted, names)) if len(names) > 3 else None
    except ModuleNotFoundError:
        return None


def facts(result: EvaluationResult) -> dict[str, dict[str, Any]]:
    """Return everything needed to repeat the evaluation, by topic."""
    data = {**result.data, "classes": len(result.data["classes"])}
    return {
        "model": {name: value for name, value in result.model.items() if name != "config"},
        "model options": result.model["config"],
        "data": data,
        "options": dict(result.options),
        "versions": result.versions,
        "machine": {**result.machine, "seconds": result.seconds},
    }
