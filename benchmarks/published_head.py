"""The head step by step as published: pairs copied out into maps, one SciPy call per assignment.

The order of the steps, the layout of every tensor and the dimension of every sum are those of the published
implementation, in words of our own:

1. maps are centered over all channels, both sides repeated for every pair, then cut into layers;
2. each layer of each repeated map is divided by its norms, and a batched product correlates the pairs;
3. correlations are standardized and softened over either side, for all layers at once;
4. attention is spread over the channels of its layer, side by side, and multiplies the maps [Q, S, C, F, F];
5. costs come from a product and norms of the weighted maps of every pair, channels apart as they lie there;
6. SciPy assigns one pair after the other on the host; matched positions are gathered and embedded pair by
   pair, then compared;
7. maps of full size are averaged over shots, and only then over positions.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

import lwfm.reference
from lwfm.reference import CORRELATION_EPS, STANDARDIZE_EPS

if TYPE_CHECKING:
    from collections.abc import Sequence


class NaiveHead(lwfm.reference.LWFMHead):
    """:class:`lwfm.nn.LWFMHead` as published; for equal layers, equal shots and ``top_k`` 1."""

    def forward(
        self, support: Tensor | Sequence[Tensor], support_labels: Tensor, query: Tensor | Sequence[Tensor]
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Compute logits [Q, way] from maps with layers of one size, and class logits in training."""
        if not isinstance(support, Tensor) or not isinstance(query, Tensor):
            raise TypeError("the naive head takes one tensor of maps each")
        by_class = support_labels.argsort(stable=True).view(int(support_labels.max()) + 1, -1)  # [way, shot]
        s, q = (x - x.mean(1).unsqueeze(1) for x in (support[by_class.T.flatten()], query))  # shots outermost
        a, b = self._attention(self._correlation(s, q))  # [Q, S, L, F, F]
        s, q = self._spread(a) * s.unsqueeze(0), self._spread(b) * q.unsqueeze(1)  # [Q, S, C, F, F]
        similarity = torch.stack(self._matched(s, q), 1).max(1).values  # [Q, S]
        shots = (by_class.shape[1], by_class.shape[0])
        if shots[0] > 1:
            s, q = (x.view(len(x), *shots, *x.shape[2:]).mean(1) for x in (s, q))  # [Q, way, C, F, F]
        mean_s, mean_q = (x.mean((-1, -2)) for x in (s, q))  # [Q, way, C]
        similarity = similarity.view(-1, *shots).mean(1) + F.cosine_similarity(mean_s, mean_q, dim=-1)
        logits = similarity / self.temperature
        if self.training and self.classifier is not None:
            return logits, self.classifier(mean_q.mean(1))
        return logits

    def _correlation(self, s: Tensor, q: Tensor) -> Tensor:
        """Correlate s [S, C, F, F] with q [Q, C, F, F] -> [Q, S, L, F, F, F, F]."""
        S, Q, sizes = len(s), len(q), s.shape[2:]
        repeated = (s.unsqueeze(0).repeat(Q, 1, 1, 1, 1), q.unsqueeze(1).repeat(1, S, 1, 1, 1))
        layers = (torch.split_with_sizes(x.flatten(0, 1), list(self.layer_dims), 1) for x in repeated)
        products = []
        for pair in zip(*layers, strict=True):
            unit_s, unit_q = (self._unit(x).flatten(2) for x in pair)  # [Q S, C_l, P]
            products.append(unit_s.transpose(1, 2) @ unit_q)
        return torch.stack(products, 1).view(Q, S, len(products), *sizes, *sizes)

    @staticmethod
    def _unit(x: Tensor) -> Tensor:
        norm = (x.pow(2).sum(1) + CORRELATION_EPS).pow(0.5)
        return x / norm.unsqueeze(1).expand_as(x)

    def _attention(self, correlation: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the weights of the positions of both sides, each [Q, S, L, F, F]."""
        over_s, over_q = correlation.flatten(3, 4), correlation.flatten(5, 6)
        temperature = math.inf if self.attention_temperature is None else self.attention_temperature
        soft_s = (self._standardize(over_s, 3) / temperature).softmax(3)
        soft_q = (self._standardize(over_q, 5) / temperature).softmax(5)
        return soft_s.view_as(correlation).sum((5, 6)), soft_q.view_as(correlation).sum((3, 4))

    @staticmethod
    def _standardize(x: Tensor, dim: int) -> Tensor:
        mean, variance = x.mean(dim, keepdim=True), x.var(dim, keepdim=True)
        return (x - mean) / (variance + STANDARDIZE_EPS).sqrt()

    def _spread(self, weights: Tensor) -> Tensor:
        """Repeat the weights [Q, S, L, F, F] for every channel of their layer -> [Q, S, C, F, F]."""
        layers = [
            weights[:, :, layer].unsqueeze(2).expand(-1, -1, C_l, -1, -1)
            for layer, C_l in enumerate(self.layer_dims)
        ]
        return torch.cat(layers, dim=2)

    def _matched(self, s: Tensor, q: Tensor) -> list[Tensor]:
        """Match the weighted maps [Q, S, C, F, F] -> the weighted similarity of each layer, [Q, S]."""
        pairs = (
            torch.split_with_sizes(x.flatten(0, 1).flatten(2).permute(0, 2, 1), list(self.layer_dims), dim=-1)
            for x in (s, q)
        )
        similarities = []
        for layer, (s_l, q_l) in enumerate(zip(*pairs, strict=True)):  # [Q S, P, C_l], strided
            compared = F.cosine_similarity(*self._aligned(layer, s_l, q_l), dim=-1)  # [Q S, P]
            best = compared.view(*s.shape[:2], -1).topk(1, dim=-1).values.sum(-1)
            similarities.append(best * self.matching_weight)
        return similarities

    def _aligned(self, layer: int, s: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions of both sides in matched order, embedded: [Q S, P, C_l] each."""
        norms = [x.norm(p=2, dim=-1, keepdim=True) for x in (s, q)]
        cost = 1 - (s @ q.transpose(1, 2)) / (norms[0] * norms[1].transpose(1, 2))
        chosen = [linear_sum_assignment(each) for each in cost.detach().cpu()]
        sides = (torch.from_numpy(np.array(side)).to(cost.device) for side in zip(*chosen, strict=True))
        aligned = [
            x.gather(1, order.unsqueeze(-1).repeat(1, 1, x.shape[-1]))
            for x, order in zip((s, q), sides, strict=True)
        ]
        if self.embeddings:
            phi = self.embeddings[layer]
            aligned = [x + phi(x) for x in aligned]
        return aligned[0], aligned[1]
