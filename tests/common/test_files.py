"""A file is written whole, or it stays as it was."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lwfm._common.files import atomic_path, write_bytes_atomically
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def small_disk() -> Iterator[None]:
    """Let the system refuse files of more than 4096 bytes, as a full disk would.

    Not a fixture: pytest reports while fixtures stand, and its own output may go to a file.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_writes_into_new_folder_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.bin"
    write_bytes_atomically(path, b"first")
    write_bytes_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert [file.name for file in path.parent.iterdir()] == ["file.bin"]


def test_temporary_keeps_suffix_and_folder(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "figure.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"x")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RuntimeError("bug")], ids=["ctrl-c", "bug"])
def test_interrupted_write_leaves_old_file(tmp_path: Path, stop: BaseException) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with pytest.raises(type(stop)), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half")
        raise stop
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_leaves_old_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    with small_disk(), pytest.raises(UserError, match=r"cannot write .*file\.bin: File too large"):
        write_bytes_atomically(path, bytes(10_000))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*name: Is a directory"):
        write_bytes_atomically(tmp_path / "name", b"x")


def test_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot write"):
        write_bytes_atomically(tmp_path / "file" / "inside", b"x")
