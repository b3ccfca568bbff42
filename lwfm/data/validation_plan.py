"""Fixed validation episodes, and the images that occur in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lwfm.data.episodes import EpisodeSampler


@dataclass(frozen=True)
class ValidationPlan:
    """Fixed episodes of every validation.

    Attributes
    ----------
    episodes : sequence of sequence of int
        Image indices, ordered as by :class:`lwfm.data.EpisodeSampler`.
    indices : sequence of int
        The images that occur in them, in the order of the validation loader.
    images : int
        Size of the validation set.
    way, shot : int
        Classes of an episode, and support images of each.
    """

    episodes: Sequence[Sequence[int]]
    indices: Sequence[int]
    images: int
    way: int
    shot: int

    @classmethod
    def draw(cls, sampler: EpisodeSampler, images: int) -> ValidationPlan:
        """Draw all episodes of the sampler, on a set of `images` images."""
        drawn = list(sampler)
        return cls(drawn, images_needed(drawn), images, way=sampler.way, shot=sampler.shot)


def images_needed(episodes: Iterable[Sequence[int]]) -> list[int]:
    """List the indices that occur in any of the episodes, each once, ascending.

    Examples
    --------
    >>> images_needed([[3, 1], [7, 3]])
    [1, 3, 7]
    """
    return sorted({index for episode in episodes for index in episode})
