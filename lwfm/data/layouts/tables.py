"""Images listed in a CSV file for each split: ``filename,label`` or ``class_name,image_name``."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from lwfm.data.layouts.layout import Listing, existing
from lwfm.data.sources import FileSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

_COLUMNS = (("filename", "label"), ("image_name", "class_name"))
"""Header names of the image's and the class's column; further columns are left alone."""
_PLACES = (
    "{file}",
    "images/{file}",
    "{label}/{file}",
    "images/{label}/{file}",
    "train/{label}/{file}",
    "{split}/{label}/{file}",
)
"""Paths below the root at which a listed image may be."""
_ENDINGS = ("", ".JPEG", ".jpg", ".png")
_TRIED = 50


def find_tables(root: Path) -> dict[str, Path]:
    """Return the CSV files of the splits, in ``split/``, ``splits/`` or the root."""

    def candidates(name: str) -> Iterator[Path]:
        for folder in ("split", "splits", "."):
            yield root / folder / f"{name}.csv"

    return existing(candidates)


def read_rows(table: Path) -> list[tuple[str, str]]:
    """Read (file, class) of each row; UserError when the file cannot be read or has other columns."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            for columns in _COLUMNS:
                if set(columns) <= set(header):
                    chosen = [header.index(name) for name in columns]
                    break
            else:
                expected = " or ".join(",".join(columns) for columns in _COLUMNS)
                raise UserError(
                    f"{table} must begin with the header {expected}, not {','.join(header)[:80]!r}"
                )
            rows = [(row[chosen[0]].strip(), row[chosen[1]].strip()) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the list {table}: {error}") from error
    except IndexError as error:
        raise UserError(f"{table}: line {reader.line_num} has too few columns") from error
    if not rows:
        raise UserError(f"{table} lists no image")
    return rows


def first_label(table: Path) -> str:
    """Return the class of a list's first row, "" for a list that cannot be read; to recognize a data set."""
    try:
        return read_rows(table)[0][1]
    except UserError:
        return ""


def read_table(root: Path, table: Path, split: str) -> Listing:
    """List the images of a CSV file; UserError when none of them is where such a file may mean."""
    rows = read_rows(table)
    sample = rows[:: max(len(rows) // _TRIED, 1)]

    def path(place: str, ending: str, row: tuple[str, str]) -> str:
        return place.format(file=row[0], label=row[1], split=split) + ending

    def hits(rule: tuple[str, str]) -> int:
        return sum(_is_file(root / path(*rule, row)) for row in sample)

    best = max(((place, ending) for ending in _ENDINGS for place in _PLACES), key=hits)
    if hits(best) == 0:
        places = ", ".join(str(root / path(place, "", rows[0])) for place in _PLACES)
        raise UserError(f"{table} lists {rows[0][0]}, but there is no such image: looked for {places}")
    names = [f"{label}/{PurePosixPath(file).name}" for file, label in rows]
    return Listing(names, FileSource(root, [path(*best, row) for row in rows]))


def _is_file(path: Path) -> bool:
    """Return whether there is such a file; a name that is too long for the system is that of none."""
    try:
        return path.is_file()
    except OSError:
        return False
