"""The learned embedding phi by which matched positions are compared."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PixelEmbedding(nn.Sequential):
    """``phi(x) = x + ReLU(W2 ReLU(W1 x))`` on the last dimension, without bias.

    Being positively homogeneous it commutes with any positive weight of a position, which is why the
    head embeds each image once instead of each pair.

    Parameters
    ----------
    dim : int
        C_l, at least 2; the hidden layer has ``dim // 2`` channels.

    Raises
    ------
    ValueError
        For fewer than 2 channels, which would leave the hidden layer empty.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import PixelEmbedding
    >>> PixelEmbedding(8)(torch.ones(2, 9, 8)).shape
    torch.Size([2, 9, 8])
    """

    def __init__(self, dim: int) -> None:
        if dim < 2:
            raise ValueError(f"an embedded layer needs at least 2 channels, got {dim}")
        hidden = dim // 2
        super().__init__(
            nn.Linear(dim, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, dim, bias=False), nn.ReLU()
        )

    def weights(self, dtype: torch.dtype) -> list[Tensor]:
        """Return W1 [C_l // 2, C_l] and W2 [C_l, C_l // 2] in a dtype."""
        first, _, second, _ = self._modules.values()
        w1, w2 = _weight(first), _weight(second)
        return [w1, w2] if w1.dtype is dtype is w2.dtype else [w1.to(dtype), w2.to(dtype)]

    def forward(self, x: Tensor) -> Tensor:
        """Embed x [..., C_l] in its own dtype, whatever the parameters' dtype."""
        w1, w2 = self.weights(x.dtype)
        hidden = F.linear(x, w1).relu_()
        rectified = F.linear(hidden, w2).relu_()
        if torch.is_grad_enabled() or rectified.dtype != x.dtype:
            return x + rectified
        return rectified.add_(x)


def _weight(layer: nn.Module | None) -> Tensor:
    """Return ``layer.weight``, which torch looks for in vain before it looks among parameters."""
    weight = cast("nn.Linear", layer)._parameters.get("weight")
    return cast("nn.Linear", layer).weight if weight is None else weight
