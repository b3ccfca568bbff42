"""Classes with several support images, also where shots differ between classes.

Letters: Q queries, S support images, K shots of a class.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.nn import functional as F


class ClassShots:
    """Support images grouped by class, from their checked labels.

    Parameters
    ----------
    labels : Tensor
        [S] integers 0..way-1 of any integer dtype, in any order; each class at least once, so way <= S.
    images : int
        S, the number of support images.

    Raises
    ------
    TypeError
        For labels that are not a tensor.
    ValueError
        For labels of the wrong shape, dtype, number or range, or a class without support images.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import ClassShots
    >>> ClassShots(torch.tensor([1, 0, 1]), 3).counts
    tensor([1, 2])
    """

    def __init__(self, labels: Tensor, images: int) -> None:
        labels = checked_labels(labels, images)
        counts = torch.bincount(labels)  # [way]
        shots: list[int] = counts.tolist()
        if 0 in shots:
            raise ValueError(f"class {shots.index(0)} has no support images")
        self.labels, self.counts = labels, counts
        self.order = labels.argsort(stable=True)  # [S], by class
        self.begin = F.pad(counts.cumsum(0), (1, 0))  # [way + 1], where classes begin in that order
        member = labels.unsqueeze(1) == torch.arange(len(counts), device=labels.device)
        self.share = member.double() / counts  # [S, way]: 1 / shots of its class
        classes_of = Counter(shots)  # how many classes have K shots, by K
        by_count = counts.argsort(stable=True)  # [way]: classes, those of the fewest shots first
        self.class_order = by_count.argsort()
        begin = torch.split(self.begin[by_count], [classes_of[K] for K in sorted(classes_of)])
        # Images [classes, K] of all classes with K shots, for each K.
        self.of_equal_count = [
            self.order[first.unsqueeze(1) + torch.arange(K, device=labels.device)]
            for K, first in zip(sorted(classes_of), begin, strict=True)
        ]

    def mean_over_class(self, x: Tensor) -> Tensor:
        """Average x [Q, S] over each class's shots -> [Q, way]."""
        return x @ self.share.to(x)

    def in_class_order(self, x: list[Tensor]) -> Tensor:
        """Concatenate [Q, classes] of each item of ``of_equal_count``, by class -> [Q, way]."""
        return torch.cat(x, dim=1)[:, self.class_order]


def label_tensor(labels: Tensor | ClassShots) -> Tensor:
    """Return the tensor of labels, also of images that are grouped already.

    Raises
    ------
    TypeError
        For anything else, a list of labels among it.
    """
    if isinstance(labels, ClassShots):
        return labels.labels
    if not isinstance(labels, Tensor):
        raise TypeError(f"support_labels must be a tensor of integers [S], got a {type(labels).__name__}")
    return labels


def checked_labels(labels: Tensor, images: int) -> Tensor:
    """Return the labels of S support images as int64, each in 0..S-1, before anything is counted by them.

    Raises
    ------
    ValueError
        For what :class:`ClassShots` refuses, a class without support images excepted.
    """
    labels = label_tensor(labels)
    if labels.is_meta:
        raise ValueError("support_labels on the meta device have no values: keep them on the CPU")
    dtype = labels.dtype
    if labels.ndim != 1 or dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise ValueError(f"support_labels must be integers [S], got {dtype} {list(labels.shape)}")
    if len(labels) != images or images == 0:
        raise ValueError(f"{images} support images need as many labels, got {len(labels)}")
    indices = labels.long()  # torch has no comparisons for unsigned dtypes of more than 8 bits
    outside = (indices < 0) | (indices >= images)
    if outside.any():
        first = int(outside.nonzero()[0])
        raise ValueError(
            f"support_labels must be 0..way-1, got {labels[first].item()}: "
            f"{images} support images have at most {images} classes"
        )
    return indices
