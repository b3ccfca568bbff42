"""The unpacked split of an archive is a data set."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from benchmarks.unpack_images import unpack_images

if TYPE_CHECKING:
    from pathlib import Path


def archive(path: Path, *members: str) -> Path:
    with zipfile.ZipFile(path, "w") as opened:
        for member in members:
            opened.writestr(member, member)
    return path


def test_one_split_is_unpacked_by_class(tmp_path: Path) -> None:
    names = ("all/a/1.png", "all/more/b/2.png", "all/list.txt", "other/a/3.png")
    assert unpack_images(archive(tmp_path / "a.zip", *names), "all", tmp_path / "a") == 2
    files = {path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.png")}
    assert files == {"val/a/1.png", "val/b/2.png"}
    assert (tmp_path / "a/val/b/2.png").read_text() == "all/more/b/2.png"


@pytest.mark.parametrize(
    ("member", "message"), [("all/a/../../1.png", "would leave"), ("val/a/1.png", "has no all/")]
)
def test_other_archives_are_refused(tmp_path: Path, member: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpack_images(archive(tmp_path / "a.zip", member), "all", tmp_path / "a")
    assert not (tmp_path / "a").exists()
