"""Operators on torch tensors.

* :func:`linear_assignment` -- batched exact assignment;
* :func:`semantic_pixel_matching`, :func:`paired_pixel_matching` -- matched positions of images;
* :func:`layer_wise_embedding` -- weights of positions by mutual cross-correlation.
"""

from __future__ import annotations

from lwfm.ops.assignment import linear_assignment
from lwfm.ops.matching import layer_wise_embedding, paired_pixel_matching, semantic_pixel_matching

__all__ = [
    "layer_wise_embedding",
    "linear_assignment",
    "paired_pixel_matching",
    "semantic_pixel_matching",
]
