"""Explanation of the similarity of two images: their weights, matches and cosines, layer by layer.

Letters: P positions (F x F), l a layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lwfm.nn.task_centering import center_positions, task_means
from lwfm.ops import layer_wise_embedding, paired_pixel_matching
from lwfm.ops._expressions import paired_blocks, without_autocast

if TYPE_CHECKING:
    from lwfm.nn.head import LWFMHead
    from lwfm.nn.map_layout import Maps
    from lwfm.ops.encode_maps import EncodedMaps


@dataclass(frozen=True)
class LayerMatch:
    """Correspondence of the positions of one layer of an image pair.

    Positions count row by row, from the upper left.

    Attributes
    ----------
    support_weights, query_weights : Tensor
        [P] float: LWE weights; they sum to P, so 1 is the average position.
    assignment : Tensor
        [P] int64: the query position that each support position is matched with.
    similarities : Tensor
        [P] float in -1..1: cosine of each matched pair after the embedding.
    """

    support_weights: Tensor
    query_weights: Tensor
    assignment: Tensor
    similarities: Tensor

    @property
    def feature_size(self) -> int:
        """F, positions along a side."""
        return math.isqrt(len(self.assignment))


@torch.no_grad()
def explain_pair(
    head: LWFMHead, support: Maps, query: Maps, *, task: EncodedMaps | None = None
) -> tuple[LayerMatch, ...]:
    """Match one support image with one query, layer by layer, as the head does.

    Parameters
    ----------
    head : LWFMHead
        Its embedding, temperature and layout are used.
    support, query : Tensor or sequence of Tensor
        Maps of one image each: [1, C, F, F], or one [1, C_l, F_l, F_l] per layer.
    task : EncodedMaps, optional
        Support images of the task, for a head that centers by their mean. None: both images are compared as
        they are, centered over channels.

    Returns
    -------
    tuple of LayerMatch
        One per layer, on the CPU.

    Raises
    ------
    ValueError
        For maps of the wrong shape or dtype, or of several images.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import LWFMHead
    >>> from lwfm.nn.explain import explain_pair
    >>> head = LWFMHead([4, 8], feature_size=2)
    >>> maps = torch.rand(1, 12, 2, 2)
    >>> [match.assignment.tolist() for match in explain_pair(head, maps, maps)]
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    both = head.encode(support), head.encode(query)
    for images in both:
        if len(images) != 1:
            raise ValueError(f"one image each is explained, got {len(both[0])} and {len(both[1])}")
    with without_autocast(both[0].device):
        compared = both
        if task is not None and head.centre != "channels":
            means = task_means(task)
            compared = center_positions(both[0], means), center_positions(both[1], means)
        layers = range(len(both[0].positions))
        return tuple(_explain_layer(head, layer, compared, both) for layer in layers)


def _explain_layer(
    head: LWFMHead,
    layer: int,
    compared: tuple[EncodedMaps, EncodedMaps],
    own: tuple[EncodedMaps, EncodedMaps],
) -> LayerMatch:
    """Match one layer of two images; ``own`` is not centered by the task, as the embedding needs it."""
    s, q = (images.positions[layer] for images in compared)
    a, b = layer_wise_embedding(s, q, temperature=head.attention_temperature)
    assignment = paired_pixel_matching(s, q)[1]
    if head.embeddings:  # also where the head does not match
        embed = head.embeddings[layer]
        s, q = (embed(images.positions[layer]) for images in own)
    similarities = paired_blocks(s, q).values().gather(-1, assignment.unsqueeze(-1)).squeeze(-1)
    results = (a[0], b[0], assignment, similarities)
    return LayerMatch(*(x.squeeze(0).cpu() for x in results))
