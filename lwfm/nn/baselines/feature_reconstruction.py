"""Reconstruction of a query's positions from those of a class by ridge regression (FRN)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lwfm.nn.baselines.baseline import Baseline, check_positive

if TYPE_CHECKING:
    from torch import Tensor

    from lwfm.ops.class_lists import ClassLists


@dataclass(frozen=True)
class FeatureReconstruction(Baseline):
    """Minus the mean squared error of a query's positions, reconstructed from all positions of a class.

    With S_c [K P, C] the positions of a class and X [P, C] those of a query, the reconstruction is
    ``W S_c`` with ``W = X S_c^T (S_c S_c^T + lambda I)^-1`` and ``lambda = ridge K P / C`` (equations 4 to 8
    of the paper, its learned scales alpha and beta at their initial values, 0). The paper's networks learn
    the scale of their maps; here positions are divided by the root mean square of those of the support
    images, so that ``ridge`` means the same for any backbone: a reading.

    Parameters
    ----------
    centre
        As in :class:`Baseline`.
    ridge : float
        Weight of the penalty, positive.

    References
    ----------
    Wertheimer, Tang and Hariharan, "Few-Shot Classification with Feature Map Reconstruction Networks", CVPR
    2021.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn.baselines import FeatureReconstruction
    >>> scores = FeatureReconstruction()(torch.eye(4).view(2, 2, 4), [0, 1], torch.eye(4)[:2].view(1, 2, 4))
    >>> bool(scores[0, 0] > scores[0, 1])
    True
    """

    ridge: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(ridge=self.ridge)

    def _scores(self, support: Tensor, query: Tensor, classes: ClassLists) -> Tensor:
        scale = support.square().mean().sqrt().clamp_min(torch.finfo(support.dtype).tiny)
        support, query = support / scale, query / scale
        (_, P, C), Q = support.shape, len(query)
        rows = query.flatten(0, 1)  # [Q P, C]
        scores = []
        for images in classes.images:
            of_class = support[images].flatten(0, 1)  # [K P, C]
            penalty = self.ridge * len(of_class) / C
            gram = of_class @ of_class.T
            gram.diagonal().add_(penalty)
            weights = torch.linalg.solve(gram, of_class @ rows.T)  # [K P, Q P]
            errors = (weights.T @ of_class - rows).square().sum(-1)
            scores.append(-errors.view(Q, P).mean(1) / C)
        return torch.stack(scores, dim=1)
