"""Nearest class mean, the baseline of every comparison, on globally averaged features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from lwfm.nn.baselines.baseline import Baseline
from lwfm.ops.class_lists import class_lists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lwfm.ops.class_lists import ClassLists


@dataclass(frozen=True)
class ClassMeans(Baseline):
    """Cosine of a query's mean feature and the mean of each class's features, L2-normalized before.

    Parameters
    ----------
    centre
        As in :class:`Baseline`; with "none" as :func:`nearest_class_mean`.

    References
    ----------
    Wang et al., "SimpleShot: Revisiting Nearest-Neighbor Classification for Few-Shot Learning",
    arXiv 1911.04623, which subtracts the mean of the training classes.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn.baselines import ClassMeans
    >>> ClassMeans()(torch.eye(2).view(2, 1, 2), [0, 1], torch.eye(2).view(2, 1, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """

    def _scores(self, support: Tensor, query: Tensor, classes: ClassLists) -> Tensor:
        s, q = (F.normalize(x.mean(1), dim=-1) for x in (support, query))
        return class_mean_cosines(s, classes, q)


def nearest_class_mean(
    support: Sequence[Tensor], support_labels: Sequence[int] | Tensor | ClassLists, query: Sequence[Tensor]
) -> Tensor:
    """Return the cosine between each query's mean feature and the mean of each class's support features.

    An image's feature is the global average of every layer's map, concatenated and L2-normalized.

    Parameters
    ----------
    support, query : sequence of Tensor
        Per-layer maps [S, C_l, F_l, F_l] and [Q, C_l, F_l, F_l].
    support_labels : sequence of int, Tensor or ClassLists
        [S] integers 0..way-1; each class at least once, shots may differ.

    Returns
    -------
    Tensor
        [Q, way].

    Raises
    ------
    TypeError
        For labels that are not integers.
    ValueError
        For labels of the wrong shape, dtype, number or range, or a class without support images.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import nearest_class_mean
    >>> maps = (torch.eye(2).reshape(2, 2, 1, 1),)
    >>> nearest_class_mean(maps, torch.tensor([0, 1]), maps)
    tensor([[1., 0.],
            [0., 1.]])
    """
    features = global_features(support)
    classes = class_lists(support_labels, len(features), features.device)
    return class_mean_cosines(features, classes, global_features(query))


def class_mean_cosines(support: Tensor, classes: ClassLists, query: Tensor) -> Tensor:
    """Return the cosine between each query and the mean of each class's support images, of many episodes.

    Parameters
    ----------
    support, query : Tensor
        [..., S, C] and [..., Q, C] features of unit length, as :func:`global_features` returns them.
    classes : ClassLists
        Of the S support images, for every episode the same.

    Returns
    -------
    Tensor
        [..., Q, way].
    """
    means = classes.share.to(support.dtype).T @ support  # [..., way, C]
    return query @ F.normalize(means, dim=-1).mT


def global_features(maps: Sequence[Tensor]) -> Tensor:
    """Return the L2-normalized, concatenated global averages [B, C] of per-layer maps.

    Parameters
    ----------
    maps : sequence of Tensor
        Floating maps [B, C_l, F_l, F_l] of each layer, at least one.

    Returns
    -------
    Tensor
        [B, C], C the sum of all C_l.

    Raises
    ------
    RuntimeError
        For integer maps, or layers of different numbers of images.
    ValueError
        For no layers.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import global_features
    >>> global_features([torch.ones(1, 3, 2, 2), torch.ones(1, 1, 4, 4)])
    tensor([[0.5000, 0.5000, 0.5000, 0.5000]])
    """
    return F.normalize(torch.cat([layer.mean((-2, -1)) for layer in maps], dim=-1), dim=-1)
