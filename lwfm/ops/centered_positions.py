"""Positions of feature maps, centered over channels, and their squared norms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lwfm.ops._expressions import squared_norms
from lwfm.ops._implementation import has_kernels
from lwfm.ops._register import register

if TYPE_CHECKING:
    from collections.abc import Sequence


def centered_positions(
    maps: Sequence[Tensor], dims: Sequence[int], together: bool
) -> tuple[list[Tensor], list[Tensor]]:
    """Compute centered positions [B, P_l, C_l] of each layer and their squared norms [B, P_l].

    ``maps`` are one tensor [B, sum of C_l, F, F] or one [B, C_l, F_l, F_l] per layer, float32 or float64;
    ``dims`` are the C_l. The mean is taken over the channels of all layers ``together`` or of each alone.
    """
    if has_kernels(*maps):
        outputs = torch.ops.lwfm.centered_positions.default(list(maps), list(dims), together)
        return outputs[: len(dims)], outputs[len(dims) :]
    layers = maps if len(maps) == len(dims) else torch.split_with_sizes(maps[0], list(dims), dim=1)
    features = [x.flatten(2).transpose(1, 2) for x in layers]
    if together:
        total = torch.stack([x.sum(-1, keepdim=True) for x in features]).sum(0)  # [B, P, 1]
        features = [x - total / sum(dims) for x in features]
    else:
        features = [x - x.mean(-1, keepdim=True) for x in features]
    return features, [squared_norms(x) for x in features]


@register
class CenteredPositions:
    """``lwfm::centered_positions``, of maps of any strides."""

    name = "centered_positions"

    @staticmethod
    def fake(maps: Sequence[Tensor], dims: Sequence[int], _together: bool) -> list[Tensor]:
        """Allocate the positions of each layer, then their squared norms."""
        layers = [maps[0]] * len(dims) if len(maps) == 1 else maps
        sizes = [(len(x), x.shape[2] * x.shape[3]) for x in layers]
        positions = [x.new_empty(*size, C_l) for x, size, C_l in zip(layers, sizes, dims, strict=True)]
        return positions + [x.new_empty(size) for x, size in zip(layers, sizes, strict=True)]

    @staticmethod
    def backward_fake(
        _grads: Sequence[Tensor], positions: Sequence[Tensor], heights: Sequence[int], _together: bool
    ) -> list[Tensor]:
        """Allocate the gradients of the maps."""
        channels = [x.shape[2] for x in positions]
        if len(heights) == 1:
            channels = [sum(channels)]
        return [
            x.new_empty(len(x), C, height, x.shape[1] // height)
            for x, C, height in zip(positions, channels, heights, strict=False)
        ]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
        """Keep the positions and the heights of the maps."""
        maps, _, ctx.together = inputs
        ctx.heights = [x.shape[2] for x in maps]
        ctx.save_for_backward(*output[: len(output) // 2])

    @staticmethod
    def backward(ctx: Any, grads: list[Tensor]) -> tuple[list[Tensor], None, None]:
        """Differentiate with respect to the maps."""
        operator = torch.ops.lwfm.centered_positions_backward.default
        return operator(grads, list(ctx.saved_tensors), ctx.heights, ctx.together), None, None
