"""Layers of backbone maps: their channels and resolutions.

Letters: B images, C channels, F side of a map, l a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lwfm.ops._expressions import compute_dtype

Maps = Tensor | Sequence[Tensor]
"""One tensor [B, C, F, F] with the layers' channels side by side, or one [B, C_l, F_l, F_l] per layer."""


class MapLayout:
    """The layers of a map: their channels and resolutions.

    Parameters
    ----------
    layer_dims : sequence of int
        C_l of each layer.
    feature_size : int or sequence of int
        F for all layers, which are then centered together over all channels (the paper); or one F_l per
        layer, each centered over its own channels.

    Raises
    ------
    ValueError
        Without layers, or for sizes that are not positive or not one per layer.
    """

    def __init__(self, layer_dims: Sequence[int], feature_size: int | Sequence[int]) -> None:
        self.dims = tuple(layer_dims)
        self.channels = sum(self.dims)
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
        # Of maps whose layers are one tensor.
        self._joined = (self.channels, self.sizes[0], self.sizes[0]) if len(set(self.sizes)) == 1 else None

    def layers(self, maps: Maps, name: str) -> list[Tensor]:
        """Split maps into one [B, C_l, F_l, F_l] per layer, in the dtype the head computes in.

        Raises
        ------
        ValueError
            Naming ``name`` and what was expected, for a wrong shape or dtype.
        """
        tensors = self.checked(maps, name)
        return (
            tensors
            if len(tensors) == len(self.dims)
            else list(torch.split_with_sizes(tensors[0], list(self.dims), dim=1))
        )

    def checked(self, maps: Maps, name: str) -> list[Tensor]:
        """Return the maps, one tensor or one per layer, in the dtype the head computes in.

        Raises
        ------
        ValueError
            As :meth:`layers`.
        """
        if isinstance(maps, Tensor):
            tensors, shape = [maps], maps.shape
            if maps.dtype in (torch.float32, torch.float64) and shape[1:] == self._joined:
                return tensors  # before lists are made, which takes as long as a small episode
            if maps.ndim != 4 or shape[1] != self.channels:
                raise ValueError(f"{name} must be maps [B, {self.channels}, F, F], got {list(shape)}")
            B, _, height, width = shape
            shapes = [[B, C_l, height, width] for C_l in self.dims]
        else:
            tensors = list(maps)
            shapes = [list(x.shape) for x in tensors]
        images = shapes[0][0] if shapes and shapes[0] else 0
        expected = [[images, C_l, F_l, F_l] for C_l, F_l in zip(self.dims, self.sizes, strict=True)]
        if shapes != expected:
            raise ValueError(f"{name} must have layers of shape {expected}, got {shapes}")
        if not all(x.is_floating_point() for x in tensors):
            raise ValueError(f"{name} must be floating tensors, got {[x.dtype for x in tensors]}")
        tensors = [compute_dtype(x) for x in tensors]
        if len({x.dtype for x in tensors}) > 1:
            raise ValueError(f"{name} must be of one dtype, got {[x.dtype for x in tensors]}")
        return tensors
