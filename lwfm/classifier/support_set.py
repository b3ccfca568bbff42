"""The labeled images of a classifier, as maps of its network, encoded by its head.

Letters: S support images, Q queries, l a layer.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from lwfm._common.progress import progress
from lwfm.classifier.labels import are_names
from lwfm.data.center_crop import VIEWS
from lwfm.data.user_images import NO_WHITE
from lwfm.errors import UserError
from lwfm.model.encode import encode_images
from lwfm.nn import ClassLists
from lwfm.nn.regression import image_statistics

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from lwfm.data.user_images import ImageLike
    from lwfm.data.white_levels import WhiteLevels
    from lwfm.model.engines import Encoder
    from lwfm.nn import EncodedMaps, LWFMHead


@dataclass(frozen=True, eq=False)
class SupportSet:
    """Maps, encoded maps, labels and names of support images.

    Attributes
    ----------
    maps : tuple of Tensor
        [S, C_l, F_l, F_l] for each layer, from which a file is written.
    encoded : EncodedMaps
        The same images as the network's head compares them.
    labels : Tensor
        [S] int64, indices into ``classes``.
    classes : ndarray
        The distinct labels, ascending.
    names : tuple of str
        Path of each image, or ``image N`` where it was given otherwise.
    white : WhiteLevels
        Which value was white in images of more than 8 bits; queries are read in the same way.
    views : tuple of Tensor
        [S, V, C_l] each: statistics of further views of the images, from which the head's regression learns
        (:func:`lwfm.nn.regression.image_statistics`); empty where it does not.
    """

    maps: tuple[Tensor, ...]
    encoded: EncodedMaps
    labels: Tensor
    classes: npt.NDArray[Any]
    names: tuple[str, ...]
    white: WhiteLevels = NO_WHITE
    views: tuple[Tensor, ...] = ()

    @classmethod
    def encode(
        cls,
        encoder: Encoder,
        images: Iterable[ImageLike],
        labels: npt.NDArray[Any],
        batch_size: int | None,
        *,
        white: WhiteLevels = NO_WHITE,
        first: int = 0,
        views: bool = False,
        show: bool = True,
    ) -> Self:
        """Encode labeled images, also their further views if wanted; ``first`` numbers the default names.

        Images are read twice; ``show`` is for a progress bar. UserError for a wrong number of labels.
        """
        names = tuple(
            os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image {first + number}"
            for number, image in enumerate(images)
        )
        if len(names) != len(labels):
            raise UserError(f"{len(names)} images need as many labels, got {len(labels)}")
        shown = progress(images, "encoding images", "image", show=show)
        head, batches = encoder.network.head, []
        of_views: list[tuple[Tensor, ...]] = []
        for batch in encode_images(encoder, shown, batch_size, white=white, views=views):
            if not views:
                batches.append(batch)
                continue
            alike = [layer.view(-1, 1 + VIEWS, *layer.shape[1:]) for layer in batch]
            batches.append(tuple(layer[:, 0] for layer in alike))
            of_views.append(_view_statistics(head, [layer[:, 1:] for layer in alike]))
        classes, indices = np.unique(labels, return_inverse=True)
        maps = tuple(torch.cat(layer) for layer in zip(*batches, strict=True))
        with torch.inference_mode():
            encoded = head.encode(maps)
        places = torch.as_tensor(indices, device=maps[0].device)
        statistics = tuple(torch.cat(kind) for kind in zip(*of_views, strict=True))
        return cls(maps, encoded, places, classes, names, white, statistics)

    @functools.cached_property
    def lists(self) -> ClassLists:
        """The images by class."""
        return ClassLists(self.labels)

    def joined(self, other: SupportSet) -> SupportSet:
        """Append the images of ``other``; UserError where one has names and the other numbers."""
        if are_names(self.classes) != are_names(other.classes):
            raise UserError(
                f"the labels so far are like {self.classes[0].item()!r}, the new ones like "
                f"{other.classes[0].item()!r}: use either names or numbers"
            )
        classes = np.unique(np.concatenate([self.classes, other.classes]))
        labels = [
            torch.as_tensor(np.searchsorted(classes, x.classes)).to(x.labels.device)[x.labels]
            for x in (self, other)
        ]
        maps = tuple(torch.cat(pair) for pair in zip(self.maps, other.maps, strict=True))
        encoded = type(self.encoded).cat([self.encoded, other.encoded])
        both = (
            ()
            if not (self.views or other.views)
            else zip(self._some_views(), other._some_views(), strict=True)
        )
        views = tuple(torch.cat(pair) for pair in both)
        return SupportSet(
            maps, encoded, torch.cat(labels), classes, self.names + other.names, other.white, views
        )

    def _some_views(self) -> tuple[Tensor, ...]:
        """Return the statistics of the views; of images without any, themselves are their views."""
        if self.views:
            return self.views
        return tuple(x.unsqueeze(1).expand(-1, VIEWS, -1) for x in image_statistics(self.encoded))

    def without(self, images: Sequence[int]) -> SupportSet:
        """Leave out images by number; UserError where a number is out of range or none would be left."""
        count = len(self.names)
        if wrong := [number for number in images if not 0 <= number < count]:
            raise UserError(f"there is no image {wrong[0]}: the images are numbered 0 to {count - 1}")
        rows = [row for row in range(count) if row not in set(images)]
        if not rows:
            raise UserError("these are all images that the classifier has: at least one must stay")
        kept = torch.tensor(rows, device=self.labels.device)
        present, labels = torch.unique(self.labels[kept], return_inverse=True)
        return replace(
            self,
            maps=tuple(layer[kept] for layer in self.maps),
            encoded=self.encoded[kept],
            labels=labels,
            classes=self.classes[present.cpu().numpy()],
            names=tuple(self.names[row] for row in rows),
            views=tuple(x[kept] for x in self.views),
        )

    def to(self, device: torch.device) -> SupportSet:
        """Move the tensors to a device."""
        maps = tuple(x.to(device) for x in self.maps)
        views = tuple(x.to(device) for x in self.views)
        return replace(
            self, maps=maps, encoded=self.encoded.to(device), labels=self.labels.to(device), views=views
        )


@torch.inference_mode()
def _view_statistics(head: LWFMHead, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Compute the statistics [n, V, C_l] of views from their maps [n, V, C_l, F_l, F_l]."""
    statistics = image_statistics(head.encode([layer.flatten(0, 1) for layer in maps]))
    return tuple(x.view(*maps[0].shape[:2], -1) for x in statistics)


@torch.inference_mode()
def most_similar(
    head: LWFMHead, support: EncodedMaps, labels: Tensor, query: EncodedMaps, classes: Tensor
) -> Tensor:
    """Find the support image of a given class that is most similar to each query.

    Parameters
    ----------
    head : LWFMHead
        Compares each query with every image of its class as a class of its own.
    support, query : EncodedMaps
        S and Q images that the head has encoded.
    labels : Tensor
        [S] int64, the class of each support image.
    classes : Tensor
        [Q] int64, the class of the images to compare each query with.

    Returns
    -------
    Tensor
        [Q] int64, indices of support images, on the CPU.
    """
    labels, classes = labels.cpu(), classes.cpu()
    nearest = torch.zeros(len(classes), dtype=torch.int64)
    for label in set(classes.tolist()):
        members = (labels == label).nonzero().squeeze(1)
        queries = (classes == label).nonzero().squeeze(1)
        compared = head.compare(support[members], range(len(members)), query[queries], task=support)
        nearest[queries] = members[(compared.base + compared.matching).argmax(-1).cpu()]
    return nearest
