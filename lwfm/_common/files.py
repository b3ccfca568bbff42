"""Files that are either written completely or left as they were."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that atomically replaces ``path`` when the block succeeds.

    Whatever stops the block (a full disk, Ctrl-C, a bug), the old file, if there was one, stays whole and
    the temporary one is removed. The temporary file is in the folder of ``path`` (which is created
    when missing), because only within one file system is a rename atomic, and keeps its suffix, because
    some writers choose their format by it.

    Parameters
    ----------
    path : str or os.PathLike
        The file to write.

    Yields
    ------
    pathlib.Path
        The temporary file's path; the block must have written and closed it at its end.

    Raises
    ------
    UserError
        When the system refuses to write (disk full, no permission, a folder of that name), naming ``path``.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic_path(folder / "note.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [(file.name, file.read_text()) for file in folder.iterdir()]
    [('note.txt', 'whole')]
    """
    target = Path(path)
    beginning = target.stem[:40]  # four bytes each at most: a name may have 255
    temporary = target.with_name(f".{beginning}-{secrets.token_hex(4)}.part{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush_to_disk(temporary)
        temporary.replace(target)
    except OSError as error:
        raise UserError(
            f"cannot write {target}: {error.strerror or error}. Nothing was changed there; "
            "check the free space and permissions of its folder, or choose another place."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes_atomically(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write ``data`` to the file ``path`` through :func:`atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _flush_to_disk(path: Path) -> None:
    """Flush the content to the disk before the rename: else a power cut can leave an empty file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
