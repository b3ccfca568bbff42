"""tieredImageNet: 351, 97 and 160 classes of ImageNet that share no superclass [1]_.

References
----------
.. [1] M. Ren and others, "Meta-Learning for Semi-Supervised Few-Shot Classification", ICLR 2018.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lwfm.data.layouts import miniimagenet
from lwfm.data.layouts.folders import folder_layout
from lwfm.data.layouts.layout import KnownDataset, Layout, Listing, each_split, existing
from lwfm.data.layouts.pickles import class_names, labels_of, read_dictionary, read_pickle
from lwfm.data.sources import EncodedSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from lwfm.data.layouts.layout import Request

CLASSES = each_split((351, 97, 160))
IMAGES = {"train": 448_695, "val": 124_261, "test": 206_209}


def find(root: Path, request: Request) -> Iterator[Layout]:
    """Find class folders, and the pickles of encoded images with their labels."""

    def recognize(classes: Mapping[str, list[str]]) -> bool:
        many = sum(map(len, classes.values())) > sum(miniimagenet.CLASSES.values())
        return request.named or (many and all(map(miniimagenet.is_wordnet, classes.values())))

    folders = folder_layout("tieredimagenet", root, recognize=recognize, classes=CLASSES, images=IMAGES)
    if folders is not None:
        yield folders
    images = existing(lambda name: iter([root / f"{name}_images_png.pkl"]))
    if images:
        form = "{train,val,test}_images_png.pkl with {train,val,test}_labels.pkl"
        readers = {split: partial(_read_pickles, path) for split, path in images.items()}
        yield Layout("tieredimagenet", form, readers, CLASSES, IMAGES)


def _read_pickles(images: Path) -> Listing:
    """Read a list of encoded images (uint8 each) and their labels ``label_specific`` with names."""
    labels = images.with_name(images.name.replace("_images_png", "_labels"))
    if not labels.is_file():
        raise UserError(f"{images} needs the labels {labels}: place that file beside it")
    contents = read_pickle(images)
    encoded = list(contents) if isinstance(contents, (list, tuple, np.ndarray)) else []
    wrong = {type(one).__name__ for one in encoded if not isinstance(one, (bytes, np.ndarray))}
    if wrong or not encoded:
        held = f"{type(contents).__name__} of {', '.join(sorted(wrong)) or 'nothing'}"
        raise UserError(f"{images} must hold a list of encoded images, not {held}")
    source = EncodedSource(encoded, str(images))
    content = read_dictionary(labels, ("label_specific",))
    numbers = labels_of(labels, content["label_specific"], len(source.contents))
    of_class = class_names(labels, content.get("label_specific_str"), numbers)
    return Listing([f"{label}/{index:06d}" for index, label in enumerate(of_class)], source)


DATASET = KnownDataset(
    "tieredimagenet",
    find,
    "train/<class>/, val/<class>/ and test/<class>/; or train_images_png.pkl with train_labels.pkl, "
    "and so on for val and test",
)
