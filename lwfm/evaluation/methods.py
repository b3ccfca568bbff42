"""Methods of an evaluation: what each keeps of an image, and its scores of many episodes at once.

Letters: n images, E episodes, S support images and Q queries of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F

from lwfm.nn import EncodedMaps, global_features
from lwfm.nn.baselines.class_means import class_mean_cosines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from lwfm.nn import ClassLists, LWFMHead
    from lwfm.nn.baselines import Baseline

NETWORK_HEAD = "lwfm"
BASELINE = "nearest_class_mean"
METHODS = (NETWORK_HEAD, "base", "matching", BASELINE)
"""Methods of every evaluation: the whole head, its base term alone, its matching term alone, the baseline."""


class Method(Protocol):
    """What an evaluation measures."""

    @property
    def name(self) -> str:
        """Name of the method, and in the progress bar."""

    def encode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Compute from cached layers [n, C_l, F, F] all that episodes need: tensors [n, ...] by name."""

    def scores(
        self, images: Mapping[str, Tensor], support: Tensor, query: Tensor, classes: ClassLists
    ) -> dict[str, Tensor]:
        """Compute [E, Q, way], by methods, from lists [E, S] and [E, Q] of encoded images."""


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
    name : str
        Of the method; both terms of the head of the network, ``lwfm``, are methods too.
    """

    head: LWFMHead
    places: tuple[int, ...]
    sizes: tuple[int, ...]
    name: str = NETWORK_HEAD

    @classmethod
    def whole(cls, head: LWFMHead) -> HeadOnMaps:
        """Read all layers at their own size."""
        return cls(head, tuple(range(len(head.layout.sizes))), head.layout.sizes)

    def read(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Choose from the cached layers [n, C_l, F, F] and pool them to [n, C_l, F_l, F_l]."""
        return _pooled(maps, self.places, self.sizes)

    def encode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Encode images for the head."""
        return self.head.encode(self.read(maps)).tensors()

    def scores(
        self, images: Mapping[str, Tensor], support: Tensor, query: Tensor, classes: ClassLists
    ) -> dict[str, Tensor]:
        """Compute the sum of the terms, and each for the network's head; no ``matching`` at a weight of 0."""
        terms = self.head.compare_episodes(EncodedMaps.from_tensors(images), support, query, classes)
        scores = {self.name: terms.total}
        if self.name == NETWORK_HEAD:
            scores["base"] = terms.base
            if self.head.matching_weight > 0:
                scores["matching"] = terms.matching
        return scores


@dataclass(frozen=True)
class BaselineOnMaps:
    """A baseline on maps that were encoded for several heads, its layers side by side.

    Attributes
    ----------
    baseline : Baseline
        Scores episodes one by one.
    places : tuple of int
        Indices of the cached layers it compares.
    size : int
        Side F to which it pools them.
    name : str
        Of the method.
    """

    baseline: Baseline
    places: tuple[int, ...]
    size: int
    name: str

    def encode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Lay out images as positions [n, P, C]."""
        layers = _pooled(maps, self.places, (self.size,) * len(self.places))
        return {"positions": torch.cat([x.flatten(2) for x in layers], dim=1).transpose(1, 2).contiguous()}

    def scores(
        self, images: Mapping[str, Tensor], support: Tensor, query: Tensor, classes: ClassLists
    ) -> dict[str, Tensor]:
        """Compute the scores of one episode after the other."""
        positions = images["positions"]
        pairs = zip(support, query, strict=True)
        return {
            self.name: torch.stack([self.baseline(positions[s], classes, positions[q]) for s, q in pairs])
        }


def _pooled(maps: Sequence[Tensor], places: Sequence[int], sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Choose from cached layers [n, C_l, F, F] and pool them to [n, C_l, F_l, F_l]."""
    return tuple(
        maps[place] if maps[place].shape[-1] == size else F.adaptive_avg_pool2d(maps[place], size)
        for place, size in zip(places, sizes, strict=True)
    )


class NearestClassMean:
    """The baseline: cosine of globally averaged features with the mean of each class."""

    name = BASELINE

    def encode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Average the maps of images."""
        return {"features": global_features(maps)}

    def scores(
        self, images: Mapping[str, Tensor], support: Tensor, query: Tensor, classes: ClassLists
    ) -> dict[str, Tensor]:
        """Compute the cosines."""
        features = images["features"]
        return {BASELINE: class_mean_cosines(features[support], classes, features[query])}
