"""miniImageNet: 64, 16 and 20 classes of ImageNet, 600 images each [1]_.

References
----------
.. [1] O. Vinyals and others, "Matching Networks for One Shot Learning", NeurIPS 2016; the split is that of
   S. Ravi and H. Larochelle, "Optimization as a Model for Few-Shot Learning", ICLR 2017.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lwfm.data.layouts.folders import folder_layout
from lwfm.data.layouts.layout import KnownDataset, Layout, Listing, each_split, existing
from lwfm.data.layouts.pickles import pixels_of, read_dictionary, read_pixels_and_labels
from lwfm.data.layouts.tables import find_tables, first_label, read_table
from lwfm.data.sources import PixelSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lwfm.data.layouts.layout import Request

CLASSES = each_split((64, 16, 20))
IMAGES = each_split((64, 16, 20), 600)
_WORDNET = re.compile(r"n\d{8}")


def is_wordnet(names: list[str]) -> bool:
    """Return whether all names are WordNet numbers, as ImageNet's classes are called."""
    return bool(names) and all(_WORDNET.fullmatch(name) for name in names)


def find(root: Path, request: Request) -> Iterator[Layout]:
    """Find listed images, class folders and the two sorts of pickles."""
    tables = find_tables(root)
    if tables and (request.named or all(is_wordnet([first_label(table)]) for table in tables.values())):
        place = next(iter(tables.values())).parent.relative_to(root)
        form = f"images listed in {place / '{train,val,test}.csv'}"
        yield _layout(
            form, {split: partial(read_table, root, table, split) for split, table in tables.items()}
        )

    def recognize(classes: Mapping[str, list[str]]) -> bool:
        few = sum(map(len, classes.values())) <= sum(CLASSES.values())
        return request.named or (few and all(map(is_wordnet, classes.values())))

    folders = folder_layout("miniimagenet", root, recognize=recognize, classes=CLASSES, images=IMAGES)
    if folders is not None:
        yield folders
    caches = existing(lambda name: iter([root / f"mini-imagenet-cache-{name}.pkl"]))
    if caches:
        yield _layout("mini-imagenet-cache-{train,val,test}.pkl", _readers(_read_cache, caches))
    parts = existing(
        lambda name: (
            root / f"miniImageNet_category_split_{part}.pickle" for part in (f"{name}_phase_{name}", name)
        )
    )
    if parts:
        yield _layout("miniImageNet_category_split_*.pickle", _readers(read_pixels_and_labels, parts))


def _layout(form: str, splits: Mapping[str, Callable[[], Listing]]) -> Layout:
    return Layout("miniimagenet", form, splits, CLASSES, IMAGES)


def _readers(read: Callable[[Path], Listing], files: Mapping[str, Path]) -> dict[str, Callable[[], Listing]]:
    return {split: partial(read, path) for split, path in files.items()}


def _read_cache(path: Path) -> Listing:
    """Read ``{"image_data": [n, 84, 84, 3] uint8, "class_dict": {class: indices}}``."""
    content = read_dictionary(path, ("image_data", "class_dict"))
    pixels, members = pixels_of(path, content["image_data"]), content["class_dict"]
    if not isinstance(members, dict):
        raise UserError(
            f"{path}: class_dict must name the images of each class, not {type(members).__name__}"
        )
    names, rows = [], []
    for label, indices in members.items():
        for index in np.asarray(indices).astype(np.int64).ravel().tolist():
            if not 0 <= index < len(pixels):
                raise UserError(f"{path}: class {label} has image {index}, but there are {len(pixels)}")
            names.append(f"{label}/{index:05d}")
            rows.append(index)
    return Listing(names, PixelSource(pixels, str(path), np.array(rows, dtype=np.int64)))


DATASET = KnownDataset(
    "miniimagenet",
    find,
    "images/*.jpg with split/train.csv, val.csv and test.csv (header filename,label); or train/<class>/, "
    "val/<class>/ and test/<class>/; or mini-imagenet-cache-train.pkl, -val.pkl and -test.pkl",
)
