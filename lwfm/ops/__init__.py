"""Operators on torch tensors.

* :func:`linear_assignment` -- batched exact assignment;
* :func:`optimal_transport`, :func:`transport_cost` -- batched exact transport, on the host;
* :func:`semantic_pixel_matching`, :func:`paired_pixel_matching` -- matched positions of images;
* :func:`layer_wise_embedding` -- weights of positions by mutual cross-correlation;
* :func:`implementation` -- choice of kernels or tensor expressions.

All work under ``torch.compile`` and autocast, on CPU and CUDA tensors. Pairs of images are processed by fused
kernels, one pass forward and one backward, in chunks of queries where the blocks of all pairs would take much
memory; they can be differentiated once, in reverse mode. Devices without kernels use tensor expressions, and
so do forward-mode derivatives (``torch.func.jvp``, ``jacfwd``). The other derivatives of ``torch.func``, and
``vmap`` of the head, need :func:`implementation` ``("expressions")``. Meta tensors give meta tensors.
"""

from __future__ import annotations

from lwfm.ops._implementation import implementation
from lwfm.ops.embedding_weights import layer_wise_embedding
from lwfm.ops.feature_matching import paired_pixel_matching, semantic_pixel_matching
from lwfm.ops.linear_assignment import linear_assignment
from lwfm.ops.optimal_transport import optimal_transport, transport_cost

__all__ = [
    "implementation",
    "layer_wise_embedding",
    "linear_assignment",
    "optimal_transport",
    "paired_pixel_matching",
    "semantic_pixel_matching",
    "transport_cost",
]
