"""Samplers of episodes and batches: seeded, repeatable, independent of the number of workers.

Every draw comes from ``numpy.random.SeedSequence(seed, spawn_key=(epoch, index))``, so a batch is a
function of those three numbers alone, in any process and any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lwfm._common.ranges import check_at_least
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt


def episode_labels(way: int, count: int) -> torch.Tensor:
    """Return the labels 0..way-1 of `count` images of each class in shot-major order.

    Returns
    -------
    labels
        ``[way * count]`` int64: the image's index modulo `way`.

    Examples
    --------
    >>> episode_labels(3, 2).tolist()
    [0, 1, 2, 0, 1, 2]
    """
    return torch.arange(way * count) % way


class EpisodeSampler(torch.utils.data.Sampler[list[int]]):
    """Batch sampler that yields one episode at a time.

    Parameters
    ----------
    labels
        ``[n]`` integers: the class of each image.
    way, shot, queries
        Classes in an episode, support images and query images of each class.
    episodes
        Episodes in an epoch.
    seed
        Non-negative; with the epoch and the episode's index it determines everything.
    classes
        Names of the classes, for messages.

    Yields
    ------
    indices
        ``way * (shot + queries)`` image indices: first the ``way * shot`` support images, then the
        ``way * queries`` queries, both shot-major (the label is the index modulo `way`). No image
        occurs twice in an episode.

    Raises
    ------
    UserError
        A setting is out of range, there are fewer than `way` classes, or a class has fewer than
        ``shot + queries`` images (it is named).

    Examples
    --------
    >>> sampler = EpisodeSampler([0, 0, 1, 1, 2, 2], way=2, shot=1, queries=1, episodes=1, seed=0)
    >>> [len(episode) for episode in sampler]
    [4]
    >>> sampler.episode(0) == next(iter(sampler))
    True
    """

    def __init__(
        self,
        labels: Sequence[int] | npt.NDArray[np.int64],
        *,
        way: int = 5,
        shot: int = 1,
        queries: int = 15,
        episodes: int,
        seed: int,
        classes: Sequence[str] | None = None,
    ) -> None:
        check_at_least(2, way=way)
        check_at_least(1, shot=shot, queries=queries, episodes=episodes)
        check_at_least(0, seed=seed)
        self.way, self.shot, self.queries = way, shot, queries
        self.episodes, self.seed, self.epoch = episodes, seed, 0
        self._members = _members(np.asarray(labels), way=way, shot=shot, queries=queries, classes=classes)

    def __len__(self) -> int:
        return self.episodes

    def __iter__(self) -> Iterator[list[int]]:
        epoch = self.epoch  # a later set_epoch must not change an epoch under way
        for index in range(self.episodes):
            yield self.episode(index, epoch=epoch)

    def episode(self, index: int, *, epoch: int | None = None) -> list[int]:
        """Return the image indices of episode `index` of `epoch` (default: the current one)."""
        random = _generator(self.seed, self.epoch if epoch is None else epoch, index)
        drawn = [
            random.choice(self._members[chosen], self.shot + self.queries, replace=False)
            for chosen in random.choice(len(self._members), self.way, replace=False)
        ]
        indices: list[int] = np.stack(drawn, axis=1).ravel().tolist()  # [shot + queries, way], row by row
        return indices

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields; Lightning calls this, also on resume."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return all that determines the episodes of a given set of labels."""
        return {
            "way": self.way,
            "shot": self.shot,
            "queries": self.queries,
            "episodes": self.episodes,
            "seed": self.seed,
            "epoch": self.epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the seed and epoch of `state`, to continue its stream.

        Raises
        ------
        UserError
            The state is of episodes of another shape.
        """
        for name in ("way", "shot", "queries", "episodes"):
            if state[name] != getattr(self, name):
                raise UserError(
                    f"the saved episodes have {name}={state[name]}, these have {name}={getattr(self, name)}: "
                    f"resume with {name}={state[name]}, or start anew"
                )
        self.seed, self.epoch = int(state["seed"]), int(state["epoch"])


class ShuffledSampler(torch.utils.data.Sampler[list[int]]):
    """Batch sampler of ordinary shuffled images: a fixed number of full batches an epoch.

    The epoch reads through one shuffled order after another, so that every image comes up equally
    often however many batches are asked for.

    Parameters
    ----------
    count
        Number of images, at least 1.
    batch_size, batches
        Images in a batch and batches in an epoch, each at least 1.
    seed
        Non-negative; with the epoch it determines everything.

    Examples
    --------
    >>> sampler = ShuffledSampler(4, batch_size=2, batches=2, seed=0)
    >>> sorted(index for batch in sampler for index in batch)
    [0, 1, 2, 3]
    """

    def __init__(self, count: int, *, batch_size: int, batches: int, seed: int) -> None:
        check_at_least(
            1, **{"number of images": count, "batch size": batch_size, "number of batches": batches}
        )
        check_at_least(0, seed=seed)
        self.count, self.batch_size, self.batches, self.seed, self.epoch = count, batch_size, batches, seed, 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[int]]:
        epoch, order, passes = self.epoch, np.empty(0, dtype=np.int64), 0
        for _ in range(self.batches):
            while len(order) < self.batch_size:
                order = np.concatenate([order, _generator(self.seed, epoch, passes).permutation(self.count)])
                passes += 1
            yield order[: self.batch_size].tolist()
            order = order[self.batch_size :]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self.epoch = epoch


class SeededSampler(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """Batch sampler that adds a seed for the augmentation of each image.

    Yields lists of ``(index, seed)``, which :class:`~lwfm.data.dataset.ImageDataset` reads; the seed
    depends on `seed`, the epoch, the batch and the place in it, so that the augmented batches are the
    same with any number of workers.

    The wrapped sampler is the attribute `sampler`, where Lightning looks for ``set_epoch``.

    Parameters
    ----------
    sampler
        Batches of indices.
    seed
        Non-negative.
    together
        Batches of the sampler, with their seeds, that are joined to one; those of an incomplete last one are
        left out.
    process, processes
        This process, and the number of processes: its shard is every joined batch whose number is `process`
        modulo `processes`.

    Examples
    --------
    >>> halves = [
    ...     SeededSampler(ShuffledSampler(4, batch_size=2, batches=4, seed=0), seed=1, process=i, processes=2)
    ...     for i in (0, 1)
    ... ]
    >>> [len(half) for half in halves]
    [2, 2]
    """

    def __init__(
        self,
        sampler: EpisodeSampler | ShuffledSampler,
        *,
        seed: int,
        together: int = 1,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.sampler, self.seed, self.together = sampler, seed, together
        self.process, self.processes = process, processes

    def __len__(self) -> int:
        return len(range(self.process, len(self.sampler) // self.together, self.processes))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.sampler.epoch
        joined: list[tuple[int, int]] = []
        for number, indices in enumerate(self.sampler):
            if number // self.together % self.processes != self.process:
                continue
            seeds = _generator(self.seed, epoch, number).integers(2**63, size=len(indices))
            joined += zip(indices, seeds.tolist(), strict=True)
            if (number + 1) % self.together == 0:
                yield joined
                joined = []


def _generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(epoch, index)))


def _members(
    labels: npt.NDArray[Any], *, way: int, shot: int, queries: int, classes: Sequence[str] | None
) -> list[npt.NDArray[np.int64]]:
    """Return the image indices of each class; UserError where an episode cannot be drawn."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels must be one row of integers, not {labels.dtype} of shape {labels.shape}")
    present = np.unique(labels)
    if len(present) < way:
        raise UserError(
            f"{way}-way episodes need at least {way} classes, but there are only {len(present)}: "
            "lower way, or add classes"
        )
    members = [np.flatnonzero(labels == label) for label in present]
    short = [position for position, images in enumerate(members) if len(images) < shot + queries]
    if short:
        least = min(short, key=lambda position: len(members[position]))
        label = int(present[least])
        name = repr(classes[label]) if classes is not None else str(label)
        have = len(members[least])
        advice = (
            f"lower shot or queries until their sum is at most {have}"
            if have > 1
            else "an episode needs one support and one query image at least"
        )
        raise UserError(
            f"class {name} has {have} image{'s' * (have != 1)}, but an episode with shot={shot} and "
            f"queries={queries} takes {shot + queries} of each class ({len(short)} of {len(present)} classes "
            f"have too few): {advice}, or add images"
        )
    return members
