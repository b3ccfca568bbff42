"""Support images grouped by class."""

from __future__ import annotations

import functools
import itertools
import operator
from collections import Counter
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


class ClassLists:
    """Support images of an episode, class by class, from their labels.

    Labels are checked and sorted once, on the host. Whatever takes labels takes these lists too, and then
    never waits for the device, so that a CUDA graph can capture it, and the head can be exported and compiled
    without a graph break. Episodes with the same labels share one.

    Parameters
    ----------
    labels : sequence of int or Tensor
        [S] integers 0..way-1 of any integer dtype, in any order; each class at least once, so way <= S.
    images : int, optional
        S, where it is known otherwise: a wrong number of labels is refused.
    device : torch.device, optional
        Where the lists are used; by default that of the labels.

    Attributes
    ----------
    order : Tensor
        [S] int64: the support images, class by class.
    begin : Tensor
        [way + 1] int64: where classes begin in that order.
    shots : tuple of int
        Support images of each class.

    Raises
    ------
    TypeError
        For labels that are not integers.
    ValueError
        For labels of the wrong shape, dtype, number or range, or a class without support images.

    Examples
    --------
    >>> from lwfm.nn import ClassLists
    >>> classes = ClassLists([1, 0, 1])
    >>> classes.shots, classes.order.tolist(), classes.begin.tolist()
    ((1, 2), [1, 0, 2], [0, 1, 3])
    """

    def __init__(
        self,
        labels: Sequence[int] | Tensor,
        images: int | None = None,
        *,
        device: torch.device | str | None = None,
    ) -> None:
        values = checked_labels(labels, images)
        counts = Counter(values)
        way = max(counts) + 1
        missing = next((c for c in range(way) if c not in counts), None)
        if missing is not None:
            raise ValueError(f"class {missing} has no support images")
        self.shots = tuple(counts[c] for c in range(way))
        order = sorted(range(len(values)), key=values.__getitem__)
        begin = [0]
        for count in self.shots:
            begin.append(begin[-1] + count)
        self.labels = tuple(values)
        self._members = [order[first:end] for first, end in itertools.pairwise(begin)]
        device = labels.device if device is None and isinstance(labels, Tensor) else device
        self.order, self.begin = (_on_device(x, device) for x in (order, begin))

    def __len__(self) -> int:
        """Return S, the number of support images."""
        return len(self.labels)

    @property
    def way(self) -> int:
        """Number of classes."""
        return len(self.shots)

    @property
    def device(self) -> torch.device:
        """Device of the lists."""
        return self.order.device

    @functools.cached_property
    def images(self) -> list[Tensor]:
        """The support images [K] int64 of each class."""
        return [_on_device(images, self.device) for images in self._members]

    def to(self, device: torch.device | str) -> ClassLists:
        """Return the same lists on a device."""
        return self if torch.device(device) == self.device else ClassLists(self.labels, device=device)

    # The following belong to the tensor expressions.

    @functools.cached_property
    def share(self) -> Tensor:
        """[S, way] float64: 1 / shots of its class, 0 for the other classes."""
        with torch.inference_mode(False):  # kept for calls that record gradients
            labels = _on_device(self.labels, self.device)
            counts = _on_device(self.shots, self.device)
            return F.one_hot(labels, self.way).double() / counts

    @functools.cached_property
    def of_equal_count(self) -> list[Tensor]:
        """The images [classes, K] of all classes with K shots, for each K."""
        return [
            _on_device([images for images in self._members if len(images) == K], self.device)
            for K in sorted(set(self.shots))
        ]

    def in_class_order(self, x: list[Tensor]) -> Tensor:
        """Concatenate [Q, classes] of each item of ``of_equal_count``, by class -> [Q, way]."""
        return torch.cat(x, dim=1)[:, self._place_of_class]

    @functools.cached_property
    def _place_of_class(self) -> Tensor:
        """[way] int64: where each class is in the concatenation of ``of_equal_count``."""
        by_count = sorted(range(self.way), key=self.shots.__getitem__)
        return _on_device(sorted(range(self.way), key=by_count.__getitem__), self.device)


def _on_device(values: Any, device: torch.device | str | None) -> Tensor:
    """Return int64 values on a device, by one copy that the host does not wait for."""
    with torch.inference_mode(False):  # kept for calls that record gradients
        host = torch.tensor(values, dtype=torch.int64)
        if device is None or torch.device(device).type == "cpu":
            return host
        pinned = host.pin_memory() if torch.device(device).type == "cuda" else host
        return pinned.to(device, non_blocking=True)


def class_lists(labels: Sequence[int] | Tensor | ClassLists, images: int, device: torch.device) -> ClassLists:
    """Return the lists of S = ``images`` support images on a device, grouping them if that is to be done.

    Raises
    ------
    TypeError, ValueError
        For what :class:`ClassLists` refuses, or lists of another number of images or on another device.
    """
    if not isinstance(labels, ClassLists):
        return ClassLists(labels, images, device=device)
    if len(labels) != images:
        raise ValueError(f"{images} support images need as many labels, got {len(labels)}")
    if labels.device != device:
        raise ValueError(
            f"the class lists are on {labels.device}, but the maps on {device}: "
            "move the lists there with .to()"
        )
    return labels


def checked_labels(labels: Sequence[int] | Tensor, images: int | None) -> list[int]:
    """Return labels of support images as integers in 0..S-1, before anything is counted by them.

    Raises
    ------
    TypeError, ValueError
        For what :class:`ClassLists` refuses, a class without support images excepted.
    """
    if isinstance(labels, Tensor):
        if labels.is_meta:
            raise ValueError("support_labels on the meta device have no values: keep them on the CPU")
        dtype = labels.dtype
        if labels.ndim != 1 or dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
            raise ValueError(f"support_labels must be integers [S], got {dtype} {list(labels.shape)}")
        values: list[int] = labels.tolist()
    else:
        values = _integers(labels)
    count = len(values) if images is None else images
    if len(values) != count or count == 0:
        raise ValueError(f"{count} support images need as many labels, got {len(values)}")
    outside = next((value for value in values if not 0 <= value < count), None)
    if outside is not None:
        raise ValueError(
            f"support_labels must be 0..way-1, got {outside}: "
            f"{count} support images have at most {count} classes"
        )
    return values


def _integers(labels: Any) -> list[int]:
    error = TypeError(
        f"support_labels must be integers [S], a tensor or a sequence, got a {type(labels).__name__}"
    )
    if isinstance(labels, (str, bytes, bytearray, Set, Mapping)):  # iterable, but no sequence of labels
        raise error
    try:
        values = list(labels)
        integers = [operator.index(value) for value in values]
    except TypeError:
        raise error from None
    if any(isinstance(value, bool) for value in values):
        raise error
    return integers
