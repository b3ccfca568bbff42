"""Terms of one episode that scores of a study are made of, as plain tensor expressions.

Letters: Q queries, S support images, P and M positions of a support image and a query, C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from lwfm.evaluation.episodes import nearest_class_mean
from lwfm.nn import LWFMHead
from lwfm.ops import layer_wise_embedding, linear_assignment

if TYPE_CHECKING:
    from collections.abc import Sequence

Terms = dict[str, Tensor]
"""Name of a term -> [Q, way]."""

TEMPERATURES = (5, 2, 1)
"""Of layer-wise embedding."""

WEIGHTS_TEMPERATURE = 2.0
"""Of layer-wise embedding where it weighs matches."""

View = tuple[int, int]
"""A layer and the side to which its maps are pooled."""


def title(views: Sequence[View]) -> str:
    """Name some views: ``6@6 7@3 8@3``."""
    return " ".join(f"{layer}@{side}" for layer, side in views)


def episode_terms(
    groups: Sequence[Sequence[View]],
    support: dict[View, Tensor],
    labels: Tensor,
    query: dict[View, Tensor],
) -> Terms:
    """Compute all terms of an episode: matching of every view, class means of every group of views."""
    terms: Terms = {}
    for view in support:
        terms |= layer_terms(title([view]), support[view], labels, query[view])
    for group in groups:
        s_maps, q_maps = [support[view] for view in group], [query[view] for view in group]
        name = title(group)
        terms[f"ncm {name}"] = nearest_class_mean(s_maps, labels, q_maps)
        terms[f"mean {name}"] = base_term(s_maps, labels, q_maps, None)
        for temperature in TEMPERATURES:
            terms[f"lwe {name} t={temperature}"] = base_term(s_maps, labels, q_maps, temperature)
    return terms


def base_term(
    support: Sequence[Tensor], labels: Tensor, query: Sequence[Tensor], temperature: float | None
) -> Tensor:
    """The head's base term [Q, way]; layers are centered together where they share their side."""
    sides = [maps.shape[-1] for maps in support]
    shared = len(set(sides)) == 1
    head = LWFMHead(
        [maps.shape[1] for maps in support],
        feature_size=sides[0] if shared else sides,
        matching_weight=0.0,
        embedding=False,
        attention_temperature=temperature,
    )
    return head.eval().similarities(support, labels, query).base


def layer_terms(name: str, support: Tensor, labels: Tensor, query: Tensor) -> Terms:
    """Every form of matching on one layer: maps [S, C, F, F] and [Q, C, F, F]."""
    s, q = positions(support), positions(query)
    unit_s, unit_q = F.normalize(s, dim=-1), F.normalize(q, dim=-1)
    cosines = torch.einsum("spc,qmc->qspm", unit_s, unit_q)  # [Q, S, P, M]
    columns = linear_assignment(1 - cosines)  # [Q, S, P]
    matched = cosines.gather(-1, columns.unsqueeze(-1)).squeeze(-1)  # [Q, S, P]
    a, b = layer_wise_embedding(s, q, temperature=WEIGHTS_TEMPERATURE)  # [Q, S, P], [Q, S, M]
    best = matched.sort(-1, descending=True).values
    forms = {
        "top 1": best[..., 0],
        "top 3": best[..., :3].mean(-1),
        "all": matched.mean(-1),
        "in place": cosines.diagonal(dim1=-2, dim2=-1).mean(-1),
        "weighted": weighted(matched, columns, a, b),
        "soft": soft_matching(cosines),
    }
    way = int(labels.max()) + 1
    terms = {
        f"{form} {name}": torch.stack([x[:, labels == c].mean(1) for c in range(way)], 1)
        for form, x in forms.items()
    }
    shots = [cosines[:, labels == c].transpose(2, 3).transpose(1, 2).flatten(2) for c in range(way)]
    merged = torch.stack(shots, 1)  # [Q, way, M, K P]
    columns = linear_assignment(1 - merged)  # each query position gets one of all K P support positions
    matched = merged.gather(-1, columns.unsqueeze(-1)).squeeze(-1)  # [Q, way, M]
    terms[f"merged {name}"] = matched.mean(-1)
    terms[f"merged top 3 {name}"] = matched.topk(3, dim=-1).values.mean(-1)
    terms[f"merged nearest {name}"] = merged.amax(-1).mean(-1)  # not one to one
    ends = torch.stack([b[:, labels == c].mean(1) for c in range(way)], 1)  # [Q, way, M]
    terms[f"merged weighted {name}"] = (matched * ends).sum(-1) / ends.sum(-1)
    return terms


def weighted(matched: Tensor, columns: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Average matched cosines [Q, S, P] by the embedding weights a [Q, S, P], b [Q, S, M] of both ends."""
    weights = a * b.gather(-1, columns)
    return (matched * weights).sum(-1) / weights.sum(-1)


def soft_matching(cosines: Tensor) -> Tensor:
    """Expected cosine under a softmax over the other image's positions, both ways: [Q, S, P, M] -> [Q, S].

    What matching is without the one-to-one constraint; the temperature is 0.1.
    """
    one, other = ((cosines * (cosines / 0.1).softmax(dim)).sum(dim).mean(-1) for dim in (-1, -2))
    return (one + other) / 2


def positions(maps: Tensor) -> Tensor:
    """Cut maps [B, C, F, F] into positions [B, P, C], each centered over the layer's channels."""
    x = maps.flatten(2).transpose(1, 2)
    return x - x.mean(-1, keepdim=True)
