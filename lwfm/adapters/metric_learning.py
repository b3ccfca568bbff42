"""Semantic-pixel matching for pytorch-metric-learning: a distance on maps and a k-nearest-neighbor search.

https://kevinmusgrave.github.io/pytorch-metric-learning
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from pytorch_metric_learning.distances import BaseDistance
from torch import Tensor
from torch.nn import functional as F

from lwfm.ops import paired_pixel_matching
from lwfm.ops._expressions import compute_dtype

if TYPE_CHECKING:
    from lwfm.nn import SemanticPixelMatching


class SemanticPixelSimilarity(BaseDistance):  # type: ignore[misc]  # the library has no types
    """Matched similarity of feature maps as one of the library's (inverted) distances: larger is closer.

    Embeddings are maps [B, C, F, F] instead of vectors; pair losses, miners and ``CustomKNN`` take them.

    Parameters
    ----------
    matching : SemanticPixelMatching
        Compares the maps; its parameters are trained along.

    Examples
    --------
    >>> from lwfm.nn import SemanticPixelMatching
    >>> distance = SemanticPixelSimilarity(SemanticPixelMatching(8, embedding=False))
    >>> distance(torch.rand(2, 8, 3, 3), torch.rand(5, 8, 3, 3)).shape
    torch.Size([2, 5])
    """

    def __init__(self, matching: SemanticPixelMatching) -> None:
        super().__init__(normalize_embeddings=False, is_inverted=True)  # a cosine needs no normalization
        self.matching = matching

    def compute_mat(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Compare all of query_emb [Q, C, F, F] with all of ref_emb [S, C, F, F] -> [Q, S]."""
        similarity: Tensor = self.matching(ref_emb, query_emb)
        return similarity.to(query_emb.dtype)

    def pairwise_distance(self, query_emb: Tensor, ref_emb: Tensor) -> Tensor:
        """Compare query_emb [B, C, F, F] and ref_emb [B, C, F, F] pair by pair -> [B]."""
        positions = [compute_dtype(x).flatten(2).transpose(1, 2) for x in (ref_emb, query_emb)]  # [B, P, C]
        embedding = self.matching.embedding
        embedded = [None, None] if embedding is None else [embedding(x) for x in positions]
        similarity, _ = paired_pixel_matching(
            *positions, support_embedded=embedded[0], query_embedded=embedded[1], top_k=self.matching.top_k
        )
        return similarity.to(query_emb.dtype)

    def check_shapes(self, query_emb: Tensor, ref_emb: Tensor | None) -> None:
        """Raise ValueError for anything but maps; the library itself checks for vectors."""
        for maps in (query_emb, query_emb if ref_emb is None else ref_emb):
            if maps.ndim != 4:
                raise ValueError(f"embeddings must be maps [B, C, F, F], got {list(maps.shape)}")


class SemanticPixelKNN:
    """Nearest neighbors by cosine of the mean features, ranked by semantic-pixel matching.

    A ``knn_func`` for the library's ``AccuracyCalculator`` and ``InferenceModel``-like code, on maps.

    Parameters
    ----------
    distance : SemanticPixelSimilarity
        Ranks the candidates.
    candidates : int
        How many of the nearest by cosine are ranked, at least the k that is asked for.
    batch_size : int
        Query images at a time.

    Examples
    --------
    >>> from lwfm.nn import SemanticPixelMatching
    >>> knn = SemanticPixelKNN(SemanticPixelSimilarity(SemanticPixelMatching(8, embedding=False)))
    >>> similarities, indices = knn(torch.rand(2, 8, 3, 3), 3, torch.rand(9, 8, 3, 3))
    >>> indices.shape
    torch.Size([2, 3])
    """

    def __init__(
        self, distance: SemanticPixelSimilarity, *, candidates: int = 100, batch_size: int = 32
    ) -> None:
        self.distance, self.candidates, self.batch_size = distance, candidates, batch_size

    @torch.no_grad()
    def __call__(
        self, query: Tensor, k: int, reference: Tensor, ref_includes_query: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Find the k nearest of reference [S, C, F, F] for each of query [Q, C, F, F].

        Parameters
        ----------
        query, reference : Tensor
            Maps.
        k : int
            How many, at most ``candidates``.
        reference : Tensor
            Where to look.
        ref_includes_query : bool
            Whether the first Q of ``reference`` are the queries themselves, which are then left out.

        Returns
        -------
        Tensor, Tensor
            Similarities [Q, k], descending, and indices [Q, k] int64 into ``reference``.

        Raises
        ------
        ValueError
            If k is more than ``candidates`` or than there are references.
        """
        available = len(reference) - ref_includes_query
        count = min(self.candidates, available)
        if k > count:
            raise ValueError(f"k={k} neighbors asked for, but candidates={self.candidates} of {available}")
        features = F.normalize(reference.mean((2, 3)), dim=1)  # [S, C]
        found = []
        for begin in range(0, len(query), self.batch_size):
            maps = query[begin : begin + self.batch_size]
            cosine = F.normalize(maps.mean((2, 3)), dim=1) @ features.T  # [q, S]
            if ref_includes_query:
                own = torch.arange(len(maps), device=query.device)
                cosine[own, begin + own] = -torch.inf
            found.append(self._rank(maps, reference, cosine.topk(count).indices, k))
        similarities, indices = (torch.cat(column) for column in zip(*found, strict=True))
        return similarities, indices

    def _rank(self, maps: Tensor, reference: Tensor, nearest: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Rank the candidates nearest [q, count] of maps [q, C, F, F] by matching; return the best k."""
        q, count = nearest.shape
        pairs = maps.repeat_interleave(count, dim=0), reference[nearest.flatten()]
        similarity = self.distance.pairwise_distance(*pairs).view(q, count)
        best = similarity.topk(k)
        return best.values, nearest.gather(1, best.indices)
