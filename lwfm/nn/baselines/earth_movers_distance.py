"""Similarity of two images by optimal transport between their positions (DeepEMD)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch.nn.functional as F

from lwfm.nn.baselines.baseline import Baseline
from lwfm.ops.optimal_transport import optimal_transport

if TYPE_CHECKING:
    from torch import Tensor

    from lwfm.ops.class_lists import ClassLists

_LEAST = 1e-3


@dataclass(frozen=True)
class EarthMoversDistance(Baseline):
    """Mean cosine of the positions of a query and a support image under an optimal transport plan.

    A position moves at the cost of 1 - cosine; its weight is its inner product with the mean position of
    the other image, at least 0.001 of the largest one (the cross-reference of DeepEMD, whose constant is
    absolute). The similarity to a class is the mean over its shots; the paper's learns a map for each class
    instead. With equal weights the plan is an assignment:
    :class:`PairedPositions` with ``pairing="one_to_one"``.

    Parameters
    ----------
    centre
        As in :class:`Baseline`.

    References
    ----------
    Zhang et al., "DeepEMD: Few-Shot Image Classification with Differentiable Earth Mover's Distance and
    Structured Classifiers", CVPR 2020.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn.baselines import EarthMoversDistance
    >>> image = torch.eye(3).view(1, 3, 3)
    >>> round(float(EarthMoversDistance()(image, [0], image)), 3)
    1.0
    """

    def _scores(self, support: Tensor, query: Tensor, classes: ClassLists) -> Tensor:
        s, q = (F.normalize(x, dim=-1) for x in (support, query))
        cosines = (q.flatten(0, 1) @ s.flatten(0, 1).T).view(*q.shape[:2], *s.shape[:2])
        cosines = cosines.transpose(1, 2)  # [Q, S, P of the query, P]
        of_query = _weights((query @ support.mean(1).T).transpose(1, 2))  # [Q, S, P]
        of_support = _weights((support @ query.mean(1).T).permute(2, 0, 1))
        plan = optimal_transport(1 - cosines, of_query, of_support)
        return (plan * cosines).sum((-2, -1)) @ classes.share.to(cosines)


def _weights(products: Tensor) -> Tensor:
    """Return the positive weights [..., P], of sum 1, that inner products make."""
    positive = products.clamp_min(0)
    positive = positive + (_LEAST * positive.amax(-1, keepdim=True)).clamp_min(1e-30)
    return positive / positive.sum(-1, keepdim=True)
