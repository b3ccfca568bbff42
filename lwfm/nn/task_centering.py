"""Episodes centered by their task: the mean over its support positions is subtracted from all positions.

Letters: n encoded images, E episodes, S support images and Q queries of each, P positions, C channels,
l a layer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lwfm.ops._expressions import squared_norms
from lwfm.ops.encode_maps import EncodedMaps
from lwfm.ops.episodes import compare_episodes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lwfm.ops.class_lists import ClassLists
    from lwfm.ops.episodes import EpisodeOptions

HeadCentre = Literal["channels", "task", "episode"]
"""What is subtracted from positions: the mean over the channels of each; and then also the mean of all
support positions of the episode, or of those of support images and queries (transductive)."""

# Bytes of encoded images that are copied at a time: within a processor's cache, or enough to fill a GPU.
_COPIED_BYTES = {"cpu": 1 << 22, "cuda": 1 << 29}


def task_means(images: EncodedMaps) -> tuple[Tensor, ...]:
    """Compute the mean over all positions of all images, [C_l] of each layer.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import LWFMHead
    >>> from lwfm.nn.task_centering import task_means
    >>> [x.shape for x in task_means(LWFMHead([4, 8]).encode(torch.rand(6, 12, 3, 3)))]
    [torch.Size([4]), torch.Size([8])]
    """
    return tuple(x.mean((0, 1)) for x in images.positions)


def center_positions(images: EncodedMaps, means: Sequence[Tensor]) -> EncodedMaps:
    """Subtract means from the positions of images; squares and Grams follow, embedded positions stay.

    Parameters
    ----------
    images : EncodedMaps
        n images.
    means : sequence of Tensor
        Of each layer [C_l] for all images, or [n, C_l].

    Returns
    -------
    EncodedMaps
        Differentiable with respect to positions and means; the embedding sees positions as they were. Without
        an embedding, matched positions are compared by the centered ones.

    Examples
    --------
    >>> import torch
    >>> from lwfm.nn import LWFMHead
    >>> from lwfm.nn.task_centering import center_positions, task_means
    >>> images = LWFMHead([4, 8]).encode(torch.rand(6, 12, 3, 3))
    >>> centered = center_positions(images, task_means(images[:2]))
    >>> bool(centered.positions[0][:2].mean((0, 1)).abs().max() < 1e-6)
    True
    """
    positions = tuple(
        x - (mean if mean.ndim == 1 else mean.unsqueeze(1))
        for x, mean in zip(images.positions, means, strict=True)
    )
    with torch.no_grad():
        squares = tuple(squared_norms(x) for x in positions)
        grams = tuple(x @ x.transpose(1, 2) for x in positions)
    return EncodedMaps(positions, squares, grams, images.embedded, images.embedded_squares)


def compare_centered(
    images: EncodedMaps,
    classes: ClassLists,
    lists: tuple[Tensor, Tensor] | None,
    options: EpisodeOptions,
    centre: HeadCentre,
    *,
    features: bool,
    task: EncodedMaps | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare queries with classes after centering by the task.

    Parameters
    ----------
    images, classes, lists, options, features
        As :func:`lwfm.ops.episodes.compare_episodes` takes them.
    centre : {"task", "episode"}
        Whether the mean is that of the support images, or of all images of an episode.
    task : EncodedMaps, optional
        Images whose mean is subtracted instead, in every episode.

    Returns
    -------
    base, matching, features : Tensor
        As :func:`lwfm.ops.episodes.compare_episodes` returns them; features without the centering.
    """
    S = len(classes.order)
    if lists is None or task is not None:
        if task is None:
            task = images if centre == "episode" else images[:S]
        means = task_means(task)
        centered = center_positions(images, means)
        base, matching, query = compare_episodes(centered, classes, lists, options, features=features)
        # The weights of a query's positions sum to 1.
        return base, matching, query + torch.cat(means) if features else query
    of_image = sum(x[0].numel() * x.element_size() for x in (*images.positions, *images.embedded))
    of_episode = of_image * (lists[0].shape[1] + lists[1].shape[1])
    count = max(_COPIED_BYTES.get(images.device.type, 1 << 22) // max(of_episode, 1), 1)
    chunks = [
        _compare_tasks(images, classes, support, query, options, centre, features=features)
        for support, query in zip(*(torch.split(x, count) for x in lists), strict=True)
    ]
    base, matching, query = (torch.cat(terms) for terms in zip(*chunks, strict=True))
    return base, matching, query


def _compare_tasks(
    images: EncodedMaps,
    classes: ClassLists,
    support: Tensor,
    query: Tensor,
    options: EpisodeOptions,
    centre: HeadCentre,
    *,
    features: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compare episodes [E, S] and [E, Q] of images, each with a mean of its own."""
    E, S = support.shape
    count = S + query.shape[1]
    copies = images[torch.cat([support, query], 1).flatten()]  # an image has another mean in each episode
    of_task = count if centre == "episode" else S
    means = [x.view(E, count, *x.shape[1:])[:, :of_task].mean((1, 2)) for x in copies.positions]
    centered = center_positions(copies, [mean.repeat_interleave(count, 0) for mean in means])
    places = torch.arange(E * count, device=images.device).view(E, count)
    lists = places[:, :S].contiguous(), places[:, S:].contiguous()
    base, matching, mean_query = compare_episodes(centered, classes, lists, options, features=features)
    return base, matching, mean_query + torch.cat(means, 1).unsqueeze(1) if features else mean_query
