"""Progress bars of long loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sized

Item = TypeVar("Item")
Batch = TypeVar("Batch", bound="Sized")


def progress(
    items: Iterable[Item], title: str, unit: str, *, total: int | None = None, show: bool = True
) -> Iterable[Item]:
    """Yield the items, with a progress bar on a terminal once the loop takes longer than two seconds.

    Parameters
    ----------
    items : iterable
        What the loop goes through.
    title, unit : str
        Text before the bar, and what an item is called.
    total : int, optional
        Number of items, where ``items`` has no length.
    show : bool
        False for no bar. Without a terminal there is none in any case.

    Examples
    --------
    >>> list(progress([1, 2], "counting", "number"))
    [1, 2]
    """
    bar: Iterable[Item] = tqdm(
        items, desc=title, unit=unit, total=total, delay=2, leave=False, disable=None if show else True
    )
    return bar


def batched_progress(
    batches: Iterable[Batch], title: str, unit: str, *, total: int, show: bool = True
) -> Iterator[Batch]:
    """Yield the batches, with a progress bar as :func:`progress` shows that counts their items.

    Parameters
    ----------
    batches : iterable
        What the loop goes through; each has a length.
    title, unit : str
        Text before the bar, and what an item of a batch is called.
    total : int
        Number of items of all batches.
    show : bool
        False for no bar.

    Examples
    --------
    >>> list(batched_progress([[1, 2], [3]], "counting", "number", total=3))
    [[1, 2], [3]]
    """
    shown = tqdm(desc=title, unit=unit, total=total, delay=2, leave=False, disable=None if show else True)
    with shown as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))
