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
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

# Positions [P, C] of an image and layer as they are compared, and before they are centered by the task.
Positions: TypeAlias = tuple[Tensor, Tensor]

CORRELATION_EPS = 1e-6
"""Added to squared norms in the correlation of layer-wise embedding."""
STANDARDIZE_EPS = 1e-5
"""Added to the variance when correlations are standardized."""
REGRESSION_RIDGE = 0.3
"""Penalty of the regression."""
REGRESSION_SHARES = {True: (1.0, 0.25), False: (0.125, 0.125)}
"""Shares of mean and spread, of the last layer and of others."""
REGRESSION_FLOOR = 1e-3
"""Differences from the mean are divided by their length, or by this if they are smaller."""


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
        # Its presolve takes problems with weights of 1e-7 beside 1 for infeasible.
        found = linprog(costs, A_eq=sums, b_eq=weights, method="highs", options={"presolve": False})
        if found.x is None:
            raise ValueError(f"problem {index} is not solved: {found.message}")
        plan[index] = torch.from_numpy(np.asarray(found.x).reshape(N, M))
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


def unit(x: Tensor, floor: float = 1e-12) -> Tensor:
    """Divide [n, C] by their lengths; zeros stay."""
    lengths: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / lengths.clamp_min(floor)


def ridge_regression(x: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Solve a weighted ridge regression of targets [n, way] on features [n, D], by least squares."""
    root = weights.sqrt()[:, None]
    penalty = math.sqrt(REGRESSION_RIDGE) * torch.eye(x.shape[1], dtype=x.dtype)
    rows = torch.cat([root * x, penalty])  # the ridge as further rows
    solution: Tensor = torch.linalg.pinv(rows) @ torch.cat(
        [root * targets, x.new_zeros(len(penalty), targets.shape[1])]
    )
    return solution


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
        centre: str = "channels",
        regression_weight: float = 0.0,
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
        self.centre = centre
        self.regression_weight = regression_weight
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

    def images(
        self, support: Tensor | Sequence[Tensor], query: Tensor | Sequence[Tensor]
    ) -> tuple[list[list[Positions]], list[list[Positions]]]:
        """Cut maps into positions [image][layer], centered by the task if wanted."""
        sides = self.positions(support), self.positions(query)
        of_task = sides[0]
        if self.centre == "episode":
            of_task = [torch.cat(layer) for layer in zip(*sides, strict=True)]
        means = [x.mean((0, 1)) if self.centre != "channels" else x.new_zeros(()) for x in of_task]
        supports, queries = (
            [[(x[i] - mean, x[i]) for x, mean in zip(side, means, strict=True)] for i in range(len(side[0]))]
            for side in sides
        )
        return supports, queries

    def pair(self, s: list[Positions], q: list[Positions]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One pair of images -> weighted means [C], [C], the query's before centering [C], similarity []."""
        pooled_s, pooled_q, read, matched = [], [], [], []
        for layer, ((s_l, own_s), (q_l, own_q)) in enumerate(zip(s, q, strict=True)):
            if self.attention_temperature is None:
                a, b = s_l.new_ones(len(s_l)), q_l.new_ones(len(q_l))
            else:
                a, b = layer_wise_embedding(s_l, q_l, self.attention_temperature)
            a, b = a[:, None], b[:, None]
            pooled_s.append((a * s_l).mean(0))
            pooled_q.append((b * q_l).mean(0))
            read.append((b * own_q).mean(0))
            matched.append(self.match(layer, (a * s_l, a * own_s), (b * q_l, b * own_q)))
        return torch.cat(pooled_s), torch.cat(pooled_q), torch.cat(read), self.reduce(matched)

    def match(self, layer: int, s: Positions, q: Positions) -> Tensor:
        """Match positions [P, C] and [M, C] of one layer, and embed them as they were before -> []."""
        columns = match_pair(s[0], q[0])
        if not self.embeddings:
            return pair_similarity(s[0], q[0], columns, self.top_k)
        phi = self.embeddings[layer]
        return pair_similarity(s[1] + phi(s[1]), q[1] + phi(q[1]), columns, self.top_k)

    def reduce(self, matched: list[Tensor]) -> Tensor:
        """Make one matched similarity of those of the layers."""
        layers = torch.stack(matched)
        return layers.mean() if self.layer_reduction == "mean" else layers.max()

    def merged(self, shots: list[list[Positions]], q: list[Positions]) -> Tensor:
        """Match the positions q[l] with those of all shots s[l] of a class at once -> []."""
        similarities = []
        for layer, positions in enumerate(zip(*shots, strict=True)):
            centered, own = (torch.cat(each) for each in zip(*positions, strict=True))
            similarities.append(self.match(layer, (centered, own), q[layer]))
        return self.reduce(similarities)

    def forward(
        self, support: Tensor | Sequence[Tensor], support_labels: Tensor, query: Tensor | Sequence[Tensor]
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Logits [Q, way], and class logits [Q, num_classes] in training with a classifier."""
        supports, queries = self.images(support, query)
        way = int(support_labels.max()) + 1
        logits, features = [], []
        for q in queries:
            pairs = [self.pair(s, q) for s in supports]
            row, read = [], []
            for label in range(way):
                of_class = [pair for pair, own in zip(pairs, support_labels, strict=True) if own == label]
                pooled_s, pooled_q, mean_q = (
                    torch.stack([pair[k] for pair in of_class]).mean(0) for k in range(3)
                )  # [C]
                spm = self.matching_weight * torch.stack([pair[3] for pair in of_class]).mean()
                if self.merge_shots:
                    shots = [s for s, own in zip(supports, support_labels, strict=True) if own == label]
                    spm = self.matching_weight * self.merged(shots, q)
                row.append((cosine(pooled_s, pooled_q) + spm) / self.temperature)
                read.append(mean_q)
            logits.append(torch.stack(row))
            features.append(torch.stack(read).mean(0))
        scores = torch.stack(logits)
        if self.regression_weight > 0:
            predicted = self.regress(self.positions(support), support_labels, self.positions(query))
            scores = scores + self.regression_weight / self.temperature * predicted
        if self.training and self.classifier is not None:
            return scores, self.classifier(torch.stack(features))
        return scores

    def regress(self, support: list[Tensor], support_labels: Tensor, query: list[Tensor]) -> Tensor:
        """Predict classes [Q, way] by a weighted ridge regression on mean and spread of positions."""
        counts = torch.bincount(support_labels)
        weights = 1 / (len(counts) * counts[support_labels].to(support[0]))  # [S], each class as much
        parts: list[tuple[Tensor, Tensor, float]] = []
        for layer, (s, q) in enumerate(zip(support, query, strict=True)):
            of_mean, of_spread = REGRESSION_SHARES[layer == len(support) - 1]
            parts.append((unit(s.mean(1)), unit(q.mean(1)), of_mean))
            parts.append((unit(s.std(1, correction=0)), unit(q.std(1, correction=0)), of_spread))
        total = sum(share for _, _, share in parts)
        features: list[tuple[Tensor, Tensor]] = []
        for s, q, share in parts:
            mean = torch.cat([s, q]).mean(0) if self.centre == "episode" else (weights[:, None] * s).sum(0)
            length = math.sqrt(share / total)
            s, q = (unit(x - mean, REGRESSION_FLOOR) * length for x in (s, q))
            features.append((s, q))
        x, q = (torch.cat(side, dim=1) for side in zip(*features, strict=True))
        targets = F.one_hot(support_labels).to(x) - 1 / len(counts)
        scores = q @ ridge_regression(x, targets, len(x) * weights)
        for _ in range(5 if self.centre == "episode" else 0):
            predicted = (scores / scores.std(correction=0)).softmax(1).detach() - 1 / len(counts)
            images, all_targets = torch.cat([x, q]), torch.cat([targets, predicted])
            all_weights = torch.cat([len(x) * weights, weights.new_full((len(q),), 0.3)])
            scores = q @ ridge_regression(images, all_targets, all_weights)
        return scores
