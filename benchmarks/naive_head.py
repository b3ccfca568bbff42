"""The head as published: every (query, support) pair expanded into maps, one SciPy call per assignment."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        layers = zip(self.positions(support), self.positions(query), strict=True)
        pooled_s, pooled_q, matched = zip(
            *(self._layer(number, s, q) for number, (s, q) in enumerate(layers)), strict=True
        )
        share = F.one_hot(support_labels).float()
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
        """One layer: s [S, P, C_l], q [Q, P, C_l] -> pooled maps [Q, S, C_l] twice, similarity [Q, S]."""
        (S, P, C_l), Q = s.shape, len(q)
        s = s.expand(Q, S, P, C_l).reshape(Q * S, P, C_l)
        q = q.unsqueeze(1).expand(Q, S, P, C_l).reshape(Q * S, P, C_l)
        norms = [(x.square().sum(-1) + CORRELATION_EPS).sqrt() for x in (s, q)]
        correlation = (s @ q.transpose(1, 2)) / (norms[0].unsqueeze(2) * norms[1].unsqueeze(1))
        a = (standardise(correlation, 1) / self.attention_temperature).softmax(1).sum(2)
        b = (standardise(correlation, 2) / self.attention_temperature).softmax(2).sum(1)
        s, q = a.unsqueeze(2) * s, b.unsqueeze(2) * q
        pooled = [x.mean(1).view(Q, S, C_l) for x in (s, q)]
        cost = 1 - F.normalize(s.detach(), dim=-1) @ F.normalize(q.detach(), dim=-1).transpose(1, 2)
        columns = torch.stack([torch.from_numpy(linear_sum_assignment(x)[1]) for x in cost.numpy()])
        q = q.gather(1, columns.unsqueeze(-1).expand_as(q))
        if self.embeddings:
            phi = self.embeddings[number]
            s, q = s + phi(s), q + phi(q)
        return pooled[0], pooled[1], F.cosine_similarity(s, q, dim=-1).amax(-1).view(Q, S)
