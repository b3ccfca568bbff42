"""What all baselines share: an episode as positions, and where these are centered.

Letters: S support images, Q queries, P positions (F x F), C channels of all layers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from lwfm.ops._expressions import compute_dtype
from lwfm.ops.class_lists import class_lists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lwfm.ops.class_lists import ClassLists

Centre = Literal["none", "channels", "task", "episode"]
"""What is subtracted from positions: nothing; the mean over the channels of each; and then also the mean of
all support positions, or of those of support images and queries (transductive: the answer to a query depends
on the others)."""


def check_positive(**numbers: object) -> None:
    """Raise ValueError naming the first of the values that is not a positive, finite number."""
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 < number < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {number!r}")


def centered(support: Tensor, query: Tensor, centre: Centre) -> tuple[Tensor, Tensor]:
    """Center positions of the support images and of the queries of an episode.

    Parameters
    ----------
    support, query : Tensor
        [S, P, C] and [Q, P, C].
    centre : {"none", "channels", "task", "episode"}
        See :data:`Centre`.

    Returns
    -------
    support, query : Tensor
        Of the same shapes.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn.baselines import centered
    >>> support, query = centered(torch.rand(5, 9, 8), torch.rand(3, 9, 8), "task")
    >>> bool(support.mean((0, 1)).abs().max() < 1e-6)
    True
    """
    if centre == "none":
        return support, query
    support, query = (x - x.mean(-1, keepdim=True) for x in (support, query))
    if centre == "channels":
        return support, query
    mean = support.mean((0, 1))
    if centre == "episode":
        share = len(support) / (len(support) + len(query))
        mean = share * mean + (query.sum((0, 1)) / query.shape[1]) / (len(support) + len(query))
    return support - mean, query - mean


@dataclass(frozen=True)
class Baseline(ABC):
    """A way to compare the queries of an episode with its classes that learns nothing beforehand.

    Parameters
    ----------
    centre : {"none", "channels", "task", "episode"}
        What is subtracted from all positions first; see :data:`lwfm.nn.baselines.Centre`.
    """

    centre: Centre = "none"

    def __post_init__(self) -> None:
        if self.centre not in get_args(Centre):
            raise ValueError(f"centre must be one of {', '.join(get_args(Centre))}, got {self.centre!r}")

    def __call__(
        self, support: Tensor, support_labels: Sequence[int] | Tensor | ClassLists, query: Tensor
    ) -> Tensor:
        """Compute the scores of an episode.

        Parameters
        ----------
        support, query : Tensor
            Positions [S, P, C] and [Q, P, C], floating, of one dtype and device.
        support_labels : sequence of int, Tensor or ClassLists
            [S] integers 0..way-1; each class at least once, shots may differ.

        Returns
        -------
        Tensor
            [Q, way] in float64 for float64 positions, else in float32: the larger, the more similar; what a
            score means differs between baselines.

        Raises
        ------
        TypeError
            For labels that are not integers.
        ValueError
            For positions or labels of the wrong shape, dtype or device.
        """
        for name, x in (("support", support), ("query", query)):
            if x.ndim != 3 or not x.is_floating_point() or 0 in x.shape[1:]:
                raise ValueError(f"{name} must be floating positions [images, P, C], got {list(x.shape)}")
        if support.shape[1:] != query.shape[1:] or support.dtype != query.dtype:
            raise ValueError(
                f"support and query must have the same positions, channels and dtype, got "
                f"{list(support.shape)} {support.dtype} and {list(query.shape)} {query.dtype}"
            )
        if support.device != query.device:
            raise ValueError(f"support is on {support.device}, but query on {query.device}")
        classes = class_lists(support_labels, len(support), support.device)
        support, query = compute_dtype(support), compute_dtype(query)
        return self._scores(*centered(support, query, self.centre), classes)

    @abstractmethod
    def _scores(self, support: Tensor, query: Tensor, classes: ClassLists) -> Tensor:
        """Compute the scores [Q, way] of centered positions [S, P, C] and [Q, P, C]."""
