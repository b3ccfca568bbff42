"""Losses that pytorch-metric-learning does not have, with its signature ``loss(embeddings, labels)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytorch_metric_learning.losses import ContrastiveLoss
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


class SquaredContrastiveLoss(ContrastiveLoss):  # type: ignore[misc]  # the library has no types
    """Contrastive loss of squares, ``D^2 / 2`` of positive and ``[margin - D]+^2 / 2`` of negative pairs.

    The library's own loss has neither square. Its options, such as `distance` and `reducer`, are those of
    this class too.

    Parameters
    ----------
    margin : float
        Distance beyond which negative pairs have no loss.

    Examples
    --------
    >>> import torch
    >>> loss = SquaredContrastiveLoss(margin=1.0)
    >>> loss(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1])).item()
    0.5
    """

    def __init__(self, margin: float = 1.0, **options: object) -> None:
        super().__init__(pos_margin=0, neg_margin=margin, **options)

    def pos_calc(self, pos_pair_dist: Tensor, margin: float) -> Tensor:
        """Compute the losses of positive pairs from their distances."""
        return (pos_pair_dist - margin).clamp(min=0) ** 2 / 2

    def neg_calc(self, neg_pair_dist: Tensor, margin: float) -> Tensor:
        """Compute the losses of negative pairs from their distances."""
        return (margin - neg_pair_dist).clamp(min=0) ** 2 / 2


class LinearCrossEntropy(nn.Module):
    """Cross-entropy of a linear classifier on the embeddings.

    Parameters
    ----------
    dim : int
        Of the embeddings.
    classes : int
        Number of classes.
    scale : float
        By which embeddings are multiplied; those of length 1 need about 16 to be told apart early.

    Examples
    --------
    >>> import torch
    >>> LinearCrossEntropy(4, 3)(torch.zeros(2, 4), torch.tensor([0, 2])).shape
    torch.Size([])
    """

    def __init__(self, dim: int, classes: int, scale: float = 1.0) -> None:
        super().__init__()
        self.classifier, self.scale = nn.Linear(dim, classes), scale

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices_tuple: Sequence[Tensor] | None = None,  # noqa: ARG002 - the library's signature
    ) -> Tensor:
        """Compute the mean loss of embeddings [B, dim] with labels [B]."""
        return F.cross_entropy(self.classifier(self.scale * embeddings), labels)


class Mined(nn.Module):
    """A loss of pytorch-metric-learning on what a miner finds.

    Parameters
    ----------
    loss, miner : nn.Module
        Of the library.
    """

    def __init__(self, loss: nn.Module, miner: nn.Module) -> None:
        super().__init__()
        self.loss, self.miner = loss, miner

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of embeddings [B, dim] and labels [B]."""
        found: Tensor = self.loss(embeddings, labels, self.miner(embeddings, labels))
        return found
