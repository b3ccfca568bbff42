"""Images in ``{train,val,test}/<class>/``: the commonest layout of all."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lwfm.data.layouts.layout import SPLIT_NAMES, Layout, Listing
from lwfm.data.sources import EXTENSIONS, FileSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


def split_folders(root: Path) -> dict[str, Path]:
    """Folders of the splits that are there, under any of their usual names."""
    found = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            if (root / name).is_dir():
                found[split] = root / name
                break
    return found


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders within a folder, sorted."""
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and _visible(entry))


def folder_layout(
    data: str,
    root: Path,
    *,
    recognize: Callable[[Mapping[str, list[str]]], bool],
    classes: Mapping[str, int],
    images: Mapping[str, int],
) -> Layout | None:
    """Describe split folders of a known data set, if there are any and their class names are its own.

    Parameters
    ----------
    data
        Name of the data set.
    root
        The folder that holds those of the splits.
    recognize
        Tells from the class names of each split whether this is the data set.
    classes, images
        Expected numbers.
    """
    folders = split_folders(root)
    if not folders or not recognize({split: class_folders(folder) for split, folder in folders.items()}):
        return None
    form = f"{{{','.join(folder.name for folder in folders.values())}}}/<class>/<image>"
    readers = {split: partial(read_folder, root, folder) for split, folder in folders.items()}
    return Layout(data, form, readers, classes, images)


def read_folder(root: Path, folder: Path) -> Listing:
    """List every image of a split's folder; UserError where the layout is another."""
    names = list_images(root, folder)
    return Listing(names, FileSource(folder, names))


def list_images(root: Path, folder: Path) -> list[str]:
    """List ``<class>/<file>`` of every image in ``folder``, a part of ``root`` or ``root`` itself, sorted.

    Raises
    ------
    UserError
        Where the layout is another, or a class has no image.
    """
    layout = f"images are expected in {folder / '<class>' / '<image>'}"
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: {layout}")
    if not folder.is_dir():
        found = (
            ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_dir())[:10]) or "no folder"
        )
        raise UserError(f"there is no folder {folder}: {layout}; {root} holds {found}")
    names: list[str] = []
    for label in class_folders(folder):
        files = images_in(folder / label)
        if not files:
            raise UserError(
                f"class folder {folder / label} holds no image: {layout}, "
                f"with the ending {' '.join(EXTENSIONS)}"
            )
        names += [f"{label}/{file}" for file in files]
    if not names:
        raise UserError(f"{folder} holds no class folder: {layout}")
    return names


def images_in(folder: Path) -> list[str]:
    """Names of the images directly in a folder, sorted."""
    return sorted(file.name for file in folder.iterdir() if _is_image(file))


def read_classes(folder: Path, classes: list[str]) -> Listing:
    """List the images of some class folders of one common folder; UserError where one is missing."""
    names: list[str] = []
    for label in classes:
        if not (folder / label).is_dir():
            raise UserError(f"there is no folder {folder / label}, though the split lists that class")
        names += [f"{label}/{file}" for file in images_in(folder / label)]
    return Listing(names, FileSource(folder, names))


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _is_image(path: Path) -> bool:
    return _visible(path) and path.suffix.lower() in EXTENSIONS and path.is_file()
