"""CUB-200-2011: 200 birds [1]_, under four class splits that contradict each other.

===============  ===========================================================  =============
split            rule                                                         classes
===============  ===========================================================  =============
``feat``         lists in split/{train,val,test}.csv [2]_                      100, 50, 50
``closer-look``  classes counted from 0: even; 1 mod 4; 3 mod 4 [3]_           100, 50, 50
``frn``          the same rule, but counted from 1 [4]_                        100, 50, 50
``meta-dataset`` lists in cu_birds_splits.json [5]_                            140, 30, 30
===============  ===========================================================  =============

References
----------
.. [1] C. Wah and others, "The Caltech-UCSD Birds-200-2011 Dataset", 2011.
.. [2] H.-J. Ye and others, "Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions",
   CVPR 2020.
.. [3] W.-Y. Chen and others, "A Closer Look at Few-shot Classification", ICLR 2019.
.. [4] D. Wertheimer and others, "Few-Shot Classification with Feature Map Reconstruction Networks",
   CVPR 2021.
.. [5] E. Triantafillou and others, "Meta-Dataset", ICLR 2020.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, get_args

import numpy as np

from lwfm._common.records import read_json
from lwfm.data.layouts.folders import class_folders, folder_layout, read_classes, split_folders
from lwfm.data.layouts.layout import SPLITS, ClassSplit, KnownDataset, Layout, Listing, each_split
from lwfm.data.layouts.tables import find_tables, first_label, read_table
from lwfm.data.sources import FileSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lwfm.data.layouts.layout import Request

CLASSES = {
    "feat": each_split((100, 50, 50)),
    "closer-look": each_split((100, 50, 50)),
    "frn": each_split((100, 50, 50)),
    "meta-dataset": each_split((140, 30, 30)),
}
TOTAL = 11_788
_CLASS = re.compile(r"(\d{3})\..+")
_LISTS = "cu_birds_splits.json"


def split_of(class_name: str, rule: str) -> str:
    """Return the split to which a class belongs under the rule ``closer-look`` or ``frn``.

    Examples
    --------
    >>> split_of("001.Black_footed_Albatross", "closer-look"), split_of("001.Black_footed_Albatross", "frn")
    ('train', 'val')
    """
    matched = _CLASS.fullmatch(class_name)
    if matched is None:
        raise UserError(f"a class of CUB is called like 001.Black_footed_Albatross, not {class_name!r}")
    number = int(matched[1]) - (rule == "closer-look")
    return "train" if number % 2 == 0 else ("val" if number % 4 == 1 else "test")


def _are_birds(names: list[str]) -> bool:
    return bool(names) and all(_CLASS.fullmatch(name) for name in names)


def find(root: Path, request: Request) -> Iterator[Layout]:
    """Find the original folder ``images/<class>/`` with a class split, listed images, and split folders."""
    home = root / "CUB_200_2011" if (root / "CUB_200_2011" / "images").is_dir() else root
    tables = find_tables(home)
    if not all(_are_birds([first_label(table)]) for table in tables.values()):
        tables = {}
    if (home / "images").is_dir() and _are_birds(class_folders(home / "images")):
        yield _original(home, tables, request)
    elif tables:  # images without class folders, as one of the lists expects them
        yield _layout(home, "feat", _feat(home, tables, request), request)
    else:
        yield from _split_folders(root, request)


def _layout(
    home: Path, rule: str | None, splits: Mapping[str, Callable[[], Listing]], request: Request
) -> Layout:
    words = {
        None: "images/<class>/, class split not chosen",
        "feat": "images listed in split/{train,val,test}.csv",
        "meta-dataset": f"images/<class>/ with the classes in {_LISTS}",
    }
    return Layout(
        "cub",
        words.get(rule, "images/<class>/, split by class number")
        + (", cropped to bounding boxes" if request.crop else ""),
        splits,
        CLASSES.get(rule or "", {}),
        total=TOTAL,
        class_split=rule,
        boxes=partial(_box_sizes, home) if (home / "bounding_boxes.txt").is_file() else None,
    )


def _original(home: Path, tables: Mapping[str, Path], request: Request) -> Layout:
    """Choose the class split that was named, or the only one whose lists are there."""
    listed = {"feat": bool(tables), "meta-dataset": (home / _LISTS).is_file()}
    rule: str | None = request.class_split
    if rule is None and sum(listed.values()) == 1:
        rule = next(name for name, there in listed.items() if there)
    if rule is None:
        return _layout(home, None, dict.fromkeys(SPLITS, partial(_refuse, home, listed)), request)
    if rule == "feat":
        return _layout(home, rule, _feat(home, tables, request), request)
    read = (
        partial(_read_numbered, home, rule) if rule in ("closer-look", "frn") else partial(_read_json, home)
    )
    splits = {split: _cropped(partial(read, split), home, request) for split in SPLITS}
    return _layout(home, rule, splits, request)


def _refuse(home: Path, listed: Mapping[str, bool]) -> Listing:
    there = [name for name, found in listed.items() if found]
    why = f"the lists of {' and '.join(there)} are there" if there else "no list of classes is there"
    raise UserError(
        f"{home} can be split into classes in several ways that contradict each other, and {why}: "
        f"choose --class_split {', '.join(get_args(ClassSplit)[:-1])} or {get_args(ClassSplit)[-1]}"
    )


def _feat(home: Path, tables: Mapping[str, Path], request: Request) -> dict[str, Callable[[], Listing]]:
    if request.class_split not in (None, "feat"):
        raise UserError(
            f"class_split={request.class_split} needs the folder {home / 'images'} with its class folders"
        )
    if not tables:
        raise UserError(
            f"--class_split feat needs its lists: place train.csv, val.csv and test.csv in {home / 'split'}"
        )
    return {
        split: _cropped(partial(read_table, home, table, split), home, request)
        for split, table in tables.items()
    }


def _read_numbered(home: Path, rule: str, split: str) -> Listing:
    birds = class_folders(home / "images")
    return read_classes(home / "images", [name for name in birds if split_of(name, rule) == split])


def _read_json(home: Path, split: str) -> Listing:
    path = home / _LISTS
    if not path.is_file():
        raise UserError(
            f"--class_split meta-dataset needs its lists: place {_LISTS} of Meta-Dataset at {path}"
        )
    key, lists = "valid" if split == "val" else split, read_json(path)
    try:
        classes = sorted(map(str, lists[key]))
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} must be JSON with lists train, valid and test: {error!r}") from error
    return read_classes(home / "images", classes)


def _split_folders(root: Path, request: Request) -> Iterator[Layout]:
    """Find ``{train,val,test}/<class>/``, already split by somebody."""
    layout = folder_layout(
        "cub",
        root,
        recognize=lambda found: all(map(_are_birds, found.values())),
        classes={},
        images={},
    )
    if layout is None:
        return
    if request.crop:
        raise UserError(f"crop needs bounding_boxes.txt and images.txt beside images/, which {root} has not")
    rule = None
    for candidate in ("closer-look", "frn"):
        if all(
            split_of(name, candidate) == split
            for split, folder in split_folders(root).items()
            for name in class_folders(folder)
        ):
            rule = candidate
    if request.class_split not in (None, rule):
        raise UserError(
            f"class_split={request.class_split} was asked for, but the folders of {root} are split by "
            f"{rule or 'another rule'}: leave class_split out to take them as they are"
        )
    yield replace(layout, classes=CLASSES.get(rule or "", {}), total=TOTAL, class_split=rule)


def _cropped(read: Callable[[], Listing], home: Path, request: Request) -> Callable[[], Listing]:
    return partial(_read_cropped, read, home) if request.crop else read


def _read_cropped(read: Callable[[], Listing], home: Path) -> Listing:
    """Add the bounding box of each image to a listing."""
    listing, boxes = read(), _boxes(home)
    missing = [name for name in listing.names if name.split("/")[1] not in boxes]
    if missing:
        raise UserError(f"{home / 'bounding_boxes.txt'} has no box for {missing[0]}")
    source = listing.source
    if not isinstance(source, FileSource):
        raise TypeError("only files can be cropped")
    array = np.array([boxes[name.split("/")[1]] for name in listing.names])  # [n, 4]
    return listing._replace(source=FileSource(source.folder, source.files, array))


def _boxes(home: Path) -> dict[str, tuple[float, ...]]:
    """Read x, y, width, height of each image by its file name, from bounding_boxes.txt and images.txt."""
    try:
        images = dict(line.split() for line in (home / "images.txt").read_text().splitlines() if line.strip())
        rows = [
            line.split() for line in (home / "bounding_boxes.txt").read_text().splitlines() if line.strip()
        ]
        return {images[row[0]].split("/")[-1]: _box(row[1:5]) for row in rows}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(
            f"the bounding boxes need {home / 'images.txt'} (number, file) and {home / 'bounding_boxes.txt'} "
            f"(number, x, y, width, height): {error!r}"
        ) from error


def _box(words: list[str]) -> tuple[float, ...]:
    """Return x, y, width, height; ValueError for anything else."""
    box = tuple(map(float, words))
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) <= 0:
        raise ValueError(f"{' '.join(words)!r} is no box")
    return box


def _box_sizes(home: Path) -> dict[str, tuple[float, float]]:
    return {name: (box[2], box[3]) for name, box in _boxes(home).items()}


DATASET = KnownDataset(
    "cub",
    find,
    "images/<class>/ of CUB_200_2011 (with images.txt and bounding_boxes.txt for cropping), and for the "
    f"class splits feat and meta-dataset split/train.csv, val.csv, test.csv or {_LISTS}; or train/<class>/, "
    "val/<class>/ and test/<class>/",
)
