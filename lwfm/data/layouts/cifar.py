"""CIFAR-FS [1]_ and FC100 [2]_: two ways to split the 100 classes of CIFAR-100, 600 images each.

References
----------
.. [1] L. Bertinetto and others, "Meta-learning with differentiable closed-form solvers", ICLR 2019.
.. [2] B. Oreshkin and others, "TADAM: Task dependent adaptive metric for improved few-shot learning",
   NeurIPS 2018.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from lwfm.data.layouts.folders import class_folders, folder_layout, read_classes
from lwfm.data.layouts.layout import SPLITS, KnownDataset, Layout, Listing, each_split, existing
from lwfm.data.layouts.pickles import labels_of, read_dictionary, read_pixels_and_labels
from lwfm.data.sources import PixelSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from lwfm.data.layouts.layout import Request

SUPERCLASSES = tuple(
    tuple(line.split())
    for line in """
    beaver dolphin otter seal whale
    aquarium_fish flatfish ray shark trout
    orchid poppy rose sunflower tulip
    bottle bowl can cup plate
    apple mushroom orange pear sweet_pepper
    clock keyboard lamp telephone television
    bed chair couch table wardrobe
    bee beetle butterfly caterpillar cockroach
    bear leopard lion tiger wolf
    bridge castle house road skyscraper
    cloud forest mountain plain sea
    camel cattle chimpanzee elephant kangaroo
    fox porcupine possum raccoon skunk
    crab lobster snail spider worm
    baby boy girl man woman
    crocodile dinosaur lizard snake turtle
    hamster mouse rabbit shrew squirrel
    maple_tree oak_tree palm_tree pine_tree willow_tree
    bicycle bus motorcycle pickup_truck train
    lawn_mower rocket streetcar tank tractor
    """.strip().splitlines()
)
"""The classes of CIFAR-100, a row for each of its 20 superclasses in their order."""
_FC100 = {
    "train": (1, 2, 3, 4, 5, 6, 9, 10, 15, 17, 18, 19),
    "val": (8, 11, 13, 16),
    "test": (0, 7, 12, 14),
}
FC100_CLASSES = {
    split: {name for row in rows for name in SUPERCLASSES[row]} for split, rows in _FC100.items()
}
_NAMES = {name for row in SUPERCLASSES for name in row}


def _is_fc100(classes: Mapping[str, list[str]]) -> bool:
    return all(names and set(names) <= FC100_CLASSES[split] for split, names in classes.items())


def _is_cifar_fs(classes: Mapping[str, list[str]]) -> bool:
    return all(map(_are_cifar, classes.values())) and not _is_fc100(classes)


def _are_cifar(names: list[str]) -> bool:
    return bool(names) and set(names) <= _NAMES


def find_cifar_fs(root: Path, request: Request) -> Iterator[Layout]:
    """Find class folders, lists of classes beside images or CIFAR-100's pickles, and CIFAR-FS pickles."""
    classes, images = each_split((64, 16, 20)), each_split((64, 16, 20), 600)
    layout = partial(Layout, "cifar-fs", classes=classes, images=images)
    folders = folder_layout(
        "cifar-fs",
        root,
        recognize=lambda found: request.named or _is_cifar_fs(found),
        classes=classes,
        images=images,
    )
    if folders is not None:
        yield folders
    for place, lists in _class_lists(root):
        listed = f"{place}/{{train,val,test}}.txt"
        if (root / "data").is_dir() and (request.named or _are_cifar(class_folders(root / "data"))):
            readers = {split: partial(_read_listed, root / "data", path) for split, path in lists.items()}
            yield layout(f"data/<class>/ with the classes in {listed}", readers)
        original = _original(root)
        if original is not None:
            readers = {
                split: partial(_read_original, original, partial(_names_in, path))
                for split, path in lists.items()
            }
            yield layout(f"CIFAR-100's pickles with the classes in {listed}", readers)
    yield from _pickles(root, "CIFAR_FS", layout)


def find_fc100(root: Path, request: Request) -> Iterator[Layout]:
    """Find class folders, CIFAR-100's pickles (split by superclass) and FC100 pickles."""
    classes, images = each_split((60, 20, 20)), each_split((60, 20, 20), 600)
    layout = partial(Layout, "fc100", classes=classes, images=images)
    folders = folder_layout(
        "fc100",
        root,
        recognize=lambda found: request.named or _is_fc100(found),
        classes=classes,
        images=images,
    )
    if folders is not None:
        yield folders
    original = _original(root)
    if original is not None:
        readers = {
            split: partial(_read_original, original, partial(FC100_CLASSES.__getitem__, split))
            for split in SPLITS
        }
        yield layout("CIFAR-100's pickles, split by superclass", readers)
    yield from _pickles(root, "FC100", layout)


def _pickles(root: Path, prefix: str, layout: Callable[..., Layout]) -> Iterator[Layout]:
    files = existing(lambda name: iter([root / f"{prefix}_{name}.pickle"]))
    if files:
        readers = {split: partial(read_pixels_and_labels, path) for split, path in files.items()}
        yield layout(f"{prefix}_{{train,val,test}}.pickle", readers)


def _class_lists(root: Path) -> Iterator[tuple[str, dict[str, Path]]]:
    """Return text files with a class name per line, from the first of the usual places that has any."""
    for place in ("splits/bertinetto", "splits", "split", "."):
        files = existing(lambda name, place=place: iter([root / place / f"{name}.txt"]))  # type: ignore[misc]
        if files:
            yield place, files
            return


def _names_in(path: Path) -> list[str]:
    try:
        names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of classes {path}: {error}") from error
    if not names:
        raise UserError(f"{path} lists no class: a name per line is expected")
    return names


def _read_listed(folder: Path, path: Path) -> Listing:
    return read_classes(folder, _names_in(path))


def _original(root: Path) -> Path | None:
    """Return the folder of CIFAR-100's own pickles train, test and meta, if present."""
    for folder in (root, root / "cifar-100-python"):
        if all((folder / name).is_file() for name in ("train", "test", "meta")):
            return folder
    return None


def _read_original(folder: Path, wanted: Callable[[], Iterable[str]]) -> Listing:
    """Read images of some classes from both parts of CIFAR-100: rows of 3 x 32 x 32 and fine labels."""
    names = [
        str(name) for name in read_dictionary(folder / "meta", ("fine_label_names",))["fine_label_names"]
    ]
    classes = set(wanted())
    if unknown := sorted(classes - set(names)):
        raise UserError(f"the split lists the class {unknown[0]!r}, which {folder / 'meta'} does not know")
    pixels, of_class = [], []
    for part in ("train", "test"):
        content = read_dictionary(folder / part, ("data", "fine_labels"))
        data = np.asarray(content["data"])
        if data.ndim != 2 or data.shape[1] != 3072 or data.dtype != np.uint8:
            raise UserError(
                f"{folder / part}: data must be uint8 [n, 3072], not {data.dtype} {list(data.shape)}"
            )
        labels = labels_of(folder / part, content["fine_labels"], len(data)).tolist()
        if labels and not 0 <= min(labels) <= max(labels) < len(names):
            raise UserError(f"{folder / part}: labels must be 0 to {len(names) - 1}")
        rows = [row for row, label in enumerate(labels) if names[label] in classes]
        pixels.append(data[rows].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        of_class += [f"{names[labels[row]]}/{part}-{row:05d}" for row in rows]
    return Listing(of_class, PixelSource(np.concatenate(pixels), str(folder)))


CIFAR_FS = KnownDataset(
    "cifar-fs",
    find_cifar_fs,
    "meta-train/<class>/, meta-val/<class>/ and meta-test/<class>/ (or train, val, test); or data/<class>/, "
    "or CIFAR-100's train, test and meta, with splits/bertinetto/train.txt, val.txt and test.txt; "
    "or CIFAR_FS_train.pickle, _val.pickle and _test.pickle",
)
FC100 = KnownDataset(
    "fc100",
    find_fc100,
    "train/<class>/, val/<class>/ and test/<class>/ (or meta-train and so on); or CIFAR-100's train, test "
    "and meta; or FC100_train.pickle, _val.pickle and _test.pickle",
)
