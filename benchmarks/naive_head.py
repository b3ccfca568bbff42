"""The head step by step as published: pairs copied out into maps, one SciPy call per assignment.

The steps are those of the method's public code family (RENet's cross-correlational attention and its
descendants): both sides are repeated for every pair, their six-dimensional correlation comes from an einsum,
attention maps multiply the repeated maps, and matched positions pass the embedding pair by pair.
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
from lwfm.reference import CORRELATION_EPS, standardise

if TYPE_CHECKING:
    from collections.abc import Sequence


class NaiveHead(lwfm.reference.LWFMHead):
    """Same arguments, parameters and results as :class:`lwfm.nn.LWFMHead`; equal layers, ``top_k`` 1."""

    def forward(
        self, support: Tensor | Sequence[Tensor], support_labels: Tensor, query: Tensor | Sequence[Tensor]
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [Q, way] from maps with layers of one size, and class logits in training."""
        if not isinstance(support, Tensor) or not isinstance(query, Tensor):
            raise TypeError("the naive head takes one tensor of maps each")
        s, q = (x - x.mean(1, keepdim=True) for x in (support, query))
        dims = list(self.layer_dims)
        layers = zip(*(torch.split_with_sizes(x, dims, dim=1) for x in (s, q)), strict=True)
        pooled_s, pooled_q, matched = zip(
            *(self._layer(number, *layer) for number, layer in enumerate(layers)), strict=True
        )
        share = F.one_hot(support_labels).to(s.dtype)
        share = share / share.sum(0)  # [S, way]
        mean_s, mean_q = (
            torch.einsum("qsc,sw->qwc", torch.cat(pooled, -1), share) for pooled in (pooled_s, pooled_q)
        )
        spm = self.matching_weight * (torch.stack(matched).amax(0) @ share)  # [Q, way]
        logits = (F.cosine_similarity(mean_s, mean_q, dim=-1) + spm) / self.temperature
        if self.training and self.classifier is not None:
            return logits, self.classifier(mean_q.mean(1))
        return logits

    def _layer(self, number: int, s: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One layer: s [S, C_l, F, F], q [Q, C_l, F, F] -> pooled [Q, S, C_l] twice, similarity [Q, S]."""
        (S, C_l, size, _), Q = s.shape, len(q)
        s, q = s.unsqueeze(0).repeat(Q, 1, 1, 1, 1), q.unsqueeze(1).repeat(1, S, 1, 1, 1)
        unit_s, unit_q = (x / (x.square().sum(2, keepdim=True) + CORRELATION_EPS).sqrt() for x in (s, q))
        correlation = torch.einsum("qscij,qsckl->qsijkl", unit_s, unit_q)
        flat = (Q, S, size * size, size * size)
        temperature = math.inf if self.attention_temperature is None else self.attention_temperature
        over_s = standardise(correlation.reshape(flat), 2) / temperature
        over_q = standardise(correlation.reshape(flat), 3) / temperature
        a = over_s.softmax(2).view_as(correlation).sum((4, 5))  # [Q, S, F, F]
        b = over_q.softmax(3).view_as(correlation).sum((2, 3))
        s, q = s * a.unsqueeze(2), q * b.unsqueeze(2)  # [Q, S, C_l, F, F]
        pooled = [x.mean((3, 4)) for x in (s, q)]
        vectors = [x.flatten(3).transpose(2, 3).reshape(Q * S, size * size, C_l) for x in (s, q)]
        return pooled[0], pooled[1], self._match(number, *vectors).view(Q, S)

    def _match(self, number: int, s: Tensor, q: Tensor) -> Tensor:
        """Paired positions s, q [pairs, P, C_l] -> similarity of the best matched pair, [pairs]."""
        norms = s.norm(dim=-1, keepdim=True) * q.norm(dim=-1, keepdim=True).transpose(1, 2)
        cost = (1 - s @ q.transpose(1, 2) / norms).detach()
        chosen = [linear_sum_assignment(each) for each in cost.cpu()]
        rows, columns = (
            torch.from_numpy(np.array(side)).to(cost.device) for side in zip(*chosen, strict=True)
        )
        s = s.gather(1, rows.unsqueeze(-1).repeat(1, 1, s.shape[-1]))
        q = q.gather(1, columns.unsqueeze(-1).repeat(1, 1, q.shape[-1]))
        if self.embeddings:
            phi = self.embeddings[number]
            s, q = s + phi(s), q + phi(q)
        return F.cosine_similarity(s, q, dim=-1).amax(-1)
