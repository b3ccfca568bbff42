"""Episodes on cached maps: every image passes the backbone once, then all methods see the same maps."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from lwfm.data import episode_labels, image_loader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lwfm.data import ImageSet
    from lwfm.model import LWFM
    from lwfm.nn import LWFMHead

BASELINE = "nearest_class_mean"
METHODS = ("lwfm", "base", "matching", BASELINE)
"""Methods compared: the whole head, its base term alone, its matching term alone, and the baseline."""


@dataclass(frozen=True)
class CachedMaps:
    """Maps of some images of a set.

    Attributes
    ----------
    layers : tuple of Tensor
        [n, C_l, F_l, F_l] each, for the n images that were encoded.
    rows : Tensor
        [images of the set] int64: where an image's maps stand, -1 for one that was not encoded.
    """

    layers: tuple[Tensor, ...]
    rows: Tensor

    @classmethod
    def build(cls, layers: tuple[Tensor, ...], indices: Sequence[int], images: int) -> CachedMaps:
        """Build from maps in the order of ``indices``, out of a set of ``images`` images."""
        rows = torch.full((images,), -1)
        rows[torch.as_tensor(indices)] = torch.arange(len(indices))
        return cls(layers, rows)

    def select(self, indices: Sequence[int]) -> tuple[Tensor, ...]:
        """Look up the maps of the images with these indices in the set, in this order, at least float32."""
        rows = self.rows[torch.as_tensor(indices)].to(self.layers[0].device)
        return tuple(layer[rows].to(torch.promote_types(layer.dtype, torch.float32)) for layer in self.layers)


@dataclass(frozen=True)
class HeadOnMaps:
    """A head, and how it reads maps that were made for several heads.

    Attributes
    ----------
    head : LWFMHead
        In evaluation mode.
    places : tuple of int
        Which of the cached layers it compares.
    sizes : tuple of int
        The sides F_l to which it pools them.
    """

    head: LWFMHead
    places: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def whole(cls, head: LWFMHead) -> HeadOnMaps:
        """Read all layers as they are."""
        return cls(head, tuple(range(len(head.layout.sizes))), head.layout.sizes)

    def read(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Choose from the cached layers [B, C_l, F, F] and pool them to [B, C_l, F_l, F_l]."""
        return tuple(
            maps[place] if maps[place].shape[-1] == size else F.adaptive_avg_pool2d(maps[place], size)
            for place, size in zip(self.places, self.sizes, strict=True)
        )


def encode_images(
    model: LWFM,
    images: ImageSet,
    indices: Sequence[int],
    *,
    batch_size: int = 64,
    workers: int = 0,
    bar: bool = True,
) -> CachedMaps:
    """Send images through the backbone, each once, on the device where the model is.

    Parameters
    ----------
    model : LWFM
        Put into evaluation mode.
    images : ImageSet
        Where the images are.
    indices : sequence of int
        Which of them; see :func:`lwfm.data.images_needed`.
    batch_size, workers : int
        How many images at a time, and how many processes decode them (0: this one).
    bar : bool
        Whether to show a progress bar on a terminal.

    Returns
    -------
    CachedMaps
    """
    batches = encoded_batches(model, images, indices, batch_size=batch_size, workers=workers, bar=bar)
    layers = tuple(torch.cat(layer) for layer in zip(*batches, strict=True))
    return CachedMaps.build(layers, indices, len(images.labels))


@torch.inference_mode()
def encoded_batches(
    model: LWFM,
    images: ImageSet,
    indices: Sequence[int],
    *,
    batch_size: int,
    workers: int,
    bar: bool = True,
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the per-layer maps [B, C_l, F_l, F_l] batch by batch; arguments as in :func:`encode_images`."""
    model.eval()
    device = next(model.parameters()).device
    loader = image_loader(
        images,
        indices,
        image_size=model.config.image_size,
        normalization=model.normalization or images.normalization,
        batch_size=batch_size,
        workers=workers,
    )
    with tqdm(
        total=len(indices), desc="encoding images", unit="image", delay=2, leave=False, disable=shown(bar)
    ) as progress:
        for batch, _ in loader:
            yield model.encode(batch.to(device, memory_format=torch.channels_last))
            progress.update(len(batch))


def shown(bar: bool) -> bool | None:
    """Say it as tqdm wants to hear it: None shows a bar, but only on a terminal."""
    return None if bar else True


def nearest_class_mean(support: Sequence[Tensor], support_labels: Tensor, query: Sequence[Tensor]) -> Tensor:
    """Cosine between each query's mean feature and the mean of each class's support features.

    An image's feature is the global average of every layer's map, concatenated and L2-normalized.

    Parameters
    ----------
    support, query : sequence of Tensor
        Per-layer maps [S, C_l, F_l, F_l] and [Q, C_l, F_l, F_l].
    support_labels : Tensor
        [S] int64 in 0..way-1; shots per class may differ.

    Returns
    -------
    Tensor
        [Q, way].

    Examples
    --------
    >>> maps = (torch.eye(2).reshape(2, 2, 1, 1),)
    >>> nearest_class_mean(maps, torch.tensor([0, 1]), maps)
    tensor([[1., 0.],
            [0., 1.]])
    """
    support_features, query_features = global_features(support), global_features(query)
    membership = F.one_hot(support_labels).to(support_features.dtype)  # [S, way]
    means = (membership / membership.sum(0)).T @ support_features  # [way, C]
    return query_features @ F.normalize(means, dim=-1).T


def global_features(maps: Sequence[Tensor]) -> Tensor:
    """L2-normalized, concatenated global averages [B, C] of per-layer maps."""
    return F.normalize(torch.cat([layer.mean((-2, -1)) for layer in maps], dim=-1), dim=-1)


def episode_scores(
    head: LWFMHead, support: Sequence[Tensor], support_labels: Tensor, query: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Scores [Q, way] of every method of :data:`METHODS` on one episode (no ``matching`` at weight 0)."""
    similarities = head.similarities(support, support_labels, query)
    scores = {"lwfm": similarities.base + similarities.matching, "base": similarities.base}
    if head.matching_weight > 0:
        scores["matching"] = similarities.matching
    scores[BASELINE] = nearest_class_mean(support, support_labels, query)
    return scores


@torch.inference_mode()
def run_episodes(
    head: LWFMHead | HeadOnMaps,
    maps: CachedMaps,
    episodes: Sequence[Sequence[int]],
    *,
    way: int,
    shot: int,
    others: Mapping[str, HeadOnMaps] = MappingProxyType({}),
    bar: bool = True,
) -> dict[str, Tensor]:
    """Classify the queries of many episodes by every method.

    Parameters
    ----------
    head : LWFMHead or HeadOnMaps
        In evaluation mode; a head alone compares all layers as they are.
    maps : CachedMaps
        Of at least the images in ``episodes``.
    episodes : sequence of sequence of int
        ImageLike indices as :class:`lwfm.data.EpisodeSampler` gives them: way * shot support images
        (label = position mod way), then the queries, ordered alike.
    way, shot : int
        Classes, and support images of each, in an episode.
    others : dict of str to HeadOnMaps
        Further heads, each a method of its name.
    bar : bool
        Whether to show a progress bar on a terminal.

    Returns
    -------
    dict of str to Tensor
        For each method, [episodes, Q] int64 on the CPU: what it took each query for, in 0..way-1. What the
        queries are is :func:`lwfm.data.episode_labels`, see :func:`accuracy_of`.
    """
    device = maps.layers[0].device
    supports = way * shot
    support_labels = episode_labels(way, shot).to(device)
    answers: dict[str, list[Tensor]] = {}
    own = head if isinstance(head, HeadOnMaps) else HeadOnMaps.whole(head)
    for episode in tqdm(
        episodes, desc=f"{way}-way {shot}-shot", unit="episode", delay=2, leave=False, disable=shown(bar)
    ):
        support, query = maps.select(episode[:supports]), maps.select(episode[supports:])
        scored = episode_scores(own.head, own.read(support), support_labels, own.read(query))
        for name, other in others.items():
            parts = other.head.similarities(other.read(support), support_labels, other.read(query))
            scored[name] = parts.base + parts.matching
        for method, scores in scored.items():
            answers.setdefault(method, []).append(scores.argmax(-1))
    return {method: torch.stack(given).cpu() for method, given in answers.items()}


def accuracy_of(answers: Tensor, way: int) -> Tensor:
    """Give the share of right answers of all episodes; answers [episodes, Q] from :func:`run_episodes`.

    Examples
    --------
    >>> accuracy_of(torch.tensor([[0, 1, 0, 0]]), way=2)
    tensor(0.7500)
    """
    return (answers == episode_labels(way, answers.shape[1] // way)).float().mean()
