"""Methods of an evaluation: what each keeps of an image, and its scores of many episodes at once.

Letters: n images, E episodes, S support images and Q queries of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from lwfm.data.center_crop import VIEWS
from lwfm.nn import ClassLists, EncodedMaps, global_features
from lwfm.nn.baselines.class_means import class_mean_cosines
from lwfm.nn.regression import image_statistics

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from lwfm.nn import LWFMHead
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

    @property
    def views(self) -> bool:
        """Whether it learns from further views of the support images."""

    def encode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Compute from cached maps [n, C_l, F_l, F_l] all that episodes need: tensors [n, ...] by name."""

    def encode_views(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Compute from cached maps [n * V, C_l, F_l, F_l] of views what :attr:`views` needs, [n, V, ...]."""

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
        Indices of the cached maps it compares.
    name : str
        Of the method; both terms of the head of the network, ``lwfm``, are methods too.
    views : bool
        Whether its regression learns from further views.
    """

    head: LWFMHead
    places: tuple[int, ...]
    name: str = NETWORK_HEAD
    views: bool = False

    @classmethod
    def whole(cls, head: LWFMHead) -> HeadOnMaps:
        """Compare all cached maps."""
        return cls(head, tuple(range(len(head.layout.sizes))))

    def read(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Choose from the cached maps [n, C_l, F_l, F_l]."""
        return tuple(maps[place] for place in self.places)

    def encode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Encode images for the head."""
        return self.head.encode(self.read(maps)).tensors()

    def encode_views(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Compute the statistics of views."""
        statistics = image_statistics(self.head.encode(self.read(maps)))
        return {f"views.{kind}": x.view(-1, VIEWS, x.shape[1]) for kind, x in enumerate(statistics)}

    def scores(
        self, images: Mapping[str, Tensor], support: Tensor, query: Tensor, classes: ClassLists
    ) -> dict[str, Tensor]:
        """Compute the sum of the terms, and each for the network's head; no ``matching`` at a weight of 0."""
        kinds = sum(name.startswith("views.") for name in images)
        views = [images[f"views.{kind}"] for kind in range(kinds)] or None
        encoded = EncodedMaps.from_tensors(images)
        terms = self.head.compare_episodes(encoded, support, query, classes, views=views)
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
        Indices of the cached maps it compares, all of one side.
    name : str
        Of the method.
    views : bool
        Whether further views of the support images are further shots.
    """

    baseline: Baseline
    places: tuple[int, ...]
    name: str
    views: bool = False

    def encode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Lay out images as positions [n, P, C]."""
        layers = [maps[place].flatten(2) for place in self.places]
        return {"positions": torch.cat(layers, dim=1).transpose(1, 2).contiguous()}

    def encode_views(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Lay out views as positions [n, V, P, C]."""
        positions = self.encode(maps)["positions"]
        return {"views": positions.view(-1, VIEWS, *positions.shape[1:])}

    def scores(
        self, images: Mapping[str, Tensor], support: Tensor, query: Tensor, classes: ClassLists
    ) -> dict[str, Tensor]:
        """Compute the scores of one episode after the other."""
        positions, views = images["positions"], images.get("views")
        if views is not None:
            alike = 1 + views.shape[1]
            classes = ClassLists(
                [label for label in classes.labels for _ in range(alike)], device=support.device
            )
        scores = []
        for s, q in zip(support, query, strict=True):
            shots = positions[s]
            if views is not None:
                shots = torch.cat([shots.unsqueeze(1), views[s]], 1).flatten(0, 1)
            scores.append(self.baseline(shots, classes, positions[q]))
        return {self.name: torch.stack(scores)}


@dataclass(frozen=True)
class NearestClassMean:
    """The baseline: cosine of globally averaged features with the mean of each class.

    ``places`` are the indices of the cached maps that are averaged: those that the network's head compares.
    """

    places: tuple[int, ...]
    name, views = BASELINE, False

    def encode_views(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """Return nothing: it uses none."""
        return {}

    def encode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """Average the maps of images."""
        return {"features": global_features([maps[place] for place in self.places])}

    def scores(
        self, images: Mapping[str, Tensor], support: Tensor, query: Tensor, classes: ClassLists
    ) -> dict[str, Tensor]:
        """Compute the cosines."""
        features = images["features"]
        return {BASELINE: class_mean_cosines(features[support], classes, features[query])}
