"""The image files of a user: examples in a folder for each class, and images to classify."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lwfm.data.decoding import open_image
from lwfm.data.image_sets import Unreadable, skip_unreadable
from lwfm.data.layouts.folders import WITH_ENDING, read_folder, scan_folder, warn_left_out
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def find_examples(folder: Path, unreadable: Unreadable) -> list[Path]:
    """List the images in the class folders of a folder; with ``skip`` those that can be decoded.

    Raises
    ------
    UserError
        For a folder of another layout, and a class without any (readable) image.
    """
    listing = read_folder(folder, folder)
    warn_left_out(folder, listing.left_out)
    paths = [folder / name for name in listing.names]
    if unreadable == "stop":  # learning from them names the first one that cannot be read
        return paths
    kept: list[Path] = []
    for path in paths:
        try:
            open_image(path)
        except UserError as error:
            skip_unreadable(error, unreadable)
        else:
            kept.append(path)
    if lost := {path.parent for path in paths} - {path.parent for path in kept}:
        raise UserError(f"class folder {min(lost)} holds no readable image: repair or remove it")
    return kept


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
                raise UserError(f"the folder {path} holds no image to classify, {WITH_ENDING}")
            warn_left_out(path, contents.left_out)
            found += [path / name for name in contents.images]
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"there is no image or folder {path}")
    return found
