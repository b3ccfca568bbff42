"""Open a split of a data set: its images, their classes, and the source they are read from.

The bundled ``emoji`` drawings, any ``folder`` that holds ``root/{train,val,test}/<class>/<image>``, and the
benchmarks of :mod:`lwfm.data.layouts`.
"""

from __future__ import annotations

import hashlib
import os
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from lwfm._common.progress import progress
from lwfm.data.layouts import ClassSplit as ClassSplit  # part of this module's face
from lwfm.data.layouts import Layout, Listing, choose_layout
from lwfm.data.layouts.folders import warn_left_out
from lwfm.data.normalization import IMAGENET, Normalization
from lwfm.data.sources import EncodedSource
from lwfm.data.white_levels import WhiteLevels, choose_white
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt
    from PIL.Image import Image

    from lwfm.data.sources import Checked, ImageSource

DataName = Literal["emoji", "folder", "auto", "miniimagenet", "tieredimagenet", "cub", "cifar-fs", "fc100"]
Split = Literal["train", "val", "test"]
Unreadable = Literal["stop", "skip"]

EMOJI = Normalization(mean=(0.83438, 0.80025, 0.75676), std=(0.26391, 0.26011, 0.31014))
"""Statistics of every pixel of the bundled training images (a test computes them again)."""

EMOJI_IMAGES = 6
"""Images of each class of the bundled emoji."""
_ARCHIVE = Path(__file__).with_name("emoji84.zip")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of one split; small enough to hand to every DataLoader worker.

    Attributes
    ----------
    name, split
        The data set (of ``folder`` the path, such as ``./cub``, never the name of a known data set), and
        which of its parts this is.
    classes
        Class names in alphabetical order.
    names
        ``<class>/<file>`` of each image, in alphabetical order.
    labels
        ``[n]`` int64: the index into `classes` of each image.
    normalization
        Channel statistics of this data set.
    fingerprint
        SHA-256 over all names and contents, in hexadecimal: equal where the images are.
    source
        Source of the images.
    layout
        How the data set is laid out, in words; for CUB with the name of its class split.
    digests
        SHA-256 of each image, see :class:`~lwfm.data.sources.Checked`.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    normalization: Normalization
    fingerprint: str
    source: ImageSource
    layout: str
    digests: tuple[bytes, ...]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> bytes:
        """Return the stored bytes of image `index`; UserError when its file cannot be read any more."""
        return self.source.read(index)

    def image(self, index: int) -> Image:
        """Return image `index` decoded: upright, in RGB, cropped where that was asked for.

        Examples
        --------
        >>> open_images("emoji", split="val").image(0).size
        (84, 84)
        """
        return self.source.image(index)


def open_images(
    data: DataName = "emoji",
    root: str | os.PathLike[str] | None = None,
    split: Split = "train",
    unreadable: Unreadable = "stop",
    *,
    class_split: ClassSplit | None = None,
    crop: bool = False,
    normalization: Normalization | None = None,
) -> ImageSet:
    """Open one split of a data set; every image is decoded once, with a progress bar.

    Parameters
    ----------
    data
        ``emoji`` (bundled: 385 classes of 6 drawings, 84 x 84 pixels), ``folder``, the name of a benchmark in
        any layout of :mod:`lwfm.data.layouts`, or ``auto`` to recognize which of these `root` holds.
    root
        The directory that holds the data set; for ``folder`` the one with ``train``, ``val`` and ``test``.
    split
        Which part; the parts have no class in common.
    unreadable
        ``stop`` at images that cannot be decoded, or ``skip`` them with a warning. Either message names all.
    class_split
        For CUB: which of its class splits, where its files do not decide it.
    crop
        For CUB: whether images are cropped to their bounding boxes.
    normalization
        Channel statistics; by default those of the emoji, and ImageNet's for all others.

    Raises
    ------
    UserError
        The folder has another layout (the message says what to place where), a class is empty, or images
        cannot be read.

    Examples
    --------
    >>> images = open_images("emoji", split="test")
    >>> len(images), len(images.classes), images.names[0]
    (462, 77, 'ambulance/emojione.webp')
    """
    _check_choice("data", data, get_args(DataName))
    _check_choice("split", split, get_args(Split))
    _check_choice("unreadable", unreadable, get_args(Unreadable))
    if data == "emoji":
        if root is not None:
            raise UserError(
                f"--root {os.fspath(root)} was given, but the emoji are bundled: "
                "choose --data folder or --data auto"
            )
        return _open_emoji(split, normalization or EMOJI)
    if root is None:
        what = "train/<class>/<image>, val/... and test/..." if data == "folder" else "the data set"
        raise UserError(f"--data {data} needs --root, a directory with {what}")
    layout = choose_layout(Path(root), data, class_split=class_split, crop=crop)
    name = _folder_name(root) if layout.data == "folder" else layout.data
    return _open_layout(layout, name, split, unreadable, normalization or IMAGENET)


def check_emoji_episodes(data: DataName, shots: Iterable[int], queries: int, option: str) -> None:
    """Refuse more queries than the bundled emoji have, naming the option that sets them; no other data.

    Parameters
    ----------
    data
        Name of the data set.
    shots, queries
        Support images, of which the largest number counts, and queries of a class.
    option
        The option of `queries`, as it is typed.

    Examples
    --------
    >>> check_emoji_episodes("emoji", [1], 5, "--queries")
    """
    left = EMOJI_IMAGES - max(shots)
    if data == "emoji" and 0 < left < queries:
        raise UserError(
            f"emoji has {EMOJI_IMAGES} images of each class: with {EMOJI_IMAGES - left} as support, give "
            f"{option} {left} at most, not {queries}"
        )


def skip_unreadable(problem: str | UserError, unreadable: Unreadable) -> None:
    """Warn that what cannot be read is left out, or raise UserError where it must not be.

    Parameters
    ----------
    problem
        Which images cannot be read, and why.
    unreadable
        ``skip`` warns, ``stop`` raises.
    """
    if unreadable == "stop":
        advice = 'leave it out with --unreadable skip (unreadable="skip" in Python)'
        raise UserError(f"{problem}\nRepair or remove what is damaged, or {advice}")
    warnings.warn(f"{problem}\nIt is left out", stacklevel=3)


def list_split(layout: Layout, split: str) -> Listing:
    """List a split of a layout in alphabetical order; UserError when it is not there."""
    if split not in layout.splits:
        raise UserError(
            f"{layout.data} has no {split} split here: found {', '.join(layout.splits)} ({layout.form})"
        )
    listing = layout.splits[split]()
    if not listing.names:
        raise UserError(f"{layout.data} has no image in its {split} split, {listing.source.origin}")
    order = sorted(range(len(listing.names)), key=listing.names.__getitem__)
    return Listing([listing.names[index] for index in order], listing.source.select(order), listing.left_out)


def check_images(source: ImageSource, count: int, title: str) -> list[Checked]:
    """Read and decode all images on all cores; the progress bar appears after two seconds."""
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())
    try:
        checked = pool.map(source.check, range(count))
        return list(progress(checked, title, "image", total=count))
    finally:
        pool.shutdown(cancel_futures=True)  # on Ctrl-C the images still queued are dropped


def white_levels(layout: Layout, checked: dict[str, list[Checked]]) -> WhiteLevels | None:
    """Choose the white levels of a data set's gray of more than 8 bits; None when it has no such image.

    All splits decide, so that training and evaluation see the same image alike: those that are not in
    `checked` are read, but only if one that is there has such images.
    """
    found = [check.brightest for checks in checked.values() for check in checks if check.brightest]
    if not found:
        return None
    for split in layout.splits.keys() - checked.keys():
        with suppress(UserError):  # a split that is missing or broken is told when it is opened
            listing = list_split(layout, split)
            others = check_images(listing.source, len(listing.names), f"Reading gray levels of {split}")
            found += [check.brightest for check in others if check.brightest]
    try:
        return choose_white(found)
    except UserError as error:
        raise UserError(f"the images of {layout.data} ({layout.form}): {error}") from error


def fingerprint_of(names: Sequence[str], digests: Sequence[bytes], white: WhiteLevels | None = None) -> str:
    """Return the SHA-256 over the names, the digests of the contents and the white levels, in hexadecimal."""
    fingerprint = hashlib.sha256()
    if white is not None:
        fingerprint.update(f"{white.integers} {white.floats}\0".encode())
    for image, digest in zip(names, digests, strict=True):
        fingerprint.update(image.encode("utf-8", "surrogateescape") + b"\0" + digest)
    return fingerprint.hexdigest()


def _folder_name(root: str | os.PathLike[str]) -> str:
    """Return the path of a class folder data set, written unlike the name of any known data set."""
    name = os.fspath(root)
    return f"./{name}" if name in get_args(DataName) else name


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"unknown {option} {value!r}: choose one of {', '.join(choices)}")


def _open_emoji(split: str, normalization: Normalization) -> ImageSet:
    prefix = f"{split}/"
    try:
        with zipfile.ZipFile(_ARCHIVE) as archive:  # reading checks each member's CRC
            members = sorted(m for m in archive.namelist() if m.startswith(prefix) and not m.endswith("/"))
            contents = tuple(archive.read(member) for member in members)
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"the bundled images are damaged ({error}): install lwfm again") from error
    names = [member.removeprefix(prefix) for member in members]
    digests = [hashlib.sha256(content).digest() for content in contents]
    source = EncodedSource(contents, str(_ARCHIVE))
    return _image_set("emoji", split, Listing(names, source), digests, normalization, "bundled")


def _open_layout(
    layout: Layout, name: str, split: str, unreadable: Unreadable, normalization: Normalization
) -> ImageSet:
    listing = list_split(layout, split)
    checked = check_images(listing.source, len(listing.names), f"Checking {split} images")
    bad = [f"{listing.source.place(i)}: {check.reason}" for i, check in enumerate(checked) if check.reason]
    if bad:
        report = f"{len(bad)} of {len(checked)} images cannot be read:\n  " + "\n  ".join(bad)
        skip_unreadable(report, unreadable)
    warn_left_out(f"{name} ({split})", listing.left_out)
    good = [index for index, check in enumerate(checked) if not check.reason]
    white = white_levels(layout, {split: checked})
    source = listing.source.select(good).with_white(white)
    kept = Listing([listing.names[index] for index in good], source)
    lost = {name.split("/")[0] for name in listing.names} - {name.split("/")[0] for name in kept.names}
    if lost:
        raise UserError(
            f"class {min(lost)!r} of {name} ({split}) has no readable image: repair or remove the class"
        )
    form = layout.form + (f"; class split {layout.class_split}" if layout.class_split else "")
    return _image_set(name, split, kept, [checked[index].digest for index in good], normalization, form)


def _image_set(
    name: str, split: str, listing: Listing, digests: list[bytes], normalization: Normalization, layout: str
) -> ImageSet:
    of_class = [image.split("/")[0] for image in listing.names]
    classes = tuple(sorted(set(of_class)))
    position = {label: index for index, label in enumerate(classes)}
    return ImageSet(
        name=name,
        split=split,
        classes=classes,
        names=tuple(listing.names),
        labels=np.array([position[label] for label in of_class], dtype=np.int64),
        normalization=normalization,
        fingerprint=fingerprint_of(listing.names, digests, listing.source.white),
        source=listing.source,
        layout=layout,
        digests=tuple(digests),
    )
