"""What one layer contributes to the similarities of an episode.

Letters: Q queries, S support pictures, P positions, C_l channels of a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lwfm.blocks import (
    correlation_scale,
    embedding_weights,
    feature_matching,
    inverse_root,
    pair_blocks,
    raw_correlation,
)
from lwfm.shots import ClassTerms, class_terms

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lwfm.maps import Positions
    from lwfm.shots import ClassShots


class SupportLayer:
    """The support pictures of one layer, with everything that all queries share computed once.

    Parameters
    ----------
    positions : Positions
        S pictures.
    shots : ClassShots
        Which picture belongs to which class.
    embed : callable or None
        phi, on the last dimension; None for the identity.
    matching : bool
        Whether :meth:`match` will be called.
    """

    def __init__(
        self,
        positions: Positions,
        shots: ClassShots,
        *,
        embed: Callable[[Tensor], Tensor] | None,
        matching: bool,
    ) -> None:
        self.positions = positions
        self.shots = shots
        self.embed = embed
        self.correlation_scale = correlation_scale(positions.squares)
        self.inverse_norm = inverse_root(positions.squares.detach())
        if matching:
            self.embedded = positions.features if embed is None else embed(positions.features)

    def query_bytes(self) -> int:
        """Bytes of the blocks of one query picture."""
        S, P, _ = self.positions.features.shape
        return S * P * P * self.positions.features.element_size()

    def correlate(self, query: Positions) -> Tensor:
        """R [Q, S, P, P] of all pairs."""
        return raw_correlation(self.positions.features, query.features)

    def weigh(self, raw: Tensor, query: Positions, temperature: float) -> ClassTerms:
        """Compare the class means under layer-wise embedding, with R [Q, S, P, P]."""
        scale = correlation_scale(query.squares)
        a, b, reached = embedding_weights(pair_blocks(raw, self.correlation_scale, scale), temperature)
        return class_terms(a, b, reached, self.positions.features, query.features, self.shots)

    def match(self, raw: Tensor, query: Positions, top_k: int | None) -> Tensor:
        """Similarity [Q, S] over matched positions, with R [Q, S, P, P]."""
        cosines = pair_blocks(raw.detach(), self.inverse_norm, inverse_root(query.squares.detach()))
        embedded = query.features if self.embed is None else self.embed(query.features)
        return feature_matching(cosines, self.embedded, embedded, top_k)[0]
