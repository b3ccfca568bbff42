"""Drop-in replacement of the published LWFM-SPM code's matcher: same constructor, names and results."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lwfm.nn import PixelEmbedding
from lwfm.ops import paired_pixel_matching


class HungarianMatcher(nn.Module):
    """Match the positions of paired images one to one and embed them, as the published class of this name.

    A state dictionary of the published model loads as it is: its parameters are ``linear.0.weight`` and
    ``linear.2.weight``. Assignments are solved for the whole batch at once instead of one by one. Positions
    that are zero vectors, at which the published code fails, cost 1.

    Parameters
    ----------
    dim : int
        C, channels of a position.
    learnable_matcher : bool
        Whether matched positions are embedded (:class:`lwfm.nn.PixelEmbedding`).

    References
    ----------
    "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot Learning", arXiv 2411.06363.

    Examples
    --------
    >>> matcher = HungarianMatcher(16, learnable_matcher=True)
    >>> list(matcher.state_dict())
    ['linear.0.weight', 'linear.2.weight']
    >>> support, query = matcher(torch.rand(75, 9, 16), torch.rand(75, 9, 16))
    >>> support.shape, query.shape
    (torch.Size([75, 9, 16]), torch.Size([75, 9, 16]))
    """

    def __init__(self, dim: int, learnable_matcher: bool) -> None:
        super().__init__()
        self.learnable_matcher = learnable_matcher
        if learnable_matcher:
            self.linear = PixelEmbedding(dim)

    def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Gather matched positions at the same index.

        Parameters
        ----------
        support, query : Tensor
            [B, P, C] and [B, M, C], floating.

        Returns
        -------
        support, query : Tensor
            [B, min(P, M), C] each, embedded if that is learned; support positions in ascending order.
            Differentiable, except through the assignment.

        Raises
        ------
        ValueError
            For a wrong rank, dtype or device, unequal batches or channels, or NaN.
        """
        columns = paired_pixel_matching(support.detach(), query.detach())[1]  # [B, P], -1: unmatched
        pairs = min(support.shape[1], query.shape[1])
        rows = (columns < 0).to(torch.uint8).argsort(dim=1, stable=True)[:, :pairs]  # [B, pairs], ascending
        columns = columns.gather(1, rows)
        support = support.gather(1, rows.unsqueeze(-1).expand(-1, -1, support.shape[-1]))
        query = query.gather(1, columns.unsqueeze(-1).expand(-1, -1, query.shape[-1]))
        return (self.linear(support), self.linear(query)) if self.learnable_matcher else (support, query)
