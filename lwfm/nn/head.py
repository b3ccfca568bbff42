"""The LWFM-SPM head.

Letters in shape comments: Q queries, S support images, P positions (F x F), C channels, l a layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwfm.nn.embedding import PixelEmbedding
from lwfm.nn.map_layout import MapLayout
from lwfm.nn.regression import regression_scores
from lwfm.nn.task_centering import HeadCentre, compare_centered
from lwfm.ops._expressions import without_autocast
from lwfm.ops.class_lists import class_lists
from lwfm.ops.compare_maps import compare_maps
from lwfm.ops.encode_maps import EncodedMaps, encode_maps
from lwfm.ops.episodes import EpisodeOptions, compare_episodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lwfm.nn.map_layout import Maps
    from lwfm.ops.class_lists import ClassLists

LayerReduction = Literal["max", "mean"]
"""Reduction of the matched similarities of several layers to one."""


class EpisodeSimilarities(NamedTuple):
    """Terms of the logits of an episode: ``logits = (base + matching + regression) / temperature``."""

    base: Tensor
    """[Q, way], of several episodes [E, Q, way]: cosine of the LWE-weighted means, in -1..1."""
    matching: Tensor
    """Of the same shape: matched similarity times ``matching_weight``; zeros where that is 0."""
    query_features: Tensor | None = None
    """[Q, C] or [E, Q, C]: LWE-weighted mean of each query, the classifier's input; None if not wanted."""
    regression: Tensor | None = None
    """Of the shape of ``base``: prediction of the regression times its weight; None if that is 0."""

    @property
    def total(self) -> Tensor:
        """Sum of the terms: the logits times the temperature."""
        similarities = self.base + self.matching
        return similarities if self.regression is None else similarities + self.regression


class LWFMHead(nn.Module):
    """The LWFM-SPM head: logits of an episode from the backbone maps of its images.

    Layer-wise embedding weighs positions by mutual cross-correlation, semantic-pixel matching pairs them
    one to one; both work on P x P blocks, so no pair of maps is ever expanded. The head computes in
    float32 (float64 for float64 maps), under autocast too.

    Parameters
    ----------
    layer_dims : sequence of int
        C_l, the channels of each layer.
    feature_size : int or sequence of int
        F, the maps' height and width. An int: all layers share it and the mean over all C channels is
        subtracted at each position (the paper). A sequence: a resolution of its own for each layer,
        centered over its own channels.
    num_classes : int, optional
        Training classes of the auxiliary linear classifier; None leaves it out.
    embedding : bool
        Learn a :class:`PixelEmbedding` per layer for the matched similarity.
    matching_weight : float
        Weight of the matched similarity beside the base term, finite and at least 0; 0 skips the matching.
    attention_temperature : float or None
        t_attn of layer-wise embedding, positive. The paper: 5, on CUB 2. None: no layer-wise embedding, all
        positions weigh the same.
    temperature : float
        t that divides the logits, positive and finite.
    top_k : int or None
        Matched pairs averaged per layer, at most the smallest F_l^2; None for all.
    layer_reduction : str
        The matched similarity of a pair of images is the ``max`` over the layers (the paper) or their
        ``mean``.
    merge_shots : bool
        Match each query with the positions of all shots of a class at once, one assignment of P to K P
        positions, rather than with each shot (the paper, which averages these). The same for one shot.
    centre : str
        What is subtracted from positions. ``channels``: the mean over the channels of each (the paper).
        ``task``: then also, layer by layer, the mean over all positions of the episode's support images, so
        that what the classes have in common no longer counts as similar. ``episode``: the mean over those of
        support images and queries (transductive: an answer depends on the other queries). The learned
        embedding and the classifier see positions that are centered over channels alone.
    regression_weight : float
        Weight of a ridge regression of the classes on mean and spread of each image's positions, solved in
        closed form for each episode (:mod:`lwfm.nn.regression`); 0 (the paper) leaves it out.

    Raises
    ------
    ValueError
        For an argument out of its range.

    References
    ----------
    "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot Learning", arXiv 2411.06363.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import LWFMHead
    >>> head = LWFMHead([64, 128], feature_size=3).eval()
    >>> support, labels = torch.rand(10, 192, 3, 3), torch.arange(10) % 5  # 5-way 2-shot
    >>> head(support, labels, torch.rand(15, 192, 3, 3)).shape
    torch.Size([15, 5])
    """

    def __init__(
        self,
        layer_dims: Sequence[int],
        *,
        feature_size: int | Sequence[int] = 3,
        num_classes: int | None = None,
        embedding: bool = True,
        matching_weight: float = 0.25,
        attention_temperature: float | None = 5.0,
        temperature: float = 0.2,
        top_k: int | None = 1,
        layer_reduction: LayerReduction = "max",
        merge_shots: bool = False,
        centre: HeadCentre = "channels",
        regression_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.layout = MapLayout(layer_dims, feature_size)
        self.matching_weight = matching_weight
        # At an infinite temperature every position weighs the same.
        self.attention_temperature = math.inf if attention_temperature is None else attention_temperature
        self.temperature = temperature
        self.top_k = top_k
        self.layer_reduction = layer_reduction
        self.merge_shots = merge_shots
        self.centre = centre
        self.regression_weight = regression_weight
        self._check_arguments()
        self.embeddings = nn.ModuleList(PixelEmbedding(dim) for dim in self.layout.dims if embedding)
        self.classifier = None if num_classes is None else nn.Linear(sum(self.layout.dims), num_classes)

    def _check_arguments(self) -> None:
        if not 0 <= self.matching_weight < math.inf:
            raise ValueError(f"matching_weight must be finite and at least 0, got {self.matching_weight}")
        if not 0 <= self.regression_weight < math.inf:
            raise ValueError(f"regression_weight must be finite and at least 0, got {self.regression_weight}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")
        if not self.attention_temperature > 0:
            raise ValueError(f"attention_temperature must be positive, got {self.attention_temperature}")
        if self.layer_reduction not in get_args(LayerReduction):
            raise ValueError(f"layer_reduction must be max or mean, got {self.layer_reduction!r}")
        if self.centre not in get_args(HeadCentre):
            raise ValueError(f"centre must be channels, task or episode, got {self.centre!r}")
        pairs = min(self.layout.sizes) ** 2
        if self.top_k is not None and not 1 <= self.top_k <= pairs:
            raise ValueError(f"top_k must be 1 to {pairs} (positions of the smallest map), got {self.top_k}")

    def forward(
        self, support: Maps, support_labels: Sequence[int] | Tensor | ClassLists, query: Maps
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Classify the queries of one episode.

        Parameters
        ----------
        support : Tensor or sequence of Tensor
            [S, C, F, F], or one [S, C_l, F_l, F_l] per layer; any floating dtype.
        support_labels : sequence of int, Tensor or ClassLists
            [S] integers 0..way-1, in any order; each class at least once, shots may differ. Labels on another
            device than the CPU are waited for; :class:`ClassLists` made of them beforehand are not, so
            that a CUDA graph can capture the head, and it can be exported and compiled without a graph
            break.
        query : Tensor or sequence of Tensor
            [Q, C, F, F] or per layer; Q may be 0.

        Returns
        -------
        Tensor or tuple of Tensor
            Logits [Q, way]; in training mode with ``num_classes`` also the class logits [Q, num_classes].

        Raises
        ------
        TypeError
            For labels that are not integers.
        ValueError
            For maps or labels of the wrong shape, dtype or device, a class without support images, or, on
            the CPU, NaN features (naming the first pair [query, support]).
        """
        classified = self.training and self.classifier is not None
        features: Tensor | None
        if self.centre != "channels" or self.regression_weight > 0:
            episode = self.similarities(support, support_labels, query, features=classified)
            logits, features = self.logits(episode), episode.query_features
        else:
            batches, classes, weights = self._checked(support, support_labels, query)
            logits, features = compare_maps(
                batches, self.layout.dims, classes, self._options(),
                together=self.layout.shared, weights=weights, matching_weight=self.matching_weight,
                temperature=self.temperature, features=classified,
            )  # fmt: skip
        return logits if features is None or not classified else (logits, self.classify_features(features))

    def logits(self, episode: EpisodeSimilarities) -> Tensor:
        """Compute logits [Q, way], of several episodes [E, Q, way], from their terms."""
        return episode.total / self.temperature

    def similarities(
        self,
        support: Maps,
        support_labels: Sequence[int] | Tensor | ClassLists,
        query: Maps,
        *,
        features: bool = False,
    ) -> EpisodeSimilarities:
        """Compute the terms of the logits, and the queries' ``features`` if wanted; see :meth:`forward`."""
        batches, classes, weights = self._checked(support, support_labels, query)
        with without_autocast(batches[0][0].device):
            images = encode_maps(batches, self.layout.dims, together=self.layout.shared, weights=weights)
        return self._compare(images, classes, features=features)

    def encode(self, maps: Maps) -> EncodedMaps:
        """Encode images, so that episodes compare them without centering and embedding them again.

        Parameters
        ----------
        maps : Tensor or sequence of Tensor
            [n, C, F, F], or one [n, C_l, F_l, F_l] per layer; any floating dtype.

        Returns
        -------
        EncodedMaps
            float64 for float64 maps, else float32; for this head's layers, centering and embedding.

        Raises
        ------
        ValueError
            For maps of the wrong shape or dtype.

        Examples
        --------
        >>> import torch
        >>> from lwfm.nn import ClassLists, LWFMHead
        >>> head = LWFMHead([64, 128], feature_size=3).eval()
        >>> images = head.encode(torch.rand(30, 192, 3, 3))
        >>> head.compare(images[:10], ClassLists([0, 1] * 5), images[10:]).base.shape
        torch.Size([20, 2])
        """
        batch = self.layout.checked(maps, "maps")
        weights = self._weights(batch[0])
        with without_autocast(batch[0].device):
            return encode_maps([batch], self.layout.dims, together=self.layout.shared, weights=weights)

    def compare(
        self,
        support: EncodedMaps,
        classes: Sequence[int] | Tensor | ClassLists,
        query: EncodedMaps,
        *,
        features: bool = False,
        task: EncodedMaps | None = None,
        views: Sequence[Tensor] | None = None,
    ) -> EpisodeSimilarities:
        """Compare encoded queries with the classes of encoded support images.

        Parameters
        ----------
        support, query : EncodedMaps
            S and Q images that this head has encoded.
        classes : sequence of int, Tensor or ClassLists
            Labels of the support images, as in :meth:`forward`.
        features : bool
            Whether the queries' features are wanted.
        task : EncodedMaps, optional
            Images whose mean position is subtracted where the head centers by the task; by default the
            support images.
        views : sequence of Tensor, optional
            Statistics of further views of the support images, from which the regression learns too:
            :func:`lwfm.nn.regression.image_statistics` as [S, V, C_l].

        Returns
        -------
        EpisodeSimilarities

        Raises
        ------
        TypeError, ValueError
            For labels as in :meth:`forward`, or images that were not encoded by one head in one dtype.
        """
        lists = class_lists(classes, len(support), support.device)
        return self._compare(
            EncodedMaps.cat([support, query]), lists, features=features, task=task, views=views
        )

    def compare_episodes(
        self,
        images: EncodedMaps,
        support: Tensor,
        query: Tensor,
        classes: Sequence[int] | Tensor | ClassLists,
        *,
        features: bool = False,
        task: EncodedMaps | None = None,
        views: Sequence[Tensor] | None = None,
    ) -> EpisodeSimilarities:
        """Compare the queries and classes of several episodes that share encoded images.

        Parameters
        ----------
        images : EncodedMaps
            n images that this head has encoded.
        support, query : Tensor
            [E, S] and [E, Q] integers 0..n-1: the images of each episode. On the CPU, or on the device of the
            images; there they are not checked.
        classes : sequence of int, Tensor or ClassLists
            Labels of the S support images, the same in every episode.
        features : bool
            Whether the queries' features are wanted.
        task : EncodedMaps, optional
            Images whose mean position is subtracted where the head centers by the task; by default the
            support images of each episode.
        views : sequence of Tensor, optional
            As of :meth:`compare`, [n, V, C_l].

        Returns
        -------
        EpisodeSimilarities
            base and matching [E, Q, way].

        Raises
        ------
        ValueError
            For lists of the wrong shape, dtype or device, or that name images which are not there.

        Examples
        --------
        >>> import torch
        >>> from lwfm.nn import LWFMHead
        >>> head = LWFMHead([64, 128], feature_size=3).eval()
        >>> images = head.encode(torch.rand(30, 192, 3, 3))
        >>> episodes = torch.randint(30, (7, 12))
        >>> head.compare_episodes(images, episodes[:, :2], episodes[:, 2:], [0, 1]).base.shape
        torch.Size([7, 10, 2])
        """
        lists = tuple(_checked_list(x, name, images) for name, x in (("support", support), ("query", query)))
        if len(lists[0]) != len(lists[1]):
            raise ValueError(f"support lists {len(lists[0])} episodes, query {len(lists[1])}")
        grouped = class_lists(classes, lists[0].shape[1], images.device)
        return self._compare(images, grouped, (lists[0], lists[1]), features=features, task=task, views=views)

    def _checked(
        self, support: Maps, labels: Sequence[int] | Tensor | ClassLists, query: Maps
    ) -> tuple[list[list[Tensor]], ClassLists, list[Tensor]]:
        """Return the maps of both sides, the classes, and the embeddings' weights; errors as in forward."""
        batches = [self.layout.checked(support, "support"), self.layout.checked(query, "query")]
        if len(batches[0]) != len(batches[1]):  # one tensor beside one for each layer
            batches = [self.layout.layers(support, "support"), self.layout.layers(query, "query")]
        first = batches[0][0]
        device = first.device
        for layers in batches:
            for x in layers:
                if x.device != device:
                    name = "support" if layers is batches[0] else "query"
                    raise ValueError(f"{name} is on {x.device}, but support on {device}")
                if x.dtype is not first.dtype:
                    raise ValueError("mixed dtypes: either all maps are float64 or none")
        if isinstance(labels, Tensor) or first.is_meta:
            # Maps without values may be on the meta device; labels have values in any case.
            device = getattr(labels, "device", device) if first.is_meta else device
            if isinstance(labels, Tensor) and labels.device != device:
                raise ValueError(f"support is on {device}, but support_labels are on {labels.device}")
        return batches, class_lists(labels, first.shape[0], device), self._weights(first)

    def _weights(self, maps: Tensor) -> list[Tensor]:
        """Return the weights of the embeddings in the dtype of maps; ValueError on another device."""
        if self.matching_weight == 0:
            return []
        weights = []
        dtype, device = maps.dtype, maps.device
        for embedding in self.embeddings:
            weights += cast("PixelEmbedding", embedding).weights(dtype)
        for weight in weights:
            if weight.device != device:
                raise ValueError(f"maps are on {device}, but the head on {weight.device}")
        return weights

    def _options(self) -> EpisodeOptions:
        return EpisodeOptions(
            self.attention_temperature,
            self.top_k if self.matching_weight > 0 else 0,
            self.layer_reduction == "mean",
            self.merge_shots,
        )

    def _compare(
        self,
        images: EncodedMaps,
        classes: ClassLists,
        lists: tuple[Tensor, Tensor] | None = None,
        *,
        features: bool,
        task: EncodedMaps | None = None,
        views: Sequence[Tensor] | None = None,
    ) -> EpisodeSimilarities:
        with without_autocast(images.device):
            if self.centre == "channels":
                terms = compare_episodes(images, classes, lists, self._options(), features=features)
            else:
                terms = compare_centered(
                    images, classes, lists, self._options(), self.centre, features=features, task=task
                )
            compared = self._weighted(*terms, features=features)
            if self.regression_weight == 0:
                return compared
            regression = regression_scores(images, classes, lists, self.centre, task, views)
            return compared._replace(regression=self.regression_weight * regression)

    def _weighted(
        self, base: Tensor, matching: Tensor, means: Tensor, *, features: bool
    ) -> EpisodeSimilarities:
        if self.matching_weight > 0:
            matching = self.matching_weight * matching
        return EpisodeSimilarities(base, matching, means if features else None)

    def classify(self, maps: Maps) -> Tensor:
        """Compute class logits [B, num_classes] of ordinary images from their globally averaged maps.

        Raises
        ------
        ValueError
            If the head was built without ``num_classes``, or the maps have the wrong shape.
        """
        layers = self.layout.layers(maps, "maps")
        return self.classify_features(torch.cat([x.mean((2, 3)) for x in layers], dim=1))

    def classify_features(self, features: Tensor) -> Tensor:
        """Compute class logits [..., num_classes] of features [..., C], as ``query_features`` are.

        Raises
        ------
        ValueError
            If the head was built without ``num_classes``.
        """
        if self.classifier is None:
            raise ValueError("this head has no classifier: build it with num_classes")
        weight, bias = (x.to(features.dtype) for x in (self.classifier.weight, self.classifier.bias))
        with without_autocast(features.device):
            return F.linear(features, weight, bias)


def _checked_list(indices: Tensor, name: str, images: EncodedMaps) -> Tensor:
    """Return lists [E, k] of images as int64 on their device; ValueError for impossible ones."""
    dtype = indices.dtype
    if indices.ndim != 2 or dtype.is_floating_point or dtype.is_complex or dtype == torch.bool:
        raise ValueError(
            f"{name} must list images, integers [episodes, images], got {dtype} {list(indices.shape)}"
        )
    if indices.device.type != "cpu" and indices.device != images.device:
        raise ValueError(f"{name} is on {indices.device}, but the images on {images.device}")
    if indices.device.type == "cpu" and indices.numel():
        lowest, highest = (int(x) for x in indices.aminmax())
        if lowest < 0 or highest >= len(images):
            wrong = lowest if lowest < 0 else highest
            raise ValueError(f"{name} must list images 0..{len(images) - 1}, got {wrong}")
    return indices.to(images.device, torch.int64, non_blocking=True).contiguous()
