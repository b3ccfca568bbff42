"""Images in ``{train,val,test}/<class>/``: the commonest layout of all."""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from lwfm._common.text import listed
from lwfm.data.decoding import image_endings
from lwfm.data.layouts.layout import SPLIT_NAMES, Layout, Listing
from lwfm.data.sources import FileSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

WITH_ENDING = "with an ending such as .jpg, .png or .webp"
"""For messages: the endings are many."""

_OF_SYSTEMS = ("thumbs.db", "desktop.ini")
"""Files that a system places into folders by itself; as hidden ones they are nobody's business."""
_SHOWN = 5


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of the splits that exist, under any of their usual names."""
    found = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            if (root / name).is_dir():
                found[split] = root / name
                break
    return found


def class_folders(folder: Path) -> list[str]:
    """Return the names of the class folders within a folder, sorted."""
    return scan_folder(folder).folders


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
    """List every image ``<class>/<file>`` in ``folder``, a part of ``root`` or ``root`` itself, sorted.

    Raises
    ------
    UserError
        Where the layout is another, a class has no image, or a folder cannot be read.
    """
    layout = f"images are expected in {folder / '<class>' / '<image>'}"
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: {layout}")
    if not folder.is_dir():
        found = ", ".join(scan_folder(root).folders[:10]) or "no folder"
        raise UserError(f"there is no folder {folder}: {layout}; {root} holds {found}")
    top = scan_folder(folder)
    listing = read_classes(folder, top.folders)
    with_images = {name.split("/")[0] for name in listing.names}
    if empty := [label for label in top.folders if label not in with_images]:
        raise UserError(f"class folder {folder / empty[0]} holds no image: {layout}, {WITH_ENDING}")
    if not listing.names:
        raise UserError(f"{folder} holds no class folder: {layout}")
    return listing._replace(left_out=(*top.images, *top.others, *listing.left_out))


def read_classes(folder: Path, classes: Sequence[str]) -> Listing:
    """List the images of some class folders of one common folder; UserError where one is missing."""
    names: list[str] = []
    left_out: list[str] = []
    present = set(class_folders(folder))
    for label in classes:
        if label not in present:
            raise UserError(f"there is no folder {folder / label}, though the split lists that class")
        contents = scan_folder(folder / label)
        names += [f"{label}/{file}" for file in contents.images]
        left_out += [f"{label}/{name}" for name in contents.left_out]
    return Listing(names, FileSource(folder, names), tuple(left_out))


class FolderContents(NamedTuple):
    """The names in a folder, sorted; hidden ones are in none of the lists."""

    images: list[str]
    """Files with an ending of :func:`~lwfm.data.decoding.image_endings`."""
    others: list[str]
    """Other files."""
    folders: list[str]

    @property
    def left_out(self) -> list[str]:
        """Return all but the images; folders end with a slash."""
        return [*self.others, *(f"{name}/" for name in self.folders)]


def scan_folder(folder: Path) -> FolderContents:
    """List what is directly in a folder; UserError where that is not permitted."""
    contents = FolderContents([], [], [])
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith(".") or entry.name.lower() in _OF_SYSTEMS:
                    continue
                if entry.is_dir():
                    contents.folders.append(entry.name)
                elif entry.is_file() and Path(entry.name).suffix.lower() in image_endings():
                    contents.images.append(entry.name)
                else:
                    contents.others.append(entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror or error}") from error
    return contents


def find_images(paths: Sequence[Path]) -> list[Path]:
    """List the given files and the images directly in the given folders, in order.

    Raises
    ------
    UserError
        For a path that does not exist and a folder without images.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            contents = scan_folder(path)
            if not contents.images:
                raise UserError(f"the folder {path} holds no image, {WITH_ENDING}")
            warn_left_out(path, contents.left_out)
            found += [path / name for name in contents.images]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"there is no image or folder {path}")
    return found


def scan_tree(folder: Path, refused: Callable[[UserError], None]) -> FolderContents:
    """List what is in a folder and in the folders below it, as paths relative to it.

    Links to folders are not followed: they count as left out. ``refused`` is told which folder cannot be
    read; if it returns, that one is passed over.
    """
    tree = FolderContents([], [], [])
    waiting = [PurePosixPath()]
    while waiting:
        place = waiting.pop()
        try:
            contents = scan_folder(folder / place)
        except UserError as error:
            refused(error)
            continue
        tree.images.extend(str(place / name) for name in contents.images)
        tree.others.extend(str(place / name) for name in contents.others)
        linked = [name for name in contents.folders if (folder / place / name).is_symlink()]
        tree.folders.extend(str(place / name) for name in linked)
        waiting += [place / name for name in contents.folders if name not in linked]
    return FolderContents(*(sorted(names) for names in tree))


def warn_left_out(folder: Path | str, left_out: Sequence[str]) -> None:
    """Warn in one line of what is not read in a folder, if there is anything."""
    if left_out:
        warnings.warn(f"in {folder} {describe_left_out(left_out)}", stacklevel=3)


def describe_left_out(left_out: Sequence[str]) -> str:
    """Count and name what is not read.

    Examples
    --------
    >>> describe_left_out(["a.txt", "old/"])
    '1 file without the ending of an image and 1 folder in a folder of images are left out: a.txt, old/'
    """
    folders = sum(name.endswith("/") for name in left_out)
    files = len(left_out) - folders
    counted = [
        f"{count} {what if count == 1 else several}"
        for count, what, several in (
            (files, "file without the ending of an image", "files without the ending of an image"),
            (folders, "folder in a folder of images", "folders in folders of images"),
        )
        if count
    ]
    verb = "is" if len(left_out) == 1 else "are"
    return f"{' and '.join(counted)} {verb} left out: {listed(left_out, _SHOWN)}"
