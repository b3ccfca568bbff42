"""The image files of a user: examples in a folder for each class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lwfm.data.decoding import open_image
from lwfm.data.image_sets import Unreadable, skip_unreadable
from lwfm.data.layouts.folders import read_folder, warn_left_out
from lwfm.errors import UserError

if TYPE_CHECKING:
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
