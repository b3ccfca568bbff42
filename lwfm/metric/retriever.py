"""The base of systems that search images: an index that grows, ranked candidates and votes."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from pytorch_metric_learning.distances import LpDistance
from torch import nn

from lwfm._common.devices import choose_device
from lwfm._common.ranges import check_counts, check_positive
from lwfm.errors import UserError
from lwfm.metric.estimator import NeighborEstimator, check_lengths
from lwfm.metric.image_encoders import (
    MixedAttentionResNet,
    Turned,
    check_trunk,
    is_encoded,
    read_inputs,
    start_from,
)
from lwfm.metric.module import MetricModule, embed
from lwfm.metric.scores import rank

if TYPE_CHECKING:
    import numpy.typing as npt
    from pytorch_metric_learning.distances import BaseDistance
    from torch import Tensor

    from lwfm._common.devices import Accelerator
    from lwfm.metric.module import Indices

    Embeddings = npt.NDArray[np.float32]

Distance = Literal["euclid", "spm"]


class Hits(NamedTuple):
    """Results of a search, the nearest first: distances [Q, k] and indices [Q, k] of the references."""

    distances: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int64]


class Encoded(NamedTuple):
    """Images as they are compared: descriptors [N, dim], and maps [N, C, F, F] where these are matched."""

    descriptors: Tensor
    maps: Tensor | None

    def part(self, rows: Indices) -> Encoded:
        """Return some of the images."""
        return Encoded(self.descriptors[rows], None if self.maps is None else self.maps[rows])


class ImageRetriever(NeighborEstimator):
    """Search of images by their descriptors: what the systems share that rank images.

    Inputs are images (paths, PIL images, arrays [H, W, 3], tensors [3, H, W]) or a stack of tensors that were
    made of them before. A search finds `candidates` by Euclidean distance (usearch, exact) and ranks
    them by `distance`.

    Attributes
    ----------
    names_ : tuple of str
        Path of each indexed image, "" for images in memory.
    maps_ : Tensor
        Maps [N, C, F, F] of the indexed images, for ``distance="spm"`` only.
    """

    distance: str | BaseDistance
    candidates: int
    k: int
    accelerator: Accelerator

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train on images with labels [N], and index them.

        Parameters
        ----------
        X : sequence of images, or stack of tensors
            N images.
        y : array
            [N] labels.
        groups : array, optional
            Not used.
        """
        self._check_parameters()
        check_lengths(len(X), labels=np.asarray(y))
        inputs = self._inputs(X)
        super().fit(inputs, y, groups)
        self.names_ = image_names(X)
        if self.distance == "spm":
            self.maps_ = self._maps(inputs).half()
        return self

    def _inputs(self, X: Any) -> Tensor:
        if self._is_encoded(X):
            return super()._inputs(X)
        return self._encoded_images(X)

    def _is_encoded(self, X: Any) -> bool:
        """Return whether X is a stack of maps [N, C, F, F] already; images have 3 channels, first or last."""
        return is_encoded(X, "maps", 0)

    @abstractmethod
    def _encoded_images(self, images: Any) -> Tensor:
        """Return images as the tensor [N, ...] that the encoder reads."""

    @abstractmethod
    def _maps(self, inputs: Tensor) -> Tensor:
        """Return the maps [N, C, F, F] by which semantic-pixel matching compares inputs [N, ...]."""

    def ranking_distance(self) -> BaseDistance:
        """Build the distance of descriptors that ranks candidates."""
        return LpDistance() if isinstance(self.distance, str) else self.distance

    def encode(self, X: Any) -> Encoded:
        """Compute the descriptors of N images, and the maps if these are matched."""
        inputs = self._inputs(X)
        maps = self._maps(inputs) if self.distance == "spm" else None
        return Encoded(torch.as_tensor(self.transform(inputs)), maps)

    def indexed(self) -> Encoded:
        """Return the indexed images."""
        self._check_fitted()
        maps = self.maps_ if self.distance == "spm" else None
        return Encoded(torch.as_tensor(self.decision_.references), maps)

    def _index(self, inputs: Tensor, labels: npt.NDArray[Any], names: tuple[str, ...]) -> None:
        """Replace the index by inputs [N, ...] with labels [N] of `classes_`, and names."""
        encoded = self.encode(inputs)
        self._decide_by(encoded.descriptors.numpy(), np.searchsorted(self.classes_, labels))
        self.names_ = names
        if encoded.maps is not None:
            self.maps_ = encoded.maps.half()

    def add(self, X: Any, y: Any) -> Self:
        """Index further images, also of new classes, without training.

        Parameters
        ----------
        X : sequence of images, or stack of tensors
            N images.
        y : array
            [N] labels, text or numbers as those of :meth:`fit`.

        Raises
        ------
        UserError
            For labels of another number or kind, and images that cannot be read, before anything is changed.
        """
        self._check_fitted()
        labels = np.asarray(y)
        check_lengths(len(X), labels=labels)
        known = self.classes_[self.decision_.codes]
        if _is_text(labels) != _is_text(self.classes_) or not (_is_text(labels) or _is_finite(labels)):
            kind = "text" if _is_text(self.classes_) else "numbers"
            raise UserError(f"the labels must be {kind}, as those of fit, not {labels[:1].tolist()}")
        new = self.encode(X)
        references = np.concatenate([self.decision_.references, new.descriptors.numpy()])
        self.classes_, codes = np.unique(np.concatenate([known, labels]), return_inverse=True)
        self._decide_by(references, codes)
        self.names_ += image_names(X)
        if new.maps is not None:
            self.maps_ = torch.cat([self.maps_, new.maps.half()])
        return self

    def search(self, X: Any, k: int = 10) -> Hits:
        """Find the k indexed images that are nearest to each image.

        Parameters
        ----------
        X : sequence of images, or stack of tensors
            Q queries.
        k : int
            Number of results; all, where there are fewer.
        """
        from usearch.index import search

        check_counts(k=k)
        queries, gallery = self.encode(X), self.indexed()
        count = min(max(self.candidates, k), len(gallery.descriptors))
        found = search(gallery.descriptors.numpy(), queries.descriptors.numpy(), count, "l2sq", exact=True)
        keys = np.asarray(found.keys).reshape(len(queries.descriptors), count).astype(np.int64)
        distances = self.compare(queries, gallery, torch.as_tensor(keys)).numpy()
        order = np.argsort(distances, axis=1, kind="stable")[:, :k]
        return Hits(np.take_along_axis(distances, order, 1), np.take_along_axis(keys, order, 1))

    def ranking(self, queries: Encoded, gallery: Encoded | None = None) -> Indices:
        """Rank a gallery for each query, or the queries among each other, each left out in turn.

        Parameters
        ----------
        queries, gallery : Encoded
            Of :meth:`encode` or :meth:`indexed`.

        Returns
        -------
        ndarray
            [Q, R] int64, or [Q, Q - 1] without a gallery: the nearest first.
        """
        others = gallery or queries
        with torch.inference_mode():
            euclid = LpDistance()(queries.descriptors, others.descriptors)
            return rank(
                euclid,
                lambda keys: self.compare(queries, others, keys),
                self.candidates,
                left_out=not gallery,
            )

    def compare(self, queries: Encoded, gallery: Encoded, keys: Tensor) -> Tensor:
        """Compute the distances [Q, count] of queries to the images of a gallery by keys [Q, count]."""
        if self.distance == "spm":
            return matched_distances(queries.maps, gallery.maps, keys)
        measure = self.ranking_distance()
        sign = -1 if measure.is_inverted else 1
        rows = [
            sign * measure(query[None], gallery.descriptors[each])[0]
            for query, each in zip(queries.descriptors, keys, strict=True)
        ]
        return torch.stack(rows).detach()

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:
        """Return the share of the votes [N, classes] of the k nearest indexed images."""
        return self.shares(self.search(X, self.k))

    def shares(self, hits: Hits) -> npt.NDArray[np.float64]:
        """Return the share of the votes [Q, classes] of hits."""
        votes = self.decision_.codes[hits.indices][..., None] == np.arange(len(self.classes_))
        return np.asarray(votes.mean(1), dtype=np.float64)

    def _described(self) -> dict[str, Any]:
        return {"names": list(self.names_)}

    def _tensors(self) -> dict[str, Tensor]:
        return {"maps": self.maps_} if self.distance == "spm" else {}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.names_ = tuple(description["names"])
        if len(self.names_) != len(tensors["references"]):
            raise ValueError(f"{len(self.names_)} names of {len(tensors['references'])} images")
        if self.distance == "spm":
            self.maps_ = tensors["maps"]
            if len(self.maps_) != len(self.names_):
                raise ValueError(f"{len(self.maps_)} maps of {len(self.names_)} images")


class TrunkRetriever(ImageRetriever):
    """Search by an encoder whose trunk is fixed and pretrained, or an SE-ResNet trained from pixels.

    Semantic-pixel matching compares the maps of the first part of the encoder, a
    :class:`~lwfm.metric.image_encoders.MixedAttentionResNet`.
    """

    trunk: str
    weights: str
    image_size: int
    steps: int
    learning_rate: float

    def _encoded_images(self, images: Any) -> Tensor:
        return read_inputs(self.trunk, self.image_size, images, self.accelerator)

    def _is_encoded(self, X: Any) -> bool:
        return is_encoded(X, self.trunk, self.image_size)

    def _check_parameters(self) -> None:
        super()._check_parameters()
        check_trunk(self.trunk, self.image_size, self.weights)
        if isinstance(self.distance, str) and self.distance not in get_args(Distance):
            raise UserError(
                f"distance must be {', '.join(get_args(Distance))} or a module, not {self.distance!r}"
            )
        check_counts(candidates=self.candidates, k=self.k, steps=self.steps)
        check_positive(learning_rate=self.learning_rate)

    def _maps(self, inputs: Tensor) -> Tensor:
        trunk: Any = self.encoder_.get_submodule("0")
        return torch.as_tensor(embed(trunk.stages(), inputs, device=choose_device(self.accelerator)))

    def _training(self, encoder: nn.Module, loss: nn.Module) -> MetricModule:
        """Build the module that trains by AdamW with one cycle of the learning rate, on turned images."""
        for module in encoder.modules():
            if isinstance(module, MixedAttentionResNet):
                start_from(self.weights, module, self.trunk)
        return MetricModule(
            encoder,
            loss,
            optimizer=partial(torch.optim.AdamW, lr=self.learning_rate, weight_decay=1e-2),
            schedule=partial(
                torch.optim.lr_scheduler.OneCycleLR, max_lr=self.learning_rate, total_steps=self.steps
            ),
            augment=Turned(),
        )


def matched_distances(queries: Tensor | None, gallery: Tensor | None, keys: Tensor) -> Tensor:
    """Compute 1 minus the matched similarity [Q, count] of maps [Q, C, F, F] with those of their keys."""
    from lwfm.adapters.metric_learning import SemanticPixelSimilarity
    from lwfm.nn import SemanticPixelMatching

    if queries is None or gallery is None:
        raise ValueError("semantic-pixel matching needs the maps of both")
    similarity = SemanticPixelSimilarity(SemanticPixelMatching(queries.shape[1], embedding=False, top_k=None))
    with torch.inference_mode():
        rows = [
            1 - similarity(query[None].float(), gallery[each].float())[0]
            for query, each in zip(queries, keys, strict=True)
        ]
    return torch.stack(rows)


def image_names(images: Any) -> tuple[str, ...]:
    """Return the path of each image, "" for images and stacks in memory."""
    return tuple(str(Path(each).resolve()) if isinstance(each, (str, Path)) else "" for each in images)


def _is_finite(labels: npt.NDArray[Any]) -> bool:
    return labels.dtype.kind in "biuf" and bool(np.isfinite(labels).all())


def _is_text(labels: npt.NDArray[Any]) -> bool:
    return labels.dtype.kind == "U" or any(isinstance(label, str) for label in labels)
