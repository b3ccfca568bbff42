"""What one layer contributes to the similarities of an episode.

Letters: Q queries, S support pictures, K the most shots of a class, P positions, C_l channels of a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lwfm.blocks import (
    correlation_scale,
    embedding_weights,
    inverse_norm,
    pair_blocks,
    pixel_matching,
    raw_correlation,
)
from lwfm.shots import quadratic_forms, support_gram

if TYPE_CHECKING:
    from collections.abc import Callable

    from lwfm.shots import ClassShots


class SupportLayer:
    """The support pictures of one layer, with everything that all queries share computed once.

    Parameters
    ----------
    positions : Tensor
        [S, P, C_l], centred.
    shots : ClassShots
        Which picture belongs to which class.
    embed : callable or None
        phi, on the last dimension; None for the identity.
    matching : bool
        Whether :meth:`match` will be called.
    """

    def __init__(
        self,
        positions: Tensor,
        shots: ClassShots,
        *,
        embed: Callable[[Tensor], Tensor] | None,
        matching: bool,
    ) -> None:
        self.positions = positions
        self.shots = shots
        self.embed = embed
        self.correlation_scale = correlation_scale(positions)
        self.gram = support_gram(positions, shots)
        if matching:
            self.inverse_norm = inverse_norm(positions)
            self.embedded = positions if embed is None else embed(positions)
            self.embedded_inverse_norm = self.inverse_norm if embed is None else inverse_norm(self.embedded)

    def query_bytes(self) -> int:
        """Bytes of the blocks of one query picture: plain and embedded products."""
        S, P, _ = self.positions.shape
        return 2 * S * P * P * self.positions.element_size()

    def weigh(self, raw: Tensor, q: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Layer-wise embedding of queries q [Q, P, C_l] with R [Q, S, P, P].

        Returns the inner products and squared norms of the weighted class means, [3, Q, way], and the
        weighted mean of each query, [Q, C_l].
        """
        correlation = pair_blocks(raw, self.correlation_scale, correlation_scale(q))
        a, b, reached = embedding_weights(correlation, temperature)
        P = a.shape[-1]  # pooling is the mean over positions
        b = self.shots.mean_over_class(b) / P  # [Q, way, P]
        forms = quadratic_forms(reached / P, a / P, b, self.gram, q, self.shots)
        return torch.stack(forms), (b.mean(1, keepdim=True) @ q).squeeze(1)

    def match(self, raw: Tensor, q: Tensor, top_k: int | None) -> Tensor:
        """Similarity [Q, S] over matched positions of queries q [Q, P, C_l] with R [Q, S, P, P]."""
        cosines = pair_blocks(raw, self.inverse_norm, inverse_norm(q))
        if self.embed is None:
            return pixel_matching(cosines, cosines, top_k)[0]
        q = self.embed(q)
        raw = raw_correlation(self.embedded, q)
        compared = pair_blocks(raw, self.embedded_inverse_norm, inverse_norm(q))
        return pixel_matching(cosines, compared, top_k)[0]
