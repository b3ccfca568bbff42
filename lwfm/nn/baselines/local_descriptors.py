"""Nearest neighbors of local descriptors in all positions of a class (DN4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from lwfm.nn.baselines.baseline import Baseline

if TYPE_CHECKING:
    from torch import Tensor

    from lwfm.ops.class_lists import ClassLists


@dataclass(frozen=True)
class LocalDescriptors(Baseline):
    """Mean cosine of each position of a query and its nearest positions among all those of a class.

    The image-to-class measure of DN4, divided by the number of summands.

    Parameters
    ----------
    centre
        As in :class:`Baseline`.
    neighbors : int
        k nearest positions that count, at most those of the class with the fewest; the paper: 3.

    References
    ----------
    Li et al., "Revisiting Local Descriptor based Image-to-Class Measure for Few-shot Learning", CVPR 2019.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn.baselines import LocalDescriptors
    >>> LocalDescriptors(neighbors=1)(torch.eye(4).view(2, 2, 4), [0, 1], torch.eye(4)[:2].view(1, 2, 4))
    tensor([[1., 0.]])
    """

    neighbors: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.neighbors, bool) or not isinstance(self.neighbors, int) or self.neighbors < 1:
            raise ValueError(f"neighbors must be a whole number of at least 1, got {self.neighbors!r}")

    def _scores(self, support: Tensor, query: Tensor, classes: ClassLists) -> Tensor:
        support, query = (F.normalize(x, dim=-1) for x in (support, query))
        scores = []
        for images in classes.images:
            of_class = support[images].flatten(0, 1)  # [K P, C]
            cosines = query @ of_class.T  # [Q, P, K P]
            nearest = cosines.topk(min(self.neighbors, len(of_class)), dim=-1).values
            scores.append(nearest.mean((1, 2)))
        return torch.stack(scores, dim=1)
