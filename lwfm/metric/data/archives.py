"""Files of data: one, those of a folder, or those of a zip."""

from __future__ import annotations

import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm._common.text import listed
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


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


@contextmanager
def files_of(root: Path, endings: Sequence[str], *, what: str) -> Iterator[list[Path]]:
    """Yield the files of a folder or zip by their endings, in order, or the one that is named.

    Parameters
    ----------
    root : Path
        The file, folder or zip.
    endings : sequence of str
        In lower case, such as ``.csv``; those of files may be in any.
    what : str
        What a file holds, for the error, such as ``series``.

    Raises
    ------
    UserError
        When there is none, it is of another kind, or the zip is damaged.
    """
    if root.name.lower().endswith(tuple(endings)) and not root.is_dir():
        if not root.is_file():
            raise UserError(f"there is no file {root}")
        yield [root]
    elif root.is_dir():
        yield _with_endings(root, root, endings, what)
    elif root.is_file():
        with unpacked(root, other=f"one of {', '.join(endings)}", content=what) as folder:
            yield _with_endings(folder, root, endings, what)
    else:
        raise UserError(f"there is no file, folder or zip {root}")


def _with_endings(folder: Path, root: Path, endings: Sequence[str], what: str) -> list[Path]:
    paths = sorted(path for path in folder.rglob("*") if path.name.lower().endswith(tuple(endings)))
    if not paths:
        raise UserError(f"{root} holds no {what}: there is no file {listed(list(endings), 9)}")
    return paths
