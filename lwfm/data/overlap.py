"""Classes and identical images in two splits of a data set: few-shot accuracy means nothing with them."""

from __future__ import annotations

import warnings
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lwfm._common.text import listed
from lwfm.data.layouts import KNOWN_DATASETS
from lwfm.data.layouts.folders import class_folders, split_folders
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lwfm.data.image_sets import ImageSet

Overlap = Literal["stop", "allow"]
_SHOWN = 10


def shared_content(splits: Mapping[str, Iterable[tuple[str, bytes]]]) -> list[str]:
    """Describe which classes and which identical images any two splits share.

    Parameters
    ----------
    splits
        Of each split the name ``<class>/<file>`` and the digest of its images.

    Examples
    --------
    >>> shared_content({"train": [("a/1.png", b"x")], "val": [("b/7.png", b"x")]})
    ['train and val have 1 identical images: a/1.png = b/7.png']
    """
    names = {split: {digest: name for name, digest in images} for split, images in splits.items()}
    problems = []
    for first, second in combinations(names, 2):
        classes = [{name.split("/")[0] for name in names[split].values()} for split in (first, second)]
        if common := classes[0] & classes[1]:
            problems.append(
                f"{first} and {second} have {len(common)} classes in common: {listed(sorted(common), _SHOWN)}"
            )
        if same := names[first].keys() & names[second].keys():
            pairs = sorted(f"{names[first][digest]} = {names[second][digest]}" for digest in same)
            problems.append(
                f"{first} and {second} have {len(same)} identical images: {listed(pairs, _SHOWN)}"
            )
    return problems


def check_splits(images: Sequence[ImageSet], overlap: Overlap) -> None:
    """Check that splits share neither a class nor an image.

    Of class folders the names in the other splits are checked as well; no image there is read.
    A published benchmark is not refused for an image that occurs in two of its splits: its results are
    comparable only with the images as they are. `lwfm data inspect` tells it.

    Parameters
    ----------
    images
        Splits of one data set.
    overlap
        stop raises, allow warns.

    Raises
    ------
    UserError
        Naming what they share.
    """
    name = images[0].name
    published = name in KNOWN_DATASETS
    contents = {each.split: _contents(each, published=published) for each in images}
    if not published and images[0].layout != "bundled":
        contents |= _classes_elsewhere(Path(name), opened=contents.keys())
    if problems := shared_content(contents):
        _refuse(f"{name}: " + "\n".join(problems), overlap)


def check_unseen(images: ImageSet, training_classes: Sequence[str], overlap: Overlap) -> None:
    """Check that a network is not evaluated on the classes that it was trained on.

    The split of the training classes is allowed with a warning: who names it asks for nothing else.

    Parameters
    ----------
    images
        The split to evaluate on.
    training_classes
        Names of the classes; empty where they are not known.
    overlap
        stop raises, allow warns.

    Raises
    ------
    UserError
        Naming the classes.
    """
    seen = set(images.classes) & set(training_classes)
    if seen:
        problem = (
            f"{len(seen)} of the {len(images.classes)} classes of {images.name} ({images.split}) are "
            f"training classes of the checkpoint: {listed(sorted(seen), _SHOWN)}"
        )
        _refuse(problem, "allow" if images.split == "train" else overlap)


def _contents(images: ImageSet, *, published: bool) -> Iterable[tuple[str, bytes]]:
    if published:  # every image counts as another one
        return [(name, f"{images.split}/{name}".encode()) for name in images.names]
    return zip(images.names, images.digests, strict=True)


def _classes_elsewhere(root: Path, *, opened: Collection[str]) -> dict[str, Iterable[tuple[str, bytes]]]:
    """Return the class folders of the other splits as if each held one image, like no other."""
    found: dict[str, Iterable[tuple[str, bytes]]] = {}
    for split, folder in split_folders(root).items():
        with suppress(UserError):  # a folder that cannot be read is told by the command that reads it
            if split not in opened:
                found[split] = [(name, f"{split}/{name}".encode()) for name in class_folders(folder)]
    return found


def _refuse(problem: str, overlap: Overlap) -> None:
    """Raise UserError, or warn where the overlap is allowed."""
    if overlap == "stop":
        raise UserError(
            f"{problem}\nThe accuracy would not be that of unseen classes: separate the splits, or allow it "
            'with --overlap allow (overlap="allow" in Python)'
        )
    warnings.warn(f"{problem}\nThe accuracy is not that of unseen classes", stacklevel=3)
