"""Semantic-pixel matching of one layer as a module."""

from __future__ import annotations

from torch import Tensor, nn

from lwfm.nn.embedding import PixelEmbedding
from lwfm.ops import semantic_pixel_matching
from lwfm.ops._expressions import compute_dtype, without_autocast


class SemanticPixelMatching(nn.Module):
    """Similarity of every query with every support image on one layer: SPM as a drop-in module.

    Parameters
    ----------
    dim : int
        C_l, channels of the maps.
    embedding : bool
        Compare matched positions after a learned :class:`PixelEmbedding` (the paper) or as they are.
    top_k : int or None
        Mean of the k most similar matched pairs; 1 is the paper's maximum, None averages all.

    Raises
    ------
    ValueError
        For an embedding of fewer than 2 channels.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import SemanticPixelMatching
    >>> matching = SemanticPixelMatching(64)
    >>> matching(torch.rand(5, 64, 3, 3), torch.rand(7, 64, 3, 3)).shape
    torch.Size([7, 5])
    """

    def __init__(self, dim: int, *, embedding: bool = True, top_k: int | None = 1) -> None:
        super().__init__()
        self.dim = dim
        self.top_k = top_k
        self.embedding = PixelEmbedding(dim) if embedding else None

    def forward(self, support: Tensor, query: Tensor) -> Tensor:
        """Compare maps support [S, C, F, F] with query [Q, C, F', F'] -> [Q, S], in -1..1.

        Raises
        ------
        ValueError
            For a wrong rank, channel count, dtype or device, a ``top_k`` larger than the number of matched
            pairs, or NaN features (naming the pair).
        """
        for name, maps in (("support", support), ("query", query)):
            if maps.ndim != 4 or maps.shape[1] != self.dim:
                raise ValueError(f"{name} must be maps [B, {self.dim}, F, F], got {list(maps.shape)}")
        positions = [compute_dtype(maps).flatten(2).transpose(1, 2) for maps in (support, query)]
        if self.embedding is None:
            return semantic_pixel_matching(*positions, top_k=self.top_k)[0]
        with without_autocast(support.device):
            embedded = [self.embedding(x) for x in positions]
        return semantic_pixel_matching(
            *positions, support_embedded=embedded[0], query_embedded=embedded[1], top_k=self.top_k
        )[0]
