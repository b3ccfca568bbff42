"""Unpack one split of an archive of images as a data set with a single split.

    python -m benchmarks.unpack_images birds.zip val build/eight/birds

The archive holds ``<split>/.../<class>/<image>``, the folder will hold ``val/<class>/<image>``, as
``lwfm experiment heads`` reads it. Members whose names would leave the folder are refused.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path, PurePosixPath

SPLIT = "val"


def unpack_images(archive: Path, split: str, target: Path) -> int:
    """Write the images of ``split`` into ``target`` and return their number; ValueError if there are none."""
    count = 0
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            parts = PurePosixPath(member.filename).parts
            if member.is_dir() or len(parts) < 3 or parts[0] != split:
                continue
            if ".." in parts:
                raise ValueError(f"{archive}: the member {member.filename} would leave the folder")
            file = target / SPLIT / parts[-2] / parts[-1]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(opened.read(member))
            count += 1
    if not count:
        raise ValueError(f"{archive} has no {split}/<class>/<image>")
    return count


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("archive", type=Path, help="a zip of <split>/.../<class>/<image>")
    parser.add_argument("split", help="the split to unpack")
    parser.add_argument("target", type=Path, help="the folder of the data set")
    options = parser.parse_args()
    print(f"{unpack_images(options.archive, options.split, options.target)} images in {options.target}")
