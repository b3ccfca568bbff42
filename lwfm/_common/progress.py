"""Progress bars of long loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterable

Item = TypeVar("Item")


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
