"""How backbone maps are cut into layers and centred before the head compares them.

Letters: B pictures, P positions (F x F), C channels, l a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lwfm.blocks import compute_dtype

Maps = Tensor | Sequence[Tensor]
"""One tensor [B, C, F, F] with the layers' channels side by side, or one [B, C_l, F_l, F_l] per layer."""


class MapLayout:
    """The layers of a map: their channels and resolutions.

    Parameters
    ----------
    layer_dims : sequence of int
        C_l of each layer.
    feature_size : int or sequence of int
        F for all layers, which are then centred together over all channels (the paper); or one F_l per
        layer, each centred over its own channels.

    Raises
    ------
    ValueError
        Without layers, or for sizes that are not positive or not one per layer.
    """

    def __init__(self, layer_dims: Sequence[int], feature_size: int | Sequence[int]) -> None:
        self.dims = tuple(layer_dims)
        self.shared = isinstance(feature_size, int)
        self.sizes = (
            (feature_size,) * len(self.dims) if isinstance(feature_size, int) else tuple(feature_size)
        )
        if not self.dims or min(self.dims) < 1:
            raise ValueError(f"layer_dims must name the channels of at least one layer, got {self.dims}")
        if len(self.sizes) != len(self.dims) or min(self.sizes) < 1:
            raise ValueError(
                f"feature_size must be a positive int or one per layer, got {feature_size} "
                f"for {len(self.dims)} layers"
            )

    def layers(self, maps: Maps, name: str) -> list[Tensor]:
        """Cut maps into one [B, C_l, F_l, F_l] per layer, in the dtype the head computes in.

        Raises
        ------
        ValueError
            Naming ``name`` and what was expected, for a wrong shape or dtype.
        """
        if isinstance(maps, Tensor):
            if maps.ndim != 4 or maps.shape[1] != sum(self.dims):
                raise ValueError(f"{name} must be maps [B, {sum(self.dims)}, F, F], got {list(maps.shape)}")
            maps = torch.split_with_sizes(maps, list(self.dims), dim=1)
        pictures = len(maps[0]) if len(maps) else 0
        expected = [[pictures, C_l, F_l, F_l] for C_l, F_l in zip(self.dims, self.sizes, strict=True)]
        shapes = [list(x.shape) for x in maps]
        if shapes != expected:
            raise ValueError(f"{name} must have layers of shape {expected}, got {shapes}")
        if not all(x.is_floating_point() for x in maps):
            raise ValueError(f"{name} must be floating tensors, got {[x.dtype for x in maps]}")
        return [compute_dtype(x) for x in maps]

    def positions(self, maps: Maps, name: str) -> list[Tensor]:
        """Cut maps into layers of centred features [B, P_l, C_l]; errors as in :meth:`layers`."""
        positions = [x.flatten(2).transpose(1, 2) for x in self.layers(maps, name)]
        if not self.shared:
            return [x - x.mean(-1, keepdim=True) for x in positions]
        total = torch.stack([x.sum(-1, keepdim=True) for x in positions]).sum(0)  # [B, P, 1]
        return [x - total / sum(self.dims) for x in positions]
