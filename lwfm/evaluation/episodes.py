"""Episodes on cached maps: each method encodes every image once and scores many episodes at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lwfm._common.progress import batched_progress
from lwfm.data import episode_labels
from lwfm.evaluation.methods import HeadOnMaps, NearestClassMean
from lwfm.nn import ClassLists

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lwfm.evaluation.cached_maps import CachedMaps
    from lwfm.evaluation.methods import Method
    from lwfm.nn import LWFMHead

Drawn = Mapping[tuple[int, int], Sequence[Sequence[int]]]
"""Image indices of all episodes for each (way, shot), as :class:`lwfm.data.EpisodeSampler` draws them: way *
shot support images (label = position mod way), then the queries, ordered alike."""

ENCODED_BYTES = 2**30
"""Memory for images as a method encodes them. Where all of them take more, each batch of episodes encodes
its own."""
BATCH_IMAGES = 2**14
"""Images of the episodes that are scored together, counted in each episode: some 160 episodes of 100 images.
The features that the baseline gathers take 64 MiB then, with 1024 channels."""
_CHUNK_IMAGES = 2**8


@torch.inference_mode()
def run_episodes(
    head: LWFMHead | HeadOnMaps,
    maps: CachedMaps,
    drawn: Drawn,
    *,
    others: Sequence[Method] = (),
    bar: bool = True,
) -> dict[tuple[int, int], dict[str, Tensor]]:
    """Classify the queries of many episodes by every method.

    Parameters
    ----------
    head : LWFMHead or HeadOnMaps
        In evaluation mode; a head alone compares all layers at their own size.
    maps : CachedMaps
        Of at least the images in the episodes.
    drawn : dict of (int, int) to sequence of sequence of int
        Image indices of the episodes for each (way, shot).
    others : sequence of Method
        Further heads and baselines, each a method of its name.
    bar : bool
        Whether to show progress bars on a terminal.

    Returns
    -------
    dict of (int, int) to dict of str to Tensor
        For each (way, shot) and method, [episodes, Q] int64 on the CPU: the predicted class of each query, in
        0..way-1. Their true classes are :func:`lwfm.data.episode_labels`, see :func:`accuracy_of`.

    Raises
    ------
    IndexError
        For images that were not encoded.
    ValueError
        For maps that a head cannot compare, or no episodes of a shape.
    """
    if empty := [shape for shape, each in drawn.items() if not each]:
        raise ValueError(f"there are no episodes of (way, shot) {empty[0]}")
    own = head if isinstance(head, HeadOnMaps) else HeadOnMaps.whole(head)
    episodes = {shape: torch.tensor(each) for shape, each in drawn.items()}
    needed: Tensor = torch.unique(torch.cat([each.flatten() for each in episodes.values()]))
    answers: dict[tuple[int, int], dict[str, Tensor]] = {shape: {} for shape in drawn}
    methods: tuple[Method, ...] = (own, NearestClassMean(own.places), *others)
    for method in methods:
        images = _EncodedImages(method, maps, needed)
        for shape, each in episodes.items():
            answers[shape] |= _answer(images, each, *shape, bar=bar)
    return {
        shape: {name: each.cpu() for name, each in by_method.items()} for shape, by_method in answers.items()
    }


def _answer(images: _EncodedImages, episodes: Tensor, way: int, shot: int, *, bar: bool) -> dict[str, Tensor]:
    """Classify the queries of episodes [E, S + Q] by one method -> [E, Q] on the device of the maps."""
    classes = ClassLists(episode_labels(way, shot), device=images.device)
    batches = images.batches(episodes, way * shot)
    answers: dict[str, list[Tensor]] = {}
    title = f"{way}-way {shot}-shot, {images.method.name}"
    for batch in batched_progress(batches, title, "episode", total=len(episodes), show=bar):
        scores = images.method.scores(batch.encoded, batch.support, batch.query, classes)
        for name, of_batch in scores.items():
            answers.setdefault(name, []).append(of_batch.argmax(-1))
    return {name: torch.cat(of_batches) for name, of_batches in answers.items()}


@dataclass(frozen=True)
class _Batch:
    """Encoded images, and which of them are support images [E, S] and queries [E, Q] of each episode."""

    encoded: dict[str, Tensor]
    support: Tensor
    query: Tensor

    def __len__(self) -> int:
        return len(self.support)


class _EncodedImages:
    """Images as one method encodes them: all together, or those of a batch where all take too much memory.

    ``needed`` [n] are the images of all episodes, ascending.
    """

    def __init__(self, method: Method, maps: CachedMaps, needed: Tensor) -> None:
        self.method, self.maps = method, maps
        self.device = maps.layers[0].device
        first = self._encode_chunk(needed[:1])
        self._image_bytes = sum(x.nbytes for x in first.values())
        self._all: dict[str, Tensor] | None = None
        if len(needed) * self._image_bytes <= ENCODED_BYTES:
            self._all = self._encode(needed)
            self._places = torch.zeros(len(maps.rows), dtype=torch.int64)
            self._places[needed] = torch.arange(len(needed))

    def batches(self, episodes: Tensor, supports: int) -> Iterator[_Batch]:
        """Yield batches of the episodes [E, S + Q], of which the first ``supports`` are support images."""
        most = (
            BATCH_IMAGES if self._all is not None else min(BATCH_IMAGES, ENCODED_BYTES // self._image_bytes)
        )
        at_a_time = max(1, most // episodes.shape[1])
        if self._all is not None:
            places = self._places[episodes].to(self.device)  # the only wait for the device
            for each in torch.split(places, at_a_time):
                yield _Batch(self._all, each[:, :supports], each[:, supports:])
            return
        for each in torch.split(episodes, at_a_time):
            images, places = torch.unique(each, return_inverse=True)
            places = places.to(self.device)
            yield _Batch(self._encode(images), places[:, :supports], places[:, supports:])

    def _encode(self, images: Tensor) -> dict[str, Tensor]:
        """Encode images chunk by chunk: intermediate results take little memory beside the encoded ones."""
        encoded: dict[str, Tensor] = {}
        for begin in range(0, len(images), _CHUNK_IMAGES):
            chunk = self._encode_chunk(images[begin : begin + _CHUNK_IMAGES])
            for name, x in chunk.items():
                if name not in encoded:
                    encoded[name] = x.new_empty(len(images), *x.shape[1:])
                encoded[name][begin : begin + len(x)] = x
        return encoded

    def _encode_chunk(self, images: Tensor) -> dict[str, Tensor]:
        encoded = self.method.encode(self.maps.select(images))
        if self.method.views:
            encoded |= self.method.encode_views(self.maps.select_views(images))
        return encoded


def accuracy_of(answers: Tensor, way: int) -> Tensor:
    """Return the fraction of correct answers [episodes, Q] of :func:`run_episodes`.

    Examples
    --------
    >>> accuracy_of(torch.tensor([[0, 1, 0, 0]]), way=2)
    tensor(0.7500)
    """
    return (answers == episode_labels(way, answers.shape[1] // way)).float().mean()
