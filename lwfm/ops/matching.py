"""Operators on torch tensors.

All work under ``torch.compile`` and autocast, on CPU and CUDA tensors. On the CPU the pairs of images are
worked on by fused operators of the namespace ``lwfm``, one pass forward and one backward (see
:mod:`lwfm.ops._expressions`), in chunks of queries where the blocks of all pairs would take much memory; they
can be differentiated once.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lwfm.ops._expressions import (
    compute_dtype,
    correlation_scale,
    cosine_blocks,
    embedding_weights,
    feature_matching,
    over_queries,
    pair_blocks,
    paired_blocks,
    raw_correlation,
    squared_norms,
)
from lwfm.ops.assignment import linear_assignment

__all__ = [
    "layer_wise_embedding",
    "linear_assignment",
    "paired_pixel_matching",
    "semantic_pixel_matching",
]


def semantic_pixel_matching(
    support: Tensor,
    query: Tensor,
    *,
    support_embedded: Tensor | None = None,
    query_embedded: Tensor | None = None,
    top_k: int | None = 1,
) -> tuple[Tensor, Tensor]:
    """Match every support image with every query, position by position (SPM).

    For each pair, positions are assigned one to one so that the total of
    ``cost[i, j] = 1 - cos(support_i, query_j)`` is least; the similarity is the mean of the ``top_k``
    largest cosines over the assigned positions, taken from the embedded features where they are given.
    No gradient flows through the assignment. A zero vector has cosine 0.

    Parameters
    ----------
    support : Tensor
        [S, P, C]: S images of P positions with C channels; any floating dtype.
    query : Tensor
        [Q, M, C], same dtype and device; M may differ from P.
    support_embedded, query_embedded : Tensor, optional
        [S, P, D] and [Q, M, D]: the features that the similarity compares; both or neither.
        Default: ``support`` and ``query``.
    top_k : int or None
        How many matched pairs are averaged, 1 to min(P, M); None for all. 1 is the paper's maximum.

    Returns
    -------
    similarity : Tensor
        [Q, S], in -1..1; float64 for float64 input, else float32. Differentiable.
    assignment : Tensor
        [Q, S, P] int64: the query position of each support position, -1 where unmatched (P > M).

    Raises
    ------
    ValueError
        For a wrong rank, dtype, device, channel count or ``top_k``, or NaN features: the message names
        the first pair [query, support].

    References
    ----------
    "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot Learning", arXiv 2411.06363.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import semantic_pixel_matching
    >>> support = torch.eye(3)[None]  # [1, 3, 3]: three positions
    >>> similarity, assignment = semantic_pixel_matching(support, support[:, [2, 0, 1]], top_k=None)
    >>> similarity, assignment
    (tensor([[1.]]), tensor([[[1, 2, 0]]]))
    """
    features = _matching_features(support, query, support_embedded, query_embedded, top_k)
    (support, query), (support_embedded, query_embedded) = features[0], features[-1]
    with torch.autocast(support.device.type, enabled=False):

        def match(query: Tensor, query_embedded: Tensor) -> tuple[Tensor, Tensor]:
            cosines = cosine_blocks(support.detach(), query.detach())
            return feature_matching(cosines, support_embedded, query_embedded, top_k)

        (S, P, _), M = support.shape, query.shape[1]
        query_bytes = S * P * M * support.element_size()
        similarity, assignment = over_queries(match, (query, query_embedded), query_bytes)
        return similarity, assignment


def paired_pixel_matching(
    support: Tensor,
    query: Tensor,
    *,
    support_embedded: Tensor | None = None,
    query_embedded: Tensor | None = None,
    top_k: int | None = 1,
) -> tuple[Tensor, Tensor]:
    """Match support image b with query b only: :func:`semantic_pixel_matching` on paired batches.

    Parameters
    ----------
    support, query : Tensor
        [B, P, C] and [B, M, C], same floating dtype and device.
    support_embedded, query_embedded : Tensor, optional
        [B, P, D] and [B, M, D]; both or neither. Default: ``support`` and ``query``.
    top_k : int or None
        How many matched pairs are averaged, 1 to min(P, M); None for all.

    Returns
    -------
    similarity : Tensor
        [B], in -1..1; float64 for float64 input, else float32. Differentiable.
    assignment : Tensor
        [B, P] int64: the query position of each support position, -1 where unmatched (P > M).

    Raises
    ------
    ValueError
        As :func:`semantic_pixel_matching`, and for unequal batch sizes.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import paired_pixel_matching
    >>> similarity, assignment = paired_pixel_matching(torch.eye(3)[None], -torch.eye(3)[None])
    >>> similarity.shape, assignment.shape
    (torch.Size([1]), torch.Size([1, 3]))
    """
    features = _matching_features(support, query, support_embedded, query_embedded, top_k)
    if len(support) != len(query):
        raise ValueError(f"support and query pair up, but there are {len(support)} and {len(query)} images")
    with torch.autocast(support.device.type, enabled=False):
        cosines = paired_blocks(*(x.detach() for x in features[0]))
        return feature_matching(cosines, *features[-1], top_k)


def layer_wise_embedding(
    support: Tensor, query: Tensor, *, temperature: float = 5.0
) -> tuple[Tensor, Tensor]:
    """Weigh positions by mutual cross-correlation (LWE), for every (query, support) pair.

    A position of one image weighs much where the other image has something that correlates with it.
    Each row of weights sums to the number of positions of the other image.

    Parameters
    ----------
    support, query : Tensor
        [S, P, C] and [Q, M, C] of one backbone layer, centered over channels; same floating dtype, device.
    temperature : float
        Softens the softmax over positions; positive. The paper: 5, on CUB 2.

    Returns
    -------
    support_weights, query_weights : Tensor
        [Q, S, P] and [Q, S, M], positive; float64 for float64 input, else float32. Differentiable.

    Raises
    ------
    ValueError
        For a wrong rank, dtype, device, channel count or temperature.

    References
    ----------
    "Layer-Wise Feature Metric of Semantic-Pixel Matching for Few-Shot Learning", arXiv 2411.06363.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import layer_wise_embedding
    >>> a, b = layer_wise_embedding(torch.eye(4)[None], torch.eye(4)[None])
    >>> a.shape, bool(a.sum().isclose(torch.tensor(4.0)))
    (torch.Size([1, 1, 4]), True)
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    ((support, query),) = _matching_features(support, query, None, None, None)
    with torch.autocast(support.device.type, enabled=False):
        raw = raw_correlation(support, query)
        scales = [correlation_scale(squared_norms(x)) for x in (support, query)]
        correlation = pair_blocks(raw, *scales)
        return embedding_weights(correlation, temperature)[:2]


def _matching_features(
    support: Tensor,
    query: Tensor,
    support_embedded: Tensor | None,
    query_embedded: Tensor | None,
    top_k: int | None,
) -> list[tuple[Tensor, Tensor]]:
    """Check what the matching functions take -> (support, query) and the embedded two if given."""
    pairs = [("support", support, "query", query)]
    if support_embedded is not None and query_embedded is not None:
        pairs.append(("support_embedded", support_embedded, "query_embedded", query_embedded))
    elif support_embedded is not None or query_embedded is not None:
        raise ValueError("give both support_embedded and query_embedded, or neither")
    for name_s, s, name_q, q in pairs:
        for name, x, images in ((name_s, s, support), (name_q, q, query)):
            if x.ndim != 3 or not x.is_floating_point():
                raise ValueError(
                    f"{name} must be a floating tensor [images, positions, channels], "
                    f"got {x.dtype} of shape {list(x.shape)}"
                )
            if x.device != support.device or x.dtype != support.dtype:
                raise ValueError(
                    f"{name} is {x.dtype} on {x.device}, but support is {support.dtype} on {support.device}"
                )
            if x.shape[:2] != images.shape[:2]:
                raise ValueError(
                    f"{name} has shape {list(x.shape)}, but its images have {list(images.shape)}"
                )
        if s.shape[2] != q.shape[2]:
            raise ValueError(f"{name_s} has {s.shape[2]} channels, but {name_q} has {q.shape[2]}")
    matched = min(support.shape[1], query.shape[1])
    if matched == 0 or (top_k is not None and not 1 <= top_k <= matched):
        raise ValueError(f"top_k must be 1 to {matched} (matched pairs) or None, got {top_k}")
    return [(compute_dtype(s), compute_dtype(q)) for _, s, _, q in pairs]
