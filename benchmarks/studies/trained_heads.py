"""Heads of a study that can be trained and that the package does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.studies.terms import WEIGHTS_TEMPERATURE, weighted
from lwfm.nn import EpisodeSimilarities, LWFMHead
from lwfm.nn.class_means import ClassShots
from lwfm.ops import layer_wise_embedding, linear_assignment

if TYPE_CHECKING:
    from lwfm.nn.positions import Maps


class LearnedWeights(LWFMHead):
    """A weight is learned for each layer's matches, and so their balance with the base term.

    All begin at 1 / layers, so that the head starts as the one with ``layer_reduction="mean"``.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        layers = len(self.layout.dims)
        self.weights = nn.Parameter(torch.full((layers,), 1 / layers))

    def _over_layers(self, similarities: Tensor) -> Tensor:
        return torch.einsum("l,lqs->qs", self.weights, similarities)


class WeightedMatches(LWFMHead):
    """The average of all matched pairs, each weighed by layer-wise embedding at both of its ends."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "matching_weight": 0.0})
        self.balance = options["matching_weight"]

    def similarities(self, support: Maps, support_labels: Tensor, query: Maps) -> EpisodeSimilarities:
        parts = super().similarities(support, support_labels, query)
        with torch.autocast(support_labels.device.type, enabled=False):
            pairs = zip(
                self.layout.positions(support, "support"), self.layout.positions(query, "query"), strict=True
            )
            layers = torch.stack([weighted_matching(s.features, q.features) for s, q in pairs])  # [L, Q, S]
            shots = ClassShots(support_labels, layers.shape[-1])
            matching = shots.mean_over_class(layers.mean(0).unsqueeze(-1)).squeeze(-1)
        return parts._replace(matching=self.balance * matching)


def weighted_matching(s: Tensor, q: Tensor) -> Tensor:
    """Compare positions s [S, P, C] with q [Q, M, C] -> [Q, S], differentiable."""
    cosines = torch.einsum("spc,qmc->qspm", F.normalize(s, dim=-1), F.normalize(q, dim=-1))
    columns = linear_assignment(1 - cosines.detach())  # [Q, S, P]
    matched = cosines.gather(-1, columns.unsqueeze(-1)).squeeze(-1)
    return weighted(matched, columns, *layer_wise_embedding(s, q, temperature=WEIGHTS_TEMPERATURE))
