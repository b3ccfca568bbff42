"""Episodes on cached maps: all methods see the same maps of the same images."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lwfm._common.progress import progress
from lwfm.data import episode_labels
from lwfm.nn.baseline import nearest_class_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lwfm.evaluation.cached_maps import CachedMaps
    from lwfm.nn import LWFMHead

BASELINE = "nearest_class_mean"
METHODS = ("lwfm", "base", "matching", BASELINE)
"""Methods compared: the whole head, its base term alone, its matching term alone, and the baseline."""


@dataclass(frozen=True)
class HeadOnMaps:
    """A head on maps that were encoded for several heads.

    Attributes
    ----------
    head : LWFMHead
        In evaluation mode.
    places : tuple of int
        Indices of the cached layers it compares.
    sizes : tuple of int
        Sides F_l to which it pools them.
    """

    head: LWFMHead
    places: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def whole(cls, head: LWFMHead) -> HeadOnMaps:
        """Read all layers at their own size."""
        return cls(head, tuple(range(len(head.layout.sizes))), head.layout.sizes)

    def read(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Choose from the cached layers [B, C_l, F, F] and pool them to [B, C_l, F_l, F_l]."""
        return tuple(
            maps[place] if maps[place].shape[-1] == size else F.adaptive_avg_pool2d(maps[place], size)
            for place, size in zip(self.places, self.sizes, strict=True)
        )


def episode_scores(
    head: LWFMHead, support: Sequence[Tensor], support_labels: Tensor, query: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Compute each method's scores [Q, way] on one episode; ``matching`` is missing where its weight is 0."""
    similarities = head.similarities(support, support_labels, query)
    scores = {"lwfm": similarities.base + similarities.matching, "base": similarities.base}
    if head.matching_weight > 0:
        scores["matching"] = similarities.matching
    scores[BASELINE] = nearest_class_mean(support, support_labels, query)
    return scores


@torch.inference_mode()
def run_episodes(
    head: LWFMHead | HeadOnMaps,
    maps: CachedMaps,
    episodes: Sequence[Sequence[int]],
    *,
    way: int,
    shot: int,
    others: Mapping[str, HeadOnMaps] = MappingProxyType({}),
    bar: bool = True,
) -> dict[str, Tensor]:
    """Classify the queries of many episodes by every method.

    Parameters
    ----------
    head : LWFMHead or HeadOnMaps
        In evaluation mode; a head alone compares all layers at their own size.
    maps : CachedMaps
        Of at least the images in ``episodes``.
    episodes : sequence of sequence of int
        Image indices as :class:`lwfm.data.EpisodeSampler` gives them: way * shot support images
        (label = position mod way), then the queries, ordered alike.
    way, shot : int
        Classes, and support images of each, in an episode.
    others : dict of str to HeadOnMaps
        Further heads, each a method of its name.
    bar : bool
        Whether to show a progress bar on a terminal.

    Returns
    -------
    dict of str to Tensor
        For each method, [episodes, Q] int64 on the CPU: the predicted class of each query, in 0..way-1. Their
        true classes are :func:`lwfm.data.episode_labels`, see :func:`accuracy_of`.
    """
    device = maps.layers[0].device
    supports = way * shot
    support_labels = episode_labels(way, shot).to(device)
    answers: dict[str, list[Tensor]] = {}
    own = head if isinstance(head, HeadOnMaps) else HeadOnMaps.whole(head)
    for episode in progress(episodes, f"{way}-way {shot}-shot", "episode", show=bar):
        support, query = maps.select(episode[:supports]), maps.select(episode[supports:])
        scored = episode_scores(own.head, own.read(support), support_labels, own.read(query))
        for name, other in others.items():
            parts = other.head.similarities(other.read(support), support_labels, other.read(query))
            scored[name] = parts.base + parts.matching
        for method, scores in scored.items():
            answers.setdefault(method, []).append(scores.argmax(-1))
    return {method: torch.stack(given).cpu() for method, given in answers.items()}


def accuracy_of(answers: Tensor, way: int) -> Tensor:
    """Return the fraction of correct answers [episodes, Q] of :func:`run_episodes`.

    Examples
    --------
    >>> accuracy_of(torch.tensor([[0, 1, 0, 0]]), way=2)
    tensor(0.7500)
    """
    return (answers == episode_labels(way, answers.shape[1] // way)).float().mean()
