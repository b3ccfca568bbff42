"""Classes with several support images: means over shots, also where shots differ between classes.

Letters: Q queries, S support images, K the most shots of a class, P positions, C channels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lwfm.ops import _expressions as blocks


class ClassShots:
    """Which support images belong to which class.

    Parameters
    ----------
    labels : Tensor
        [S] integers 0..way-1 in any order, each class at least once.
    images : int
        S as the support maps have it.

    Raises
    ------
    ValueError
        For labels of the wrong shape, dtype, number or range, or a class without support images.
    """

    def __init__(self, labels: Tensor, images: int) -> None:
        if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"support_labels must be integers [S], got {labels.dtype} {list(labels.shape)}")
        if len(labels) != images or images == 0:
            raise ValueError(f"{images} support images need as many labels, got {len(labels)}")
        if labels.min() < 0:
            raise ValueError(f"support_labels must be 0..way-1, got {int(labels.min())}")
        counts = torch.bincount(labels)  # [way]
        if not counts.all():
            raise ValueError(f"class {int((counts == 0).nonzero()[0])} has no support images")
        self.labels, self.counts = labels, counts
        self.order = labels.argsort(stable=True)  # [S], by class
        self.begin = F.pad(counts.cumsum(0), (1, 0))  # [way + 1], where classes begin in that order
        member = labels.unsqueeze(1) == torch.arange(len(counts), device=labels.device)
        self.share = member.double() / counts  # [S, way]: 1 / shots of its class

    def mean_over_class(self, x: Tensor) -> Tensor:
        """Average x [Q, S, P] over each class's shots -> [Q, way, P]."""
        return torch.einsum("qsp,sw->qwp", x, self.share.to(x.dtype))

    def of_equal_count(self) -> list[Tensor]:
        """Images [classes, K] of all classes with K shots, for each K; see :meth:`in_class_order`."""
        return [
            torch.stack([self.order[self.begin[c] : self.begin[c] + count] for c in classes])
            for count, classes in self._classes_by_count()
        ]

    def in_class_order(self, x: list[Tensor]) -> Tensor:
        """Put [Q, classes] of each item of :meth:`of_equal_count` together -> [Q, way]."""
        classes = torch.cat([each for _, each in self._classes_by_count()])
        return torch.cat(x, dim=1)[:, classes.argsort()]

    def _classes_by_count(self) -> list[tuple[int, Tensor]]:
        """Each number of shots K that occurs, and which classes have it."""
        return [(K, (self.counts == K).nonzero().squeeze(1)) for K in sorted(set(self.counts.tolist()))]

    def by_class(self, x: Tensor) -> Tensor:
        """Lay x [B, S, P, D] out as [way, B, K P, D], zero where a class has fewer than K shots."""
        index, valid = self._padded()
        x = x[:, index] * valid[:, :, None, None]  # [B, way, K, P, D]
        return x.flatten(2, 3).transpose(0, 1)

    def _padded(self) -> tuple[Tensor, Tensor]:
        """Images of each class [way, K], padded with image 0, and which of them are real."""
        device = self.labels.device
        by_class = self.labels[self.order]
        rank = torch.arange(len(self.order), device=device) - self.begin[by_class]
        index = self.order.new_zeros(len(self.counts), int(self.counts.max()))
        index[by_class, rank] = self.order
        return index, torch.arange(index.shape[1], device=device) < self.counts[:, None]


def support_gram(s: Tensor, shots: ClassShots) -> Tensor:
    """Inner products of all support positions of each class: s [S, P, C] -> [way, K P, K P]."""
    s = shots.by_class(s.unsqueeze(0)).squeeze(1)  # [way, K P, C]
    return s @ s.transpose(1, 2)


class ClassTerms(NamedTuple):
    """What one layer contributes to the base term, which compares weighted class means."""

    inner: Tensor
    """[Q, way]: inner product of the support's and the query's weighted means."""
    square_s: Tensor
    """[Q, way]: squared norm of the support's."""
    square_q: Tensor
    """[Q, way]: squared norm of the query's."""
    features: Tensor
    """[Q, C_l]: the query's, averaged over the classes."""


def class_terms(a: Tensor, b: Tensor, reached: Tensor, s: Tensor, q: Tensor, shots: ClassShots) -> ClassTerms:
    """Compare the weighted class means, without forming a single one.

    ``a`` and ``b`` [Q, S, P] are the LWE weights of maps s [S, P, C] and q [Q, P, C]; ``reached``
    [Q, S, P] is ``a^T R``. Pooling is the mean over positions, a class's weights are averaged over shots.
    """
    if blocks.is_fused(a):
        return ClassTerms(*torch.ops.lwfm.class_terms(a, b, s, q, shots.order, shots.begin))
    P = a.shape[-1]
    a, reached = a / P, reached / P
    b = shots.mean_over_class(b) / P  # [Q, way, P]
    inner = (shots.mean_over_class(reached) * b).sum(-1)
    square_q = ((b @ (q @ q.transpose(1, 2))) * b).sum(-1)
    share = shots.share.sum(1, keepdim=True).to(a.dtype)  # [S, 1]
    a = shots.by_class((a * share).unsqueeze(-1)).squeeze(-1)  # [way, Q, K P]
    square_s = ((a @ support_gram(s, shots)) * a).sum(-1).T
    return ClassTerms(inner, square_s, square_q, (b.mean(1, keepdim=True) @ q).squeeze(1))
