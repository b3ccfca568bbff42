"""Zip archives of data."""

from __future__ import annotations

import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        For a file that is no zip, a damaged or encrypted one, and an unknown compression.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)  # refuses names that lead out of the folder
        except Exception as error:  # zipfile raises anything on damaged files
            raise UserError(f"{path} is neither {other} nor a readable zip of {content}: {error}") from error
        yield Path(folder)
