"""Zip archives of data, whole and damaged."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from lwfm.errors import UserError
from lwfm.metric.data.archives import unpacked

if TYPE_CHECKING:
    from pathlib import Path


def make_zip(path: Path, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    with zipfile.ZipFile(path, "w", compression) as archive:
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


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_any_damaged_byte_is_refused_or_harmless(tmp_path: Path, compression: int) -> None:
    path = tmp_path / "data.zip"
    content = make_zip(path, compression)
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
        try:
            with unpacked(path, other="a folder", content="texts"):
                pass
        except UserError as error:
            assert "readable zip of texts" in str(error)  # noqa: PT017 - some bytes do no harm


def _flagged(content: bytes) -> bytes:
    """Set the flag of encryption of the file and of its entry in the directory."""
    marked = bytearray(content)
    marked[6] |= 1
    marked[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(marked)
