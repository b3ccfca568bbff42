"""Distances that pytorch-metric-learning does not have.

Letters: B, R embeddings, C their dimensions, K bins.
"""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from pytorch_metric_learning.distances import LpDistance
from torch import Tensor
from torch.nn import functional as F

from lwfm.errors import UserError

Form = Literal["product", "sum"]
_SMALLEST = 1e-4
"""Added to every bin before the logarithm, so that an empty bin has a finite relative entropy."""


def soft_histogram(values: Tensor, bins: int = 16, *, low: float = -1.0, high: float = 1.0) -> Tensor:
    """Compute a differentiable histogram of each row, with a triangular kernel.

    Parameters
    ----------
    values : Tensor
        [..., C] floating point. Values beyond the range count in its first or last bin.
    bins : int
        K, at least 2; their centers are equally spaced from `low` to `high`.
    low, high : float
        The range.

    Returns
    -------
    Tensor
        [..., K], non-negative, each row of sum 1.

    Examples
    --------
    >>> soft_histogram(torch.tensor([-1.0, 0.0, 0.0, 0.5]), 3)
    tensor([0.2500, 0.6250, 0.1250])
    """
    position = (values.clamp(low, high) - low) * ((bins - 1) / (high - low))
    centers = torch.arange(bins, dtype=values.dtype, device=values.device)
    return (1 - (position[..., None] - centers).abs()).clamp(min=0).mean(-2)


def relative_entropy(p: Tensor, q: Tensor) -> Tensor:
    """Compute ``sum p log(p / q)`` of distributions, each bin raised by 0.0001 before normalization.

    Parameters
    ----------
    p, q : Tensor
        [..., K] of one shape after broadcasting, each row of sum 1.

    Returns
    -------
    Tensor
        [...], at least 0 up to rounding; exactly 0 for equal distributions. Not symmetric.

    Examples
    --------
    >>> p = torch.tensor([0.5, 0.5])
    >>> relative_entropy(p, p).item(), relative_entropy(p, torch.tensor([1.0, 0.0])).item() > 0
    (0.0, True)
    """
    p, q = _smoothed(p), _smoothed(q)
    return (p * (p.log() - q.log())).sum(-1)


def _smoothed(p: Tensor) -> Tensor:
    return (p + _SMALLEST) / (1 + p.shape[-1] * _SMALLEST)


class RelativeDistributionEntropyDistance(LpDistance):  # type: ignore[misc]  # the library has no types
    """Euclidean distance weighted by the relative entropy (RDE) of the distributions of two descriptors.

    The distribution of a descriptor is the soft histogram of its C values, in units of their root mean
    square: ``D (1 + theta RDE)`` or ``D + theta RDE``. This is a *reading*: the published abstract names
    the relative entropy of the descriptors' distributions and their combination with the Euclidean distance;
    kernel, bins, span and form are choices of this package, and parameters.

    A distance of pytorch-metric-learning for any of its losses and miners. It is not symmetric: the first
    argument is the query.

    Parameters
    ----------
    theta : float
        Weight of the relative entropy, at least 0; 0 is the Euclidean distance to the bit.
    form : {"product", "sum"}
        How both are combined.
    bins : int
        K, at least 2.
    span : float
        The histogram covers -span to span root mean squares.
    normalize_embeddings : bool
        Whether descriptors are first brought to length 1.
    power : float
        Power of the whole distance: 2 for losses of squared distances.

    Examples
    --------
    >>> distance = RelativeDistributionEntropyDistance(theta=0.5)
    >>> distance(torch.rand(2, 32), torch.rand(5, 32)).shape
    torch.Size([2, 5])
    """

    def __init__(
        self,
        theta: float = 1.0,
        form: Form = "product",
        *,
        bins: int = 16,
        span: float = 3.0,
        normalize_embeddings: bool = True,
        power: float = 1,
        **options: Any,
    ) -> None:
        super().__init__(normalize_embeddings=normalize_embeddings, power=power, **options)
        if theta < 0 or bins < 2 or span <= 0:
            raise UserError(f"theta >= 0, bins >= 2 and span > 0 are needed, not {theta}, {bins}, {span}")
        if form not in get_args(Form):
            raise UserError(f"form must be one of {', '.join(get_args(Form))}, not {form!r}")
        self.theta, self.form, self.bins, self.span = theta, form, bins, span

    def histogram(self, descriptors: Tensor) -> Tensor:
        """Compute the distribution [B, K] of the values of each descriptor [B, C]."""
        values = F.normalize(descriptors, dim=-1) * (math.sqrt(descriptors.shape[-1]) / self.span)
        return soft_histogram(values, self.bins)

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Compare all of query_emb [B, C] with all of ref_emb [R, C] -> [B, R]."""
        distance: Tensor = super().compute_mat(query_emb, ref_emb)
        if self.theta == 0:
            return distance
        p, q = _smoothed(self.histogram(query_emb)), _smoothed(self.histogram(ref_emb))
        entropy = (p * p.log()).sum(-1, keepdim=True) - p @ q.log().T
        return self._combined(distance, entropy.clamp(min=0))

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Compare query_emb [B, C] and ref_emb [B, C] pair by pair -> [B]."""
        distance: Tensor = super().pairwise_distance(query_emb, ref_emb)
        if self.theta == 0:
            return distance
        entropy = relative_entropy(self.histogram(query_emb), self.histogram(ref_emb))
        return self._combined(distance, entropy.clamp(min=0))

    def _combined(self, distance: Tensor, entropy: Tensor) -> Tensor:
        """Combine the Euclidean distance and the relative entropy."""
        if self.form == "sum":
            return distance + self.theta * entropy
        return distance * (1 + self.theta * entropy)
