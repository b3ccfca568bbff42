"""Zip archives of data."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
"""RuntimeError: encrypted, and, as NotImplementedError, compressed by an unknown method."""


@contextmanager
def unpacked(path: Path, *, other: str, content: str) -> Iterator[Path]:
    """Extract a zip to a temporary folder, and yield that.

    Parameters
    ----------
    path : Path
        The zip.
    other, content : str
        For the error: what the path might have been instead, and what a zip should hold.

    Raises
    ------
    UserError
        For a file that is no zip, a damaged or encrypted one, and a compression that Python does not know.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)  # refuses names that lead out of the folder
        except _DAMAGED as error:
            raise UserError(f"{path} is neither {other} nor a readable zip of {content}: {error}") from error
        yield Path(folder)
