"""Ridge regression of the classes on statistics of encoded images, one closed-form solution an episode.

Letters: n encoded images, V further views of each, E episodes, S support images and Q queries of each,
P positions, C channels, D the statistics of an image, l a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from lwfm._common.regression_constants import FLOOR, RIDGE, statistic_lengths, view_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lwfm.nn.task_centering import HeadCentre
    from lwfm.ops.class_lists import ClassLists
    from lwfm.ops.encode_maps import EncodedMaps

_ROUNDS, _QUERY_WEIGHT = 5, 0.3
"""Of a transductive regression: how often the queries join the support images, and with what weight each."""
_CHUNK_BYTES = 1 << 28


def image_statistics(images: EncodedMaps) -> tuple[Tensor, ...]:
    """Compute mean and spread (standard deviation) of the positions of each layer, of length 1 each.

    Returns
    -------
    tuple of Tensor
        [n, C_l] twice for each layer: means, then spreads; zeros where all positions are equal.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import LWFMHead
    >>> from lwfm.nn.regression import image_statistics
    >>> [x.shape[1] for x in image_statistics(LWFMHead([4, 8]).encode(torch.rand(6, 12, 3, 3)))]
    [4, 4, 8, 8]
    """
    statistics = []
    for positions in images.positions:
        variance = positions.var(1, correction=0)
        floor = torch.finfo(variance.dtype).tiny  # the root of 0 has no gradient
        statistics += [F.normalize(x, dim=-1) for x in (positions.mean(1), variance.clamp_min(floor).sqrt())]
    return tuple(statistics)


def regression_scores(
    images: EncodedMaps,
    classes: ClassLists,
    lists: tuple[Tensor, Tensor] | None,
    centre: HeadCentre,
    task: EncodedMaps | None = None,
    views: Sequence[Tensor] | None = None,
) -> Tensor:
    """Predict the classes of queries by a ridge regression of the support images' classes.

    Parameters
    ----------
    images, classes, lists
        As :func:`lwfm.ops.episodes.compare_episodes` takes them.
    centre : {"channels", "task", "episode"}
        Statistics are centered by the mean of the support images, each class counting alike. With
        ``episode`` by that of all images of the episode, and the regression is transductive: the queries
        join the support images with the classes that it predicted for them, five times.
    task : EncodedMaps, optional
        Images whose mean is subtracted instead, in every episode.
    views : sequence of Tensor, optional
        Statistics [n, V, C_l] of further views of the images (mirrored, enlarged), [S, V, C_l] of the support
        images without lists. A support image and its views share the weight of one image: the image
        and the first view, mirrored, have a quarter each, all others together one half.

    Returns
    -------
    Tensor
        [E, Q, way], or [Q, way] without lists: about 1 - 1/way for the right class and -1/way for the others.
        Differentiable with respect to positions.

    Notes
    -----
    The regression of [1]_ in closed form: as many equations as images or as statistics, whichever are fewer.
    Each support image is weighted by the inverse of its class's shots. Each statistic has a fixed share of
    the squared length of an image's features. Nothing assumes that queries are of all classes alike, but
    where a batch has few of some classes the transductive form gains less, or loses.

    References
    ----------
    .. [1] Bertinetto et al., "Meta-learning with differentiable closed-form solvers", ICLR 2019.
    """
    S = len(classes)
    statistics = image_statistics(images)
    fixed = None if task is None else [x.mean(0) for x in image_statistics(task)]
    if lists is None:
        support, query = ([x[None, part] for x in statistics] for part in (slice(S), slice(S, None)))
        if views is not None:
            support = _with_views(support, [x[None] for x in views])
        return _regress(support, query, classes, centre, fixed)[0]
    rows = S if views is None else S * (1 + views[0].shape[1])
    count = sum(x.shape[1] for x in statistics) * (rows + lists[1].shape[1]) * statistics[0].element_size()
    chunks = []
    for pair in zip(*(torch.split(x, max(_CHUNK_BYTES // count, 1)) for x in lists), strict=True):
        support, query = ([x[rows] for x in statistics] for rows in pair)
        if views is not None:
            support = _with_views(support, [x[pair[0]] for x in views])
        chunks.append(_regress(support, query, classes, centre, fixed))
    return torch.cat(chunks)


def _with_views(support: Sequence[Tensor], views: Sequence[Tensor]) -> list[Tensor]:
    """Put the views [E, S, V, C_l] of each image behind it -> [E, S * (1 + V), C_l]."""
    return [torch.cat([x.unsqueeze(2), v], 2).flatten(1, 2) for x, v in zip(support, views, strict=True)]


def _regress(
    support: Sequence[Tensor],
    query: Sequence[Tensor],
    classes: ClassLists,
    centre: HeadCentre,
    fixed: Sequence[Tensor] | None,
) -> Tensor:
    """Predict [E, Q, way] from the statistics [E, S * (1 + V), C_l] and [E, Q, C_l] of each kind."""
    S = len(classes)
    alike = support[0].shape[1] // S
    parts = support[0].new_tensor(view_weights(alike - 1)).repeat(S)  # of an image, [S * (1 + V)]
    share = classes.share.to(parts).repeat_interleave(alike, 0) * parts[:, None]  # [S * (1 + V), way]
    weights = share.sum(1) / classes.way  # of the images, of sum 1
    x, q = _features(support, query, weights, parts, centre, fixed)
    targets = ((share > 0).to(x) - 1 / classes.way).expand(len(x), -1, -1)
    weights = S * weights
    scores = q @ _solve(x, targets, weights)
    if centre != "episode" or not q.shape[1]:
        return scores
    images = torch.cat([x, q], 1)
    weights = torch.cat([weights, weights.new_full((q.shape[1],), _QUERY_WEIGHT)])
    for _ in range(_ROUNDS):
        predicted = _probabilities(scores.detach()) - 1 / classes.way
        scores = q @ _solve(images, torch.cat([targets, predicted], 1), weights)
    return scores


def _probabilities(scores: Tensor) -> Tensor:
    """Return the softmax of scores [E, Q, way], divided by their standard deviation in the episode."""
    spread = scores.var((1, 2), correction=0, keepdim=True).sqrt()
    return (scores / spread.clamp_min(torch.finfo(scores.dtype).tiny)).softmax(-1)


def _solve(x: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Solve the weighted ridge regression of targets [E, n, way] on features [E, n, D] -> [E, D, way]."""
    n, D = x.shape[1:]
    if n <= D:
        system = x @ x.mT + torch.diag(RIDGE / weights)
        solution: Tensor = x.mT @ torch.linalg.solve(system, targets)
    else:
        weighted = x.mT * weights
        system = weighted @ x + RIDGE * torch.eye(D, dtype=x.dtype, device=x.device)
        solution = torch.linalg.solve(system, weighted @ targets)
    return solution


def _features(
    support: Sequence[Tensor],
    query: Sequence[Tensor],
    weights: Tensor,
    parts_of_images: Tensor,
    centre: HeadCentre,
    fixed: Sequence[Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """Center each statistic, bring it to its share of the length, and place all side by side: [E, ., D]."""
    lengths = statistic_lengths(len(support) // 2)
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for k, (s, q) in enumerate(zip(support, query, strict=True)):
        if fixed is not None:
            mean = fixed[k]
        elif centre == "episode":
            total = (parts_of_images @ s).unsqueeze(1) + q.sum(1, keepdim=True)
            mean = total / (parts_of_images.sum() + q.shape[1])
        else:
            mean = (weights @ s).unsqueeze(1)
        for part, x in zip(parts, (s, q), strict=True):
            part.append(lengths[k] * F.normalize(x - mean, dim=-1, eps=FLOOR))
    return torch.cat(parts[0], -1), torch.cat(parts[1], -1)
