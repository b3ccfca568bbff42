"""Inspect the data set in a folder: ``lwfm data inspect ROOT``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lwfm._common.tables import text_table
from lwfm._common.text import listed
from lwfm.data.image_sets import DataName, check_images, fingerprint_of, list_split, white_levels
from lwfm.data.layouts import ClassSplit, Layout, choose_layout, find_layouts
from lwfm.data.layouts.folders import describe_left_out
from lwfm.data.overlap import shared_content
from lwfm.errors import UserError

if TYPE_CHECKING:
    from lwfm.data.layouts import Listing
    from lwfm.data.sources import Checked
    from lwfm.data.white_levels import WhiteLevels

_SHOWN = 10


@dataclass(frozen=True)
class SplitReport:
    """Contents of a split.

    Attributes
    ----------
    split
        train, val or test.
    classes, images
        How many there are.
    expected_classes, expected_images
        How many the data set is known to have; None where that is not known.
    sizes
        Width and height in pixels, from the smallest to the largest.
    fingerprint
        That of :func:`lwfm.data.open_images`.
    """

    split: str
    classes: int
    expected_classes: int | None
    images: int
    expected_images: int | None
    sizes: str
    fingerprint: str


@dataclass(frozen=True)
class Inspection:
    """Contents of a folder, and its problems.

    Attributes
    ----------
    data, layout
        Name of the data set and how it is laid out; for CUB with its class split.
    others
        Further layouts of it in the same folder, which are not read.
    cropped
        Whether images are cropped to the object, as far as that can be told.
    splits
        Each split that could be read.
    problems
        Everything that is wrong or differs from what the data set is known to be; empty when nothing is.
    """

    data: str
    layout: str
    others: tuple[str, ...]
    cropped: str
    splits: tuple[SplitReport, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"data set  {self.data}", f"layout    {self.layout}", f"cropped   {self.cropped}"]
        lines += [f"also here {other}" for other in self.others]
        titles = ("split", "classes (expected)", "images (expected)", "size", "fingerprint")
        rows = [
            (
                split.split,
                _beside(split.classes, split.expected_classes),
                _beside(split.images, split.expected_images),
                split.sizes,
                split.fingerprint[:16],
            )
            for split in self.splits
        ]
        lines.append(text_table("<>><<", titles, rows))
        found = [f"- {problem}" for problem in self.problems] or ["nothing"]
        return "\n".join([*lines, "wrong or different from what is expected:", *found])


def _beside(count: int, expected: int | None) -> str:
    return f"{count} ({'unknown' if expected is None else expected})"


def inspect_data(
    action: Literal["inspect"],
    root: Path,
    *,
    data: DataName = "auto",
    class_split: ClassSplit | None = None,
    crop: bool = False,
) -> Inspection:
    """Report which data set a folder holds, in which layout, and what is wrong with it.

    Every image is read once. Nothing is changed, and no network is used.

    Parameters
    ----------
    action : str
        inspect: look at the folder and report.
    root : Path
        The folder that holds the data set.
    data : str
        auto recognizes the data set; a name says which it is meant to be.
    class_split : str, optional
        For CUB: which of its class splits, where its files do not decide it.
    crop : bool
        For CUB: report on the images cropped to their bounding boxes.

    Returns
    -------
    Inspection
        Prints as a table.

    Raises
    ------
    UserError
        No known data set is there; the message says what to place where.
    """
    if action != "inspect":
        raise UserError(f"unknown action {action!r}: choose inspect")
    if data == "emoji":
        raise UserError("the emoji are bundled and need no inspection: choose another data set, or auto")
    root = Path(root)
    layout = choose_layout(root, data, class_split=class_split, crop=crop)
    found = find_layouts(root, data, class_split=class_split, crop=crop)
    others = tuple(other.form for other in found if other.form != layout.form)
    problems: list[str] = []
    reports: list[SplitReport] = []
    contents: dict[str, list[tuple[str, bytes]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    read: dict[str, tuple[Listing, list[Checked]]] = {}
    for split in ("train", "val", "test"):
        try:
            listing = list_split(layout, split)
        except UserError as error:
            problems.append(f"{split}: {error}")
            continue
        read[split] = listing, check_images(listing.source, len(listing.names), f"Reading {split} images")
    white = None
    try:
        white = white_levels(layout, {split: checked for split, (_, checked) in read.items()})
    except UserError as error:
        problems.append(str(error))
    for split, (listing, checked) in read.items():
        reports.append(_report(layout, split, listing, checked, white))
        problems += _split_problems(layout, reports[-1], listing, checked)
        if listing.left_out:
            problems.append(f"{split}: {describe_left_out(listing.left_out)}")
        problems += _repeated(split, listing, checked)
        pairs = zip(listing.names, checked, strict=True)
        contents[split] = [(name, check.digest) for name, check in pairs if check.digest]
        sizes |= {name: check.size for name, check in zip(listing.names, checked, strict=True) if check.size}
    problems += shared_content(contents)
    total = sum(report.images for report in reports)
    if layout.total is not None and total != layout.total:
        problems.append(f"{total} images in all, {layout.total} are expected")
    form = layout.form + (f"; class split {layout.class_split}" if layout.class_split else "")
    cropped = _cropped(layout, sizes, crop=crop)
    return Inspection(layout.data, form, others, cropped, tuple(reports), tuple(problems))


def _report(
    layout: Layout, split: str, listing: Listing, checked: list[Checked], white: WhiteLevels | None
) -> SplitReport:
    good = [check.size for check in checked if check.size is not None]
    sizes = sorted({f"{width}x{height}" for width, height in (min(good), max(good))}) if good else ["none"]
    kept = [(name, check.digest) for name, check in zip(listing.names, checked, strict=True) if check.size]
    return SplitReport(
        split=split,
        classes=len({name.split("/")[0] for name in listing.names}),
        expected_classes=layout.classes.get(split),
        images=len(listing.names),
        expected_images=layout.images.get(split),
        sizes="..".join(sizes),
        fingerprint=fingerprint_of(
            [name for name, _ in kept],
            [digest for _, digest in kept],
            white if any(check.brightest for check in checked) else None,
        ),
    )


def _split_problems(
    layout: Layout, report: SplitReport, listing: Listing, checked: list[Checked]
) -> list[str]:
    """List counts that differ, and images that cannot be read."""
    problems = [
        f"{report.split}: {count} {what}, {expected} are expected"
        for what, count, expected in (
            ("classes", report.classes, report.expected_classes),
            ("images", report.images, report.expected_images),
        )
        if expected is not None and count != expected
    ]
    per_class = Counter(name.split("/")[0] for name in listing.names)
    expected = layout.images.get(report.split, 0) / max(layout.classes.get(report.split, 0), 1)
    if (
        expected
        and expected.is_integer()
        and (uneven := {c: n for c, n in per_class.items() if n != expected})
    ):
        named = ", ".join(f"{label} {count}" for label, count in sorted(uneven.items())[:_SHOWN])
        problems.append(f"{report.split}: {len(uneven)} classes have not {expected:.0f} images: {named}")
    bad = [f"{listing.source.place(i)}: {check.reason}" for i, check in enumerate(checked) if check.reason]
    if bad:
        line = "\n    "
        named = listed(bad, _SHOWN, separator=line, last=line)
        problems.append(f"{report.split}: {len(bad)} images cannot be read:{line}{named}")
    return problems


def _repeated(split: str, listing: Listing, checked: list[Checked]) -> list[str]:
    """List which images of a split are identical though their classes are not."""
    first: dict[bytes, str] = {}
    pairs = []
    for name, check in zip(listing.names, checked, strict=True):
        other = first.setdefault(check.digest, name)
        if check.digest and other.split("/")[0] != name.split("/")[0]:
            pairs.append(f"{other} = {name}")
    if not pairs:
        return []
    named = listed(pairs, _SHOWN)
    return [f"{split}: {len(pairs)} images are identical to one of another class: {named}"]


def _cropped(layout: Layout, sizes: dict[str, tuple[int, int]], *, crop: bool) -> str:
    """Compare the images' sizes with those of their bounding boxes."""
    if layout.data != "cub":
        return "does not apply"
    if crop:
        return "yes: to the bounding boxes, when they are read"
    if layout.boxes is None:
        return "cannot be told: there is no bounding_boxes.txt beside the images"
    boxes = layout.boxes()
    known = [(size, boxes[name.split("/")[1]]) for name, size in sizes.items() if name.split("/")[1] in boxes]
    fits = sum(abs(size[0] - box[0]) <= 1 and abs(size[1] - box[1]) <= 1 for size, box in known)
    if not known:
        return "cannot be told: bounding_boxes.txt names other images"
    answer = "yes" if 2 * fits > len(known) else "no"
    return f"{answer}: {fits} of {len(known)} images have the size of their bounding box"
