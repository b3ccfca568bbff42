"""Contribution of one layer to the similarities of an episode.

Letters: Q queries, S support images, P positions, C_l channels of a layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lwfm.ops._expressions import correlation_scale, inverse_root, pair_blocks, raw_correlation
from lwfm.ops.class_terms import ClassTerms, class_terms
from lwfm.ops.correlation import correlate, is_one_kernel
from lwfm.ops.embedding_weights import embedding_weights
from lwfm.ops.feature_matching import feature_matching

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lwfm.nn.class_means import ClassShots
    from lwfm.nn.positions import Positions


class SupportLayer:
    """The support images of one layer, with everything that all queries share computed once.

    Parameters
    ----------
    positions : Positions
        S images.
    shots : ClassShots
        The classes of the images.
    embed : callable or None
        phi, on the last dimension; None for the identity.
    matching : bool
        Whether positions are matched.
    merged : bool
        Whether positions are matched with those of all shots of a class at once.
    """

    def __init__(
        self,
        positions: Positions,
        shots: ClassShots,
        *,
        embed: Callable[[Tensor], Tensor] | None,
        matching: bool,
        merged: bool = False,
    ) -> None:
        self.positions = positions
        self.shots = shots
        self.embed = embed
        self.matching = matching
        self.merged = merged
        self.correlation_scale = correlation_scale(positions.squares)
        self.inverse_norm = inverse_root(positions.squares.detach())
        self.embedded = self._embedded(positions) if matching else positions.features

    def _embedded(self, positions: Positions) -> Tensor:
        """Return the features [., P, D] that matched positions are compared by."""
        return positions.features if self.embed is None else self.embed(positions.features)

    def query_bytes(self) -> int:
        """Return the bytes of the blocks of one query image."""
        S, P, _ = self.positions.features.shape
        return S * P * P * self.positions.features.element_size()

    def compare(
        self, query: Positions, temperature: float, top_k: int | None
    ) -> tuple[ClassTerms, Tensor | None]:
        """Compare the class means, and the matched positions if there are any: [Q, S], merged [Q, way]."""
        fits = is_one_kernel(self.positions.features, query.features, [self.embedded])
        if fits and temperature != math.inf and not self.merged:
            return self._compare_in_one_kernel(query, temperature, top_k)
        raw = self.correlate(query)
        similarity = self.match(raw, query, top_k) if self.matching else None
        return self.weigh(raw, query, temperature), similarity

    def _compare_in_one_kernel(
        self, query: Positions, temperature: float, top_k: int | None
    ) -> tuple[ClassTerms, Tensor | None]:
        s, q = self.positions.features, query.features
        pairs = correlate(
            s,
            q,
            support_compared=self.embedded,
            query_compared=self._embedded(query) if self.matching else q,
            temperature=temperature,
            top_k=top_k,
            matching=self.matching,
        )
        terms = class_terms(pairs.a, pairs.b, s, q, self.shots.order, self.shots.begin)
        return terms, pairs.similarity if self.matching else None

    def correlate(self, query: Positions) -> Tensor:
        """Compute R [Q, S, P, P] of all pairs."""
        return raw_correlation(self.positions.features, query.features)

    def weigh(self, raw: Tensor, query: Positions, temperature: float) -> ClassTerms:
        """Compare the class means under layer-wise embedding, with R [Q, S, P, P]."""
        scale = correlation_scale(query.squares)
        a, b = embedding_weights(pair_blocks(raw, self.correlation_scale, scale), temperature)
        shots = self.shots
        return class_terms(a, b, self.positions.features, query.features, shots.order, shots.begin)

    def match(self, raw: Tensor, query: Positions, top_k: int | None) -> Tensor:
        """Compute the similarity [Q, S], merged [Q, way], over matched positions, with R [Q, S, P, P]."""
        raw, inverse_norm = raw.detach(), inverse_root(query.squares.detach())
        embedded = self._embedded(query)
        if not self.merged:
            cosines = pair_blocks(raw, self.inverse_norm, inverse_norm)
            return feature_matching(cosines, self.embedded, embedded, top_k)[0]
        similarities = []
        for images in self.shots.of_equal_count:  # [classes, K]
            blocks = raw[:, images].flatten(2, 3)  # [Q, classes, K P, P]
            cosines = pair_blocks(blocks, self.inverse_norm[images].flatten(1), inverse_norm)
            support = self.embedded[images].flatten(1, 2)  # [classes, K P, D]
            similarities.append(feature_matching(cosines, support, embedded, top_k)[0])
        return self.shots.in_class_order(similarities)
