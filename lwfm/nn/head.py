"""The LWFM-SPM head.

Letters in shape comments: Q queries, S support images, P positions (F x F), C channels, l a layer.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lwfm.nn.class_means import ClassShots, label_tensor
from lwfm.nn.embedding import PixelEmbedding
from lwfm.nn.layer import SupportLayer
from lwfm.nn.positions import MapLayout, Positions
from lwfm.ops._expressions import inverse_root, over_queries, without_autocast

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lwfm.nn.positions import Maps

LayerReduction = Literal["max", "mean"]
"""Reduction of the matched similarities of several layers to one."""


class EpisodeSimilarities(NamedTuple):
    """Terms of the logits of an episode: ``logits = (base + matching) / temperature``."""

    base: Tensor
    """[Q, way]: cosine of the LWE-weighted means, in -1..1."""
    matching: Tensor
    """[Q, way]: matched similarity times ``matching_weight``; zeros where that is 0."""
    query_features: Tensor
    """[Q, C]: LWE-weighted mean of each query, the input of the classifier."""


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
        self._check_arguments()
        self.embeddings = nn.ModuleList(PixelEmbedding(dim) for dim in self.layout.dims if embedding)
        self.classifier = None if num_classes is None else nn.Linear(sum(self.layout.dims), num_classes)

    def _check_arguments(self) -> None:
        if not 0 <= self.matching_weight < math.inf:
            raise ValueError(f"matching_weight must be finite and at least 0, got {self.matching_weight}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")
        if not self.attention_temperature > 0:
            raise ValueError(f"attention_temperature must be positive, got {self.attention_temperature}")
        if self.layer_reduction not in get_args(LayerReduction):
            raise ValueError(f"layer_reduction must be max or mean, got {self.layer_reduction!r}")
        pairs = min(self.layout.sizes) ** 2
        if self.top_k is not None and not 1 <= self.top_k <= pairs:
            raise ValueError(f"top_k must be 1 to {pairs} (positions of the smallest map), got {self.top_k}")

    def forward(
        self, support: Maps, support_labels: Tensor | ClassShots, query: Maps
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Classify the queries of one episode.

        Parameters
        ----------
        support : Tensor or sequence of Tensor
            [S, C, F, F], or one [S, C_l, F_l, F_l] per layer; any floating dtype.
        support_labels : Tensor or ClassShots
            [S] integers 0..way-1, in any order; each class at least once, shots may differ. Or
            :class:`ClassShots` made of them beforehand, where many episodes have the same labels: then a
            call on CUDA tensors never waits for the device, so that a CUDA graph can capture it, and the
            head can be exported and compiled without a graph break. Their values are needed for meta maps
            too: keep them on the CPU.
        query : Tensor or sequence of Tensor
            [Q, C, F, F] or per layer; Q may be 0.

        Returns
        -------
        Tensor or tuple of Tensor
            Logits [Q, way]; in training mode with ``num_classes`` also the class logits [Q, num_classes].

        Raises
        ------
        TypeError
            For labels that are neither a tensor nor :class:`ClassShots`.
        ValueError
            For maps or labels of the wrong shape, dtype or device, a class without support images, or
            NaN features (naming the first pair [query, support]).
        """
        episode = self.similarities(support, support_labels, query)
        logits = (episode.base + episode.matching) / self.temperature
        if self.training and self.classifier is not None:
            return logits, self._classify(episode.query_features)
        return logits

    def similarities(
        self, support: Maps, support_labels: Tensor | ClassShots, query: Maps
    ) -> EpisodeSimilarities:
        """Compute the terms of the logits; arguments and errors as in :meth:`forward`."""
        labels = label_tensor(support_labels)
        device = labels.device
        with without_autocast(device):
            support_layers = self.layout.positions(support, "support")
            query_layers = self.layout.positions(query, "query")
            only_shapes = all(x.device.type == "meta" for x, _ in (*support_layers, *query_layers))
            for name, layers in (("support", support_layers), ("query", query_layers)):
                if any(x.device != device for x, _ in layers) and not only_shapes:
                    raise ValueError(
                        f"{name} is on {layers[0].features.device}, but support_labels are on {device}"
                    )
                if any(x.dtype != support_layers[0].features.dtype for x, _ in layers):
                    raise ValueError("mixed dtypes: either all maps are float64 or none")
            images = len(support_layers[0].features)
            shots = support_labels if isinstance(support_labels, ClassShots) else ClassShots(labels, images)
            if len(labels) != images:
                raise ValueError(f"{images} support images need as many labels, got {len(labels)}")
            supports = [
                SupportLayer(
                    s,
                    shots,
                    embed=self.embeddings[layer] if self.embeddings else None,
                    matching=self.matching_weight > 0,
                    merged=self.merge_shots,
                )
                for layer, s in enumerate(support_layers)
            ]

            def compare(*queries: Tensor) -> EpisodeSimilarities:
                pairs = zip(queries[::2], queries[1::2], strict=True)
                return self._compare(supports, shots, [Positions(*pair) for pair in pairs])

            tensors = [x for layer in query_layers for x in layer]
            query_bytes = sum(support.query_bytes() for support in supports)
            weights = tuple(self.embeddings.parameters()) if self.matching_weight > 0 else ()
            numbers = (self.attention_temperature, self.matching_weight)
            return EpisodeSimilarities(*over_queries(compare, tensors, query_bytes, weights, numbers))

    def _compare(
        self, supports: list[SupportLayer], shots: ClassShots, queries: Sequence[Positions]
    ) -> EpisodeSimilarities:
        """Compute the similarities of some of the queries, given for each layer."""
        terms, matched = [], []
        for support, query in zip(supports, queries, strict=True):
            term, similarity = support.compare(query, self.attention_temperature, self.top_k)
            terms.append(term)
            if similarity is not None:
                matched.append(similarity)
        inner, square_s, square_q = (
            functools.reduce(torch.add, column) for column in list(zip(*terms, strict=True))[:3]
        )
        base = inner * inverse_root(square_s) * inverse_root(square_q)
        matching = torch.zeros_like(base)
        if matched:
            matching = self._over_layers(torch.stack(matched))
            if not self.merge_shots:
                matching = shots.mean_over_class(matching)
            matching = self.matching_weight * matching
        return EpisodeSimilarities(base, matching, torch.cat([term.features for term in terms], dim=-1))

    def _over_layers(self, similarities: Tensor) -> Tensor:
        """Reduce matched similarities over the layers: [L, Q, S] -> [Q, S], merged [L, Q, way]."""
        return similarities.max(0).values if self.layer_reduction == "max" else similarities.mean(0)

    def classify(self, maps: Maps) -> Tensor:
        """Compute class logits [B, num_classes] of ordinary images from their globally averaged maps.

        Raises
        ------
        ValueError
            If the head was built without ``num_classes``, or the maps have the wrong shape.
        """
        return self._classify(torch.cat([x.mean((2, 3)) for x in self.layout.layers(maps, "maps")], dim=1))

    def _classify(self, features: Tensor) -> Tensor:
        if self.classifier is None:
            raise ValueError("this head has no classifier: build it with num_classes")
        weight, bias = (x.to(features.dtype) for x in (self.classifier.weight, self.classifier.bias))
        with without_autocast(features.device):
            return F.linear(features, weight, bias)
