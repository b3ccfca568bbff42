"""A split of a data set: which pictures there are, their classes, and their bytes.

Two layouts are read: the bundled ``emoji`` drawings, and a ``folder`` that holds
``root/{train,val,test}/<class>/<image>``.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from tqdm import tqdm

from lwfm.data.decoding import decode_picture, decoding_problem
from lwfm.errors import UserError
from lwfm.normalization import IMAGENET, Normalization

if TYPE_CHECKING:
    import numpy.typing as npt

DataName = Literal["emoji", "folder"]
Split = Literal["train", "val", "test"]
Unreadable = Literal["stop", "skip"]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files with these endings, in capitals or not, are pictures; other files of a folder are left alone."""

EMOJI = Normalization(mean=(0.83438, 0.80025, 0.75676), std=(0.26391, 0.26011, 0.31014))
"""Statistics of every pixel of the bundled training pictures (a test computes them again)."""

_ARCHIVE = Path(__file__).with_name("emoji84.zip")


@dataclass(frozen=True, eq=False)
class PictureSet:
    """The pictures of one split; small enough to hand to every DataLoader worker.

    Attributes
    ----------
    name, split
        The data set and which of its parts this is.
    classes
        Class names in alphabetical order.
    names
        ``<class>/<file>`` of each picture, in alphabetical order.
    labels
        ``[n]`` int64: the index into `classes` of each picture.
    normalization
        Channel statistics of this data set.
    fingerprint
        SHA-256 over all names and bytes, in hexadecimal: equal where the pictures are.
    contents
        The files' bytes where they are kept in memory, else None.
    folder
        Where the files are read from otherwise.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    normalization: Normalization
    fingerprint: str
    contents: tuple[bytes, ...] | None = None
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Return the encoded bytes of picture `index`.

        Raises
        ------
        UserError
            The file cannot be read any more.
        """
        if self.contents is not None:
            return self.contents[index]
        if self.folder is None:
            raise ValueError("a PictureSet needs contents or a folder")
        return _read(self.folder / self.names[index])


def open_pictures(
    data: DataName = "emoji",
    root: str | os.PathLike[str] | None = None,
    split: Split = "train",
    unreadable: Unreadable = "stop",
    *,
    normalization: Normalization | None = None,
) -> PictureSet:
    """Open one split of a data set; every picture of a folder is decoded once, with a progress bar.

    Parameters
    ----------
    data
        ``emoji`` (bundled: 385 classes of 6 drawings, 84 x 84 pixels) or ``folder``.
    root
        For ``folder``: the directory that holds ``train``, ``val`` and ``test``.
    split
        Which part; the parts have no class in common.
    unreadable
        What a picture that cannot be decoded does: ``stop`` with an error, or ``skip`` it with a warning.
        Either message names all of them.
    normalization
        Channel statistics; by default those of the emoji, and ImageNet's for a folder.

    Raises
    ------
    UserError
        The folder has another layout, a class is empty, or pictures cannot be read.

    Examples
    --------
    >>> pictures = open_pictures("emoji", split="test")
    >>> len(pictures), len(pictures.classes), pictures.names[0]
    (462, 77, 'ambulance/emojione.webp')
    """
    _check_choice("data", data, get_args(DataName))
    _check_choice("split", split, get_args(Split))
    _check_choice("unreadable", unreadable, get_args(Unreadable))
    if data == "emoji":
        if root is not None:
            raise UserError(
                f"root={os.fspath(root)!r} was given, but the emoji are bundled: choose data=folder"
            )
        return _open_emoji(split, normalization or EMOJI)
    if root is None:
        raise UserError(
            "data=folder needs root: a directory with train/<class>/<image>, val/... and test/..."
        )
    return _open_folder(Path(root), split, unreadable, normalization or IMAGENET)


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"unknown {option} {value!r}: choose one of {', '.join(choices)}")


def _open_emoji(split: str, normalization: Normalization) -> PictureSet:
    prefix = f"{split}/"
    try:
        with zipfile.ZipFile(_ARCHIVE) as archive:  # reading checks each member's CRC
            members = sorted(m for m in archive.namelist() if m.startswith(prefix) and not m.endswith("/"))
            contents = tuple(archive.read(member) for member in members)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"the bundled pictures are damaged ({error}): install lwfm again") from error
    names = [member.removeprefix(prefix) for member in members]
    hashes = [hashlib.sha256(content).digest() for content in contents]
    return _picture_set("emoji", split, names, hashes, normalization, contents=contents)


def _open_folder(root: Path, split: str, unreadable: str, normalization: Normalization) -> PictureSet:
    folder = root / split
    names = list_pictures(root, folder)
    checked = _check_all([folder / name for name in names], f"Checking {split} pictures")
    bad = [f"{folder / name}: {reason}" for name, (_, reason) in zip(names, checked, strict=True) if reason]
    if bad:
        message = f"{len(bad)} of {len(names)} pictures cannot be read:\n  " + "\n  ".join(bad)
        if unreadable == "stop":
            raise UserError(f"{message}\nRepair or remove them, or leave them out with unreadable=skip")
        warnings.warn(f"{message}\nThey are left out", stacklevel=3)
    good = [(name, digest) for name, (digest, reason) in zip(names, checked, strict=True) if not reason]
    lost = {name.split("/")[0] for name in names} - {name.split("/")[0] for name, _ in good}
    if lost:
        raise UserError(
            f"class {min(lost)!r} of {folder} has no readable picture: repair or remove the class"
        )
    kept, hashes = [name for name, _ in good], [digest for _, digest in good]
    return _picture_set(str(root), split, kept, hashes, normalization, folder=folder)


def _picture_set(
    name: str,
    split: str,
    names: list[str],
    hashes: list[bytes],
    normalization: Normalization,
    *,
    contents: tuple[bytes, ...] | None = None,
    folder: Path | None = None,
) -> PictureSet:
    fingerprint = hashlib.sha256()
    for picture, digest in zip(names, hashes, strict=True):
        fingerprint.update(picture.encode("utf-8", "surrogateescape") + b"\0" + digest)
    of_class = [picture.split("/")[0] for picture in names]
    classes = tuple(sorted(set(of_class)))
    position = {label: index for index, label in enumerate(classes)}
    labels = np.array([position[label] for label in of_class], dtype=np.int64)
    return PictureSet(
        name=name,
        split=split,
        classes=classes,
        names=tuple(names),
        labels=labels,
        normalization=normalization,
        fingerprint=fingerprint.hexdigest(),
        contents=contents,
        folder=folder,
    )


def list_pictures(root: Path, folder: Path) -> list[str]:
    """List ``<class>/<file>`` of every picture in ``folder``, a part of ``root`` or ``root`` itself, sorted.

    Raises
    ------
    UserError
        Where the layout is another, or a class has no picture.
    """
    layout = f"pictures are expected in {folder / '<class>' / '<image>'}"
    if not root.is_dir():
        raise UserError(f"there is no folder {root}: {layout}")
    if not folder.is_dir():
        found = (
            ", ".join(sorted(entry.name for entry in root.iterdir() if entry.is_dir())[:10]) or "no folder"
        )
        raise UserError(f"there is no folder {folder}: {layout}; {root} holds {found}")
    names: list[str] = []
    for label in sorted(entry for entry in folder.iterdir() if entry.is_dir() and _visible(entry)):
        files = sorted(file.name for file in label.iterdir() if _is_picture(file))
        if not files:
            raise UserError(
                f"class folder {label} holds no picture: {layout}, with the ending {' '.join(EXTENSIONS)}"
            )
        names += [f"{label.name}/{file}" for file in files]
    if not names:
        raise UserError(f"{folder} holds no class folder: {layout}")
    return names


def _visible(path: Path) -> bool:
    return not path.name.startswith(".")


def _is_picture(path: Path) -> bool:
    return _visible(path) and path.suffix.lower() in EXTENSIONS and path.is_file()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the picture {path}: {error.strerror or error}") from error


def _check_one(path: Path) -> tuple[bytes, str]:
    """SHA-256 of the file, and why it cannot be decoded ("" if it can)."""
    try:
        content = path.read_bytes()
        decode_picture(content)
    # Decoders of damaged files raise whatever they stumble over (OSError, SyntaxError, struct.error, ...).
    except Exception as error:
        return b"", decoding_problem(error)
    return hashlib.sha256(content).digest(), ""


def _check_all(paths: list[Path], title: str) -> list[tuple[bytes, str]]:
    """Check all files on all cores; the bar appears after two seconds."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        return list(tqdm(pool.map(_check_one, paths), total=len(paths), desc=title, delay=2, leave=False))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C the files still queued are dropped
