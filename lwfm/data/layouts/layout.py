"""Types that all layouts of data sets share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from lwfm.data.sources import ImageSource

ClassSplit = Literal["feat", "closer-look", "frn", "meta-dataset"]
SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": ("train", "meta-train", "base"),
    "val": ("val", "validation", "valid", "meta-val"),
    "test": ("test", "meta-test", "novel"),
}
"""Names of the splits in data sets in circulation."""


class Listing(NamedTuple):
    """The images of a split, in the order of `source`; nothing is decoded yet."""

    names: list[str]
    """``<class>/<file>`` of each image."""
    source: ImageSource
    left_out: tuple[str, ...] = ()
    """Files and folders (with a slash at the end) beside the images, which are not read."""


@dataclass(frozen=True)
class Request:
    """Options of the user.

    Attributes
    ----------
    named
        Whether the data set was named, rather than to be recognized: then class names need not be known.
    class_split
        Which of CUB's class splits.
    crop
        Whether CUB's images are cropped to their bounding boxes.
    """

    named: bool = True
    class_split: ClassSplit | None = None
    crop: bool = False


@dataclass(frozen=True)
class Layout:
    """A data set found in a folder.

    Attributes
    ----------
    data
        Its name, as in ``--data``.
    form
        Description of the layout.
    splits
        Reader of each split that is present.
    classes, images
        Expected numbers of each split, where known.
    total
        Expected number of images in all splits together, where known.
    class_split
        Name of the class split, where there are several.
    boxes
        Width and height of the bounding box of an image ``<class>/<file>``, where known.
    """

    data: str
    form: str
    splits: Mapping[str, Callable[[], Listing]]
    classes: Mapping[str, int] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)
    total: int | None = None
    class_split: str | None = None
    boxes: Callable[[], Mapping[str, tuple[float, float]]] | None = None


class KnownDataset(NamedTuple):
    """A data set that can be recognized."""

    name: str
    find: Callable[[Path, Request], Iterator[Layout]]
    """The layouts of it in a folder, the preferred one first; only names of files are looked at."""
    placement: str
    """Expected files, for the message when nothing is found."""


def each_split(counts: tuple[int, int, int], times: int = 1) -> dict[str, int]:
    """Return the counts per split.

    Examples
    --------
    >>> each_split((64, 16, 20), 600)
    {'train': 38400, 'val': 9600, 'test': 12000}
    """
    return {split: count * times for split, count in zip(SPLITS, counts, strict=True)}


def existing(candidates: Callable[[str], Iterator[Path]]) -> dict[str, Path]:
    """Return for each split the first candidate that is a file, in the order of the split's usual names."""
    found = {}
    for split, names in SPLIT_NAMES.items():
        for path in (path for name in names for path in candidates(name)):
            if path.is_file():
                found[split] = path
                break
    return found
