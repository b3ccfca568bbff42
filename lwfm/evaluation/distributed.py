"""Shard episodes over the processes that ``torchrun`` started, one for each GPU."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from torch import distributed

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

Item = TypeVar("Item")


@dataclass(frozen=True)
class Share:
    """Shard of one process.

    Attributes
    ----------
    rank, size : int
        Number of this process, and of all processes.

    Examples
    --------
    >>> Share(1, 3).shard(["a", "b", "c", "d", "e"])
    ['b', 'e']
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Return whether this process prints and writes the results (rank 0)."""
        return self.rank == 0

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items of this process; UserError when there are fewer items than processes."""
        if len(items) < self.size:
            raise UserError(f"{self.size} processes cannot share {len(items)} episodes: start fewer")
        return items[self.rank :: self.size]

    def gather(self, answers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gather the results [n, ...] of all shards -> [all, ...], in the items' order, on every process."""
        if self.size == 1:
            return answers
        parts: list[Any] = [None] * self.size
        distributed.all_gather_object(parts, answers)
        gathered = {}
        for name in answers:
            count = sum(len(part[name]) for part in parts)
            gathered[name] = answers[name].new_empty(count, *answers[name].shape[1:])
            for rank, part in enumerate(parts):
                gathered[name][rank :: self.size] = part[name]
        return gathered

    def rank_zero_first(self, work: Callable[[], Item]) -> Item:
        """Run ``work`` on rank 0, then on the other ranks, which reuse its files."""
        if self.size == 1:
            return work()
        if self.is_first:
            result = work()
            distributed.barrier()
            return result
        distributed.barrier()
        return work()


@contextmanager
def shared_work() -> Iterator[Share]:
    """Join the process group, if ``torchrun`` started several processes.

    Only small results are exchanged, through the host: no GPU is needed.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not distributed.is_available():
        yield Share()
        return
    # By default a process that waits half an hour gives up; rank 0 may encode a large split for longer.
    distributed.init_process_group("gloo", timeout=timedelta(days=7))
    try:
        yield Share(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
