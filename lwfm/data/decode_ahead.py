"""Decode images in threads while earlier ones are encoded, a bounded number of them ahead.

Pillow decodes and resizes without holding the interpreter's lock, so threads suffice: no process is started
and no image is copied between processes. This module needs no torch.

Letters: B images, H and W their height and width.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from operator import length_hint
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    import numpy.typing as npt

WAITING_BATCHES = 6
"""Batches that are decoded before a thread encodes them: threads then need not wait while the head compares a
few hundred images."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int, threads: int
) -> Iterator[Result]:
    """Yield ``function(item)`` of each item, in order, computed by threads while results are used.

    Parameters
    ----------
    function : callable
        Its first exception, in the order of the items, is raised where its result would be yielded.
    items : iterable
        Perhaps endless. Never more than ``ahead + 1`` of them are taken before their result is yielded.
    ahead : int
        At least 0.
    threads : int
        At least 1.

    Examples
    --------
    >>> list(in_threads(len, ["a", "bcd", "ef"], ahead=2, threads=2))
    [1, 3, 2]
    """
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def shared_batch_size(items: Iterable[object], batch_size: int, threads: int) -> int:
    """Return a smaller size of batches where the items are so few that threads would be left without one.

    Examples
    --------
    >>> shared_batch_size(range(10), 16, threads=2), shared_batch_size(iter(()), 16, threads=2)
    (5, 16)
    """
    expected = length_hint(items)
    return min(batch_size, -(-expected // threads)) if expected else batch_size


def pixel_batches(
    images: Iterable[npt.NDArray[np.uint8]], batch_size: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Join images [H, W, 3] of one size to batches [B, H, W, 3] uint8; the last may be smaller.

    Examples
    --------
    >>> [batch.shape for batch in pixel_batches([np.zeros((4, 6, 3), np.uint8)] * 5, 2)]
    [(2, 4, 6, 3), (2, 4, 6, 3), (1, 4, 6, 3)]
    """
    batch: npt.NDArray[np.uint8] | None = None
    filled = 0
    for image in images:
        if batch is None:
            batch = np.empty((batch_size, *image.shape), np.uint8)
        batch[filled] = image
        filled += 1
        if filled == batch_size:
            yield batch
            batch, filled = None, 0
    if batch is not None:
        yield batch[:filled]
