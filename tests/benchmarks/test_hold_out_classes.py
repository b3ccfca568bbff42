"""The split of the photographs: disjoint, complete, repeatable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.hold_out_classes import hold_out_classes

if TYPE_CHECKING:
    from pathlib import Path


def test_held_out_classes_are_disjoint_and_complete(tmp_path: Path) -> None:
    for part, classes in (("train", "abcdefghi"), ("val", "xyz")):
        for name in classes:
            (tmp_path / "source" / part / name).mkdir(parents=True)
            (tmp_path / "source" / part / name / "1.jpg").touch()
    for _ in range(2):  # a second run changes nothing
        assert hold_out_classes(tmp_path / "source", tmp_path / "target") == {"train": 7, "val": 2, "test": 3}
    parts = {
        part: {x.name for x in (tmp_path / "target" / part).iterdir()} for part in ("train", "val", "test")
    }
    assert parts == {"train": set("abcefgi"), "val": set("dh"), "test": set("xyz")}
    assert (tmp_path / "target/val/d/1.jpg").is_file()
