"""The oracle: the mathematics of LWFM-SPM as plain, slow PyTorch and SciPy.

Every name mirrors one of :mod:`lwfm.ops` or :mod:`lwfm.nn` and computes the same thing, one (query,
support) pair and one layer at a time, in the order of the paper's equations and with the LWE weights
multiplied into the maps as the published code does. Tests and benchmarks compare with it; nothing else
uses it.

Letters: S support images, Q queries, P and M positions, C channels, C_l channels of layer l.

Source: "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot Learning", arXiv 2411.06363.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

CORRELATION_EPS = 1e-6
"""Added to squared norms in the correlation of layer-wise embedding."""
STANDARDIZE_EPS = 1e-5
"""Added to the variance when correlations are standardized."""


def linear_assignment(cost: Tensor, maximize: bool = False, cost_limit: float | None = None) -> Tensor:
    """Solve each [N, M] problem of ``cost`` [..., N, M] with SciPy: the column of each row, -1 for none.

    With a ``cost_limit``, each row and column may be left unmatched at the price of half the limit.

    Examples
    --------
    >>> linear_assignment(torch.tensor([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0]]))
    tensor([1, 0])
    """
    *batch, N, M = cost.shape
    columns = torch.full((*batch, N), -1, dtype=torch.int64)
    for index in np.ndindex(*batch):
        matrix = cost[index].detach().cpu().double().numpy()
        if cost_limit is not None and math.isfinite(cost_limit):
            matrix = _with_places_for_unmatched(matrix, maximize, cost_limit)
        rows, assigned = linear_sum_assignment(matrix, maximize)
        pairs = (rows < N) & (assigned < M)
        columns[index][torch.from_numpy(rows[pairs])] = torch.from_numpy(assigned[pairs])
    return columns.to(cost.device)


def _with_places_for_unmatched(matrix: Any, maximize: bool, cost_limit: float) -> Any:
    """Extend a matrix [N, M] to [N + M, M + N]: row i may take column M + i, row N + j column j."""
    N, M = matrix.shape
    forbidden = -math.inf if maximize else math.inf
    extended = np.full((N + M, M + N), forbidden)
    extended[:N, :M] = matrix
    extended[N:, M:] = 0.0
    np.fill_diagonal(extended[:N, M:], cost_limit / 2)
    np.fill_diagonal(extended[N:, :M], cost_limit / 2)
    return extended


def optimal_transport(cost: Tensor, row_weights: Tensor, column_weights: Tensor) -> Tensor:
    """Solve each transport problem of cost [..., N, M] with SciPy's linear programming (HiGHS) -> plan.

    Examples
    --------
    >>> optimal_transport(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.ones(2), torch.tensor([0.5, 1.5]))
    tensor([[0.5000, 0.5000],
            [0.0000, 1.0000]])
    """
    *batch, N, M = cost.shape
    plan = torch.zeros_like(cost)
    rows = row_weights.detach().cpu().double().expand(*batch, N)
    columns = column_weights.detach().cpu().double().expand(*batch, M)
    # Of the sums of rows and columns, the last one follows from the others.
    sums = np.concatenate([np.kron(np.eye(N), np.ones(M)), np.kron(np.ones(N), np.eye(M))])[:-1]
    for index in np.ndindex(*batch):
        weights = np.concatenate([rows[index].numpy(), columns[index].numpy()])[:-1]
        costs = cost[index].detach().cpu().double().numpy().ravel()
        solution = np.asarray(linprog(costs, A_eq=sums, b_eq=weights, method="highs").x)
        plan[index] = torch.from_numpy(solution.reshape(N, M))
    return plan


def transport_cost(cost: Tensor, row_weights: Tensor, column_weights: Tensor) -> Tensor:
    """Total of ``cost`` [..., N, M] over the plans of :func:`optimal_transport`, which are fixed -> [...].

    Examples
    --------
    >>> transport_cost(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), torch.ones(2), torch.tensor([0.5, 1.5]))
    tensor(1.5000)
    """
    return (cost * optimal_transport(cost, row_weights, column_weights)).sum((-1, -2))


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of x [..., C] and y [..., C] along the last dimension, clamped as torch's (eps 1e-8).

    A zero vector has cosine 0 with everything and receives no gradient: there the cosine has no
    derivative, and torch's clamp would pass 1e8 times the other vector.
    """
    x, y = (z.masked_fill((z == 0).all(-1, keepdim=True), 0) for z in (x, y))
    return F.cosine_similarity(x, y, dim=-1)


def match_pair(s: Tensor, q: Tensor) -> Tensor:
    """Assign positions of one pair: s [P, C], q [M, C] -> column of each row [P], -1 where unmatched.

    ``cost = 1 - cos(s_i, q_j)``; the assignment minimizes its total. No gradient passes.
    """
    return linear_assignment(1 - cosine(s[:, None, :], q[None, :, :]).detach())


def pair_similarity(s: Tensor, q: Tensor, columns: Tensor, top_k: int | None) -> Tensor:
    """Mean of the ``top_k`` largest cosines (None: all) over matched positions of s [P, C], q [M, C]."""
    matched = columns >= 0
    similarity = cosine(s[matched], q[columns[matched]])  # [min(P, M)]
    return similarity.topk(len(similarity) if top_k is None else top_k).values.mean()


def paired_pixel_matching(
    support: Tensor,
    query: Tensor,
    *,
    support_embedded: Tensor | None = None,
    query_embedded: Tensor | None = None,
    top_k: int | None = 1,
) -> tuple[Tensor, Tensor]:
    """Match support [B, P, C] with query [B, M, C], pair by pair -> similarity [B], assignment [B, P]."""
    support_embedded = support if support_embedded is None else support_embedded
    query_embedded = query if query_embedded is None else query_embedded
    assignment = torch.stack([match_pair(s, q) for s, q in zip(support, query, strict=True)])
    similarity = [
        pair_similarity(s, q, columns, top_k)
        for s, q, columns in zip(support_embedded, query_embedded, assignment, strict=True)
    ]
    return torch.stack(similarity), assignment


def semantic_pixel_matching(
    support: Tensor,
    query: Tensor,
    *,
    support_embedded: Tensor | None = None,
    query_embedded: Tensor | None = None,
    top_k: int | None = 1,
) -> tuple[Tensor, Tensor]:
    """Match every support [S, P, C] with every query [Q, M, C] -> similarity [Q, S], assignment [Q, S, P]."""
    rows = [
        paired_pixel_matching(
            support,
            q.expand(len(support), *q.shape),
            support_embedded=support_embedded,
            query_embedded=None
            if query_embedded is None
            else query_embedded[index].expand(len(support), *query_embedded[index].shape),
            top_k=top_k,
        )
        for index, q in enumerate(query)
    ]
    return torch.stack([similarity for similarity, _ in rows]), torch.stack([pi for _, pi in rows])


def standardize(x: Tensor, dim: int) -> Tensor:
    """``g_d``: zero mean and unit (unbiased) variance along ``dim``; a single element becomes zero."""
    variance = x.var(dim, keepdim=True) if x.shape[dim] > 1 else torch.zeros_like(x)
    return (x - x.mean(dim, keepdim=True)) / (variance + STANDARDIZE_EPS).sqrt()


def layer_wise_embedding(s: Tensor, q: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """LWE weights of one pair on one layer: s [P, C], q [M, C] -> a [P], b [M]."""
    norm_s = (s.square().sum(-1) + CORRELATION_EPS).sqrt()  # [P]
    norm_q = (q.square().sum(-1) + CORRELATION_EPS).sqrt()  # [M]
    correlation = (s @ q.T) / (norm_s[:, None] * norm_q[None, :])  # [P, M]
    a = (standardize(correlation, 0) / temperature).softmax(0).sum(1)
    b = (standardize(correlation, 1) / temperature).softmax(1).sum(0)
    return a, b


class LWFMHead(nn.Module):
    """The head of :class:`lwfm.nn.LWFMHead`, pair by pair; same arguments, same parameters, same results."""

    def __init__(
        self,
        layer_dims: Sequence[int],
        *,
        feature_size: int | Sequence[int] = 3,
        num_classes: int | None = None,
        embedding: bool = True,
        matching_weight: float = 0.25,
        attention_temperature: float | None = 5.0,
        temperature: float = 0.2,
        top_k: int | None = 1,
        layer_reduction: str = "max",
        merge_shots: bool = False,
    ) -> None:
        super().__init__()
        self.layer_dims = tuple(layer_dims)
        self.own_resolutions = not isinstance(feature_size, int)
        self.matching_weight = matching_weight
        self.attention_temperature = attention_temperature
        self.temperature = temperature
        self.top_k = top_k
        self.layer_reduction = layer_reduction
        self.merge_shots = merge_shots
        self.embeddings = nn.ModuleList()
        if embedding:
            for C_l in layer_dims:
                self.embeddings.append(
                    nn.Sequential(
                        nn.Linear(C_l, C_l // 2, bias=False),
                        nn.ReLU(),
                        nn.Linear(C_l // 2, C_l, bias=False),
                        nn.ReLU(),
                    )
                )
        self.classifier = None if num_classes is None else nn.Linear(sum(layer_dims), num_classes)

    def positions(self, maps: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Center maps [B, C, F, F] (or one per layer) and cut them into layers [B, P_l, C_l]."""
        if isinstance(maps, Tensor):
            maps = torch.split_with_sizes(maps, list(self.layer_dims), dim=1)
        layers = [x.flatten(2).transpose(1, 2) for x in maps]
        if self.own_resolutions:
            return [x - x.mean(-1, keepdim=True) for x in layers]
        mean = torch.cat(layers, dim=-1).mean(-1, keepdim=True)
        return [x - mean for x in layers]

    def pair(self, s: list[Tensor], q: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """One pair, layers s[l] [P_l, C_l] and q[l] -> weighted means [C] and [C], matched similarity []."""
        pooled_s, pooled_q, matched = [], [], []
        for layer, (s_l, q_l) in enumerate(zip(s, q, strict=True)):
            if self.attention_temperature is None:
                a, b = s_l.new_ones(len(s_l)), q_l.new_ones(len(q_l))
            else:
                a, b = layer_wise_embedding(s_l, q_l, self.attention_temperature)
            s_l, q_l = a[:, None] * s_l, b[:, None] * q_l
            pooled_s.append(s_l.mean(0))
            pooled_q.append(q_l.mean(0))
            matched.append(self.match(layer, s_l, q_l))
        return torch.cat(pooled_s), torch.cat(pooled_q), self.reduce(matched)

    def match(self, layer: int, s: Tensor, q: Tensor) -> Tensor:
        """Match positions s [P, C] and q [M, C] of one layer -> similarity []."""
        columns = match_pair(s, q)
        if self.embeddings:
            phi = self.embeddings[layer]
            s, q = s + phi(s), q + phi(q)
        return pair_similarity(s, q, columns, self.top_k)

    def reduce(self, matched: list[Tensor]) -> Tensor:
        """Make one matched similarity of those of the layers."""
        layers = torch.stack(matched)
        return layers.mean() if self.layer_reduction == "mean" else layers.max()

    def merged(self, shots: list[list[Tensor]], q: list[Tensor]) -> Tensor:
        """Match q[l] [P_l, C_l] with the positions of all shots s[l] of a class at once -> []."""
        supports = [torch.cat(layer) for layer in zip(*shots, strict=True)]
        return self.reduce(
            [self.match(layer, *pair) for layer, pair in enumerate(zip(supports, q, strict=True))]
        )

    def forward(
        self, support: Tensor | Sequence[Tensor], support_labels: Tensor, query: Tensor | Sequence[Tensor]
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [Q, way], and class logits [Q, num_classes] in training with a classifier."""
        support_layers, query_layers = self.positions(support), self.positions(query)
        way = int(support_labels.max()) + 1
        logits, features = [], []
        for index in range(len(query_layers[0])):
            pairs = [
                self.pair([s[shot] for s in support_layers], [q[index] for q in query_layers])
                for shot in range(len(support_labels))
            ]
            row, read = [], []
            for label in range(way):
                of_class = [pair for pair, own in zip(pairs, support_labels, strict=True) if own == label]
                pooled_s = torch.stack([pair[0] for pair in of_class]).mean(0)  # [C]
                pooled_q = torch.stack([pair[1] for pair in of_class]).mean(0)  # [C]
                spm = self.matching_weight * torch.stack([pair[2] for pair in of_class]).mean()
                if self.merge_shots:
                    shots = [
                        [s[shot] for s in support_layers]
                        for shot in (support_labels == label).nonzero()[:, 0]
                    ]
                    spm = self.matching_weight * self.merged(shots, [q_l[index] for q_l in query_layers])
                row.append((cosine(pooled_s, pooled_q) + spm) / self.temperature)
                read.append(pooled_q)
            logits.append(torch.stack(row))
            features.append(torch.stack(read).mean(0))
        if self.training and self.classifier is not None:
            return torch.stack(logits), self.classifier(torch.stack(features))
        return torch.stack(logits)
