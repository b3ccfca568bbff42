"""Classes with several support pictures: means over shots, also where shots differ between classes.

Letters: Q queries, S support pictures, K the most shots of a class, P positions, C channels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


class ClassShots:
    """Which support pictures belong to which class.

    Parameters
    ----------
    labels : Tensor
        [S] integers 0..way-1 in any order, each class at least once.
    pictures : int
        S as the support maps have it.

    Raises
    ------
    ValueError
        For labels of the wrong shape, dtype, number or range, or a class without support pictures.
    """

    def __init__(self, labels: Tensor, pictures: int) -> None:
        if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
            raise ValueError(f"support_labels must be integers [S], got {labels.dtype} {list(labels.shape)}")
        if len(labels) != pictures or pictures == 0:
            raise ValueError(f"{pictures} support pictures need as many labels, got {len(labels)}")
        if labels.min() < 0:
            raise ValueError(f"support_labels must be 0..way-1, got {int(labels.min())}")
        counts = torch.bincount(labels)  # [way]
        if not counts.all():
            raise ValueError(f"class {int((counts == 0).nonzero()[0])} has no support pictures")
        order = labels.argsort(stable=True)
        rank = torch.arange(pictures, device=labels.device) - (counts.cumsum(0) - counts)[labels[order]]
        self.share = F.one_hot(labels, len(counts)).double() / counts  # [S, way]: 1 / shots of its class
        self.index = order.new_zeros(len(counts), int(counts.max()))  # [way, K], padded with picture 0
        self.index[labels[order], rank] = order
        self.valid = torch.arange(self.index.shape[1], device=labels.device) < counts[:, None]  # [way, K]

    def mean_over_class(self, x: Tensor) -> Tensor:
        """Average x [Q, S, P] over each class's shots -> [Q, way, P]."""
        return torch.einsum("qsp,sw->qwp", x, self.share.to(x.dtype))

    def by_class(self, x: Tensor) -> Tensor:
        """Lay x [B, S, P, D] out as [way, B, K P, D], zero where a class has fewer than K shots."""
        x = x[:, self.index] * self.valid[:, :, None, None]  # [B, way, K, P, D]
        return x.flatten(2, 3).transpose(0, 1)


def support_gram(s: Tensor, shots: ClassShots) -> Tensor:
    """Inner products of all support positions of each class: s [S, P, C] -> [way, K P, K P]."""
    s = shots.by_class(s.unsqueeze(0)).squeeze(1)  # [way, K P, C]
    return s @ s.transpose(1, 2)


def quadratic_forms(
    reached: Tensor, a: Tensor, b: Tensor, gram: Tensor, q: Tensor, shots: ClassShots
) -> tuple[Tensor, Tensor, Tensor]:
    """Inner product and squared norms of the weighted class means, without forming a single mean.

    ``a^T R`` [Q, S, P], support weights a [Q, S, P], query weights averaged over shots b [Q, way, P],
    :func:`support_gram` [way, K P, K P], maps q [Q, P, C] -> three times [Q, way].
    """
    inner = (shots.mean_over_class(reached) * b).sum(-1)
    square_q = ((b @ (q @ q.transpose(1, 2))) * b).sum(-1)
    share = shots.share.sum(1, keepdim=True).to(a.dtype)  # [S, 1]
    a = shots.by_class((a * share).unsqueeze(-1)).squeeze(-1)  # [way, Q, K P]
    square_s = ((a @ gram) * a).sum(-1).T
    return inner, square_s, square_q
