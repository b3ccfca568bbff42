"""Zip archives of data, whole and damaged."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from lwfm.errors import UserError
from lwfm.metric.data.archives import unpacked

if TYPE_CHECKING:
    from pathlib import Path


def make_zip(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/file.txt", "content " * 500)
    return path.read_bytes()


def test_the_files_are_there_within_the_block_only(tmp_path: Path) -> None:
    make_zip(tmp_path / "data.zip")
    with unpacked(tmp_path / "data.zip", other="a folder", content="texts") as folder:
        assert (folder / "folder" / "file.txt").read_text().startswith("content")
    assert not folder.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"no zip",
        lambda content: content[: len(content) // 2],
        lambda content: content[:60] + bytes(b ^ 0xFF for b in content[60:80]) + content[80:],
        lambda content: content.replace(b"\x08\x00", b"\x63\x00"),
        lambda content: _flagged(content),
    ],
    ids=["no-zip", "short", "bytes", "compression", "encrypted"],
)
def test_damaged_archives_are_refused_with_their_name(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    path = tmp_path / "data.zip"
    path.write_bytes(damage(make_zip(path)))
    with (
        pytest.raises(UserError, match=r"data\.zip is neither a folder nor a readable zip of texts: "),
        unpacked(path, other="a folder", content="texts"),
    ):
        pass


def _flagged(content: bytes) -> bytes:
    """Set the flag of encryption of the file and of its entry in the directory."""
    marked = bytearray(content)
    marked[6] |= 1
    marked[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(marked)
