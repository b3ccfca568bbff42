"""Known data sets in the layouts in which they circulate, recognized by the contents of the folder.

One module for each data set; :func:`choose_layout` finds the one that a folder holds.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lwfm.data.layouts import cifar, cub, miniimagenet, tieredimagenet
from lwfm.data.layouts.folders import read_folder, scan_folder, split_folders
from lwfm.data.layouts.layout import SPLITS, ClassSplit, Layout, Listing, Request
from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["KNOWN_DATASETS", "SPLITS", "ClassSplit", "Layout", "Listing", "choose_layout", "find_layouts"]

KNOWN_DATASETS = {
    dataset.name: dataset
    for dataset in (
        miniimagenet.DATASET,
        tieredimagenet.DATASET,
        cub.DATASET,
        cifar.CIFAR_FS,
        cifar.FC100,
    )
}


def find_layouts(
    root: Path, data: str = "auto", *, class_split: ClassSplit | None = None, crop: bool = False
) -> list[Layout]:
    """Find all layouts of a data set, or of any, in a folder; only names of files are looked at.

    Parameters
    ----------
    root
        The folder.
    data
        Name of a benchmark, ``folder`` for any images in {train,val,test}/<class>/, or ``auto``.
    class_split, crop
        For CUB: which class split, and whether to crop to the bounding boxes.
    """
    if data == "folder":
        return [_any_folder(root)]
    if not root.is_dir():
        return []
    request = Request(named=data != "auto", class_split=class_split, crop=crop)
    names = KNOWN_DATASETS if data == "auto" else (data,)
    found = [layout for name in names for layout in KNOWN_DATASETS[name].find(root, request)]
    if not found and data == "auto" and split_folders(root):
        return [_any_folder(root)]
    return found


def choose_layout(
    root: Path, data: str = "auto", *, class_split: ClassSplit | None = None, crop: bool = False
) -> Layout:
    """Find the layout to read: the preferred one of the one data set in the folder.

    Raises
    ------
    UserError
        Nothing known is there (the message says what to place where), several data sets are, or an option
        does not fit.
    """
    if (class_split is not None or crop) and data not in ("auto", "cub"):
        raise UserError(f"--class_split and --crop are for CUB only, and data is {data}")
    found = find_layouts(root, data, class_split=class_split, crop=crop)
    if not found:
        raise UserError(_nothing_found(root, data))
    sets = sorted({layout.data for layout in found})
    if len(sets) > 1:
        raise UserError(f"{root} holds several data sets: choose data={' or data='.join(sets)}")
    if (class_split is not None or crop) and sets != ["cub"]:
        raise UserError(f"--class_split and --crop are for CUB only, and {root} holds {sets[0]}")
    return found[0]


def _any_folder(root: Path) -> Layout:
    folders = split_folders(root)
    # All three, so that asking for a missing one ends in a message about its folder.
    readers = {split: partial(read_folder, root, folders.get(split, root / split)) for split in SPLITS}
    return Layout("folder", "{train,val,test}/<class>/<image>", readers)


def _nothing_found(root: Path, data: str) -> str:
    if not root.is_dir():
        start = f"there is no folder {root}"
    else:
        contents = scan_folder(root)
        held = ", ".join(sorted([*contents.folders, *contents.images, *contents.others])[:10]) or "nothing"
        what = "known data set" if data == "auto" else f"known layout of {data}"
        start = f"{root} holds no {what} (it holds {held})"
    names = KNOWN_DATASETS if data == "auto" else (data,)
    advice = "".join(f"\n  {name}: {KNOWN_DATASETS[name].placement}" for name in names)
    if data == "auto":
        advice += "\n  folder (any other images): {train,val,test}/<class>/<image>"
    return f"{start}. Place there:{advice}"
