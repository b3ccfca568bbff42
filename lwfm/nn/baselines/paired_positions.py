"""Positions of two images paired by nearest neighbors, one way or both, or one to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch.nn.functional as F

from lwfm.nn.baselines.baseline import Baseline
from lwfm.ops.linear_assignment import linear_assignment

if TYPE_CHECKING:
    from torch import Tensor

    from lwfm.ops.class_lists import ClassLists

Pairing = Literal["query", "both", "one_to_one"]
"""Each position of the query with its nearest in the support image; that and the same the other way round,
averaged; or by the assignment of the largest total cosine."""


@dataclass(frozen=True)
class PairedPositions(Baseline):
    """Mean cosine of paired positions of a query and a support image, averaged over a class's shots.

    The three pairings differ in nothing else, so that they tell what one-to-one assignment adds to nearest
    neighbors. ``one_to_one`` is the matching of LWFM-SPM without an embedding, over all matched pairs.

    Parameters
    ----------
    centre
        As in :class:`Baseline`.
    pairing : {"query", "both", "one_to_one"}
        See :data:`Pairing`.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn.baselines import PairedPositions
    >>> image = torch.eye(3).view(1, 3, 3)
    >>> repeated = image[:, [0, 0, 1]]
    >>> [round(float(PairedPositions(pairing=p)(image, [0], repeated)), 2) for p in ("query", "one_to_one")]
    [1.0, 0.67]
    """

    pairing: Pairing = "one_to_one"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairing not in get_args(Pairing):
            raise ValueError(f"pairing must be one of {', '.join(get_args(Pairing))}, got {self.pairing!r}")

    def _scores(self, support: Tensor, query: Tensor, classes: ClassLists) -> Tensor:
        (S, P, _), Q = support.shape, len(query)
        s, q = (F.normalize(x, dim=-1).flatten(0, 1) for x in (support, query))
        cosines = (q @ s.T).view(Q, P, S, P).transpose(1, 2)  # [Q, S, P of the query, P]
        if self.pairing == "one_to_one":
            columns = linear_assignment(cosines.contiguous(), maximize=True)
            similarities = cosines.gather(-1, columns.unsqueeze(-1)).mean((-2, -1))
        else:
            similarities = cosines.max(-1).values.mean(-1)  # [Q, S]
            if self.pairing == "both":
                similarities = (similarities + cosines.max(-2).values.mean(-1)) / 2
        return similarities @ classes.share.to(similarities)
