"""Faster imports of large packages."""

from __future__ import annotations

import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def collection_paused(*, freeze: bool = False) -> Iterator[None]:
    """Pause Python's collection of cyclic garbage while large packages are imported.

    Their modules, classes and functions are many objects, none of them garbage, which each collection visits
    again: a fifth of the time in which torch and timm are imported.

    Parameters
    ----------
    freeze : bool
        Whether later collections leave out all objects that exist at the end (:func:`gc.freeze`): for a
        process of our own, whose garbage until then is small. They always do in a process that has frozen
        objects before.

    Examples
    --------
    >>> import gc
    >>> with collection_paused():
    ...     gc.isenabled()
    False
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if freeze or gc.get_freeze_count():
            gc.freeze()
        if enabled:
            gc.enable()
