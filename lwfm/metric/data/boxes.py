"""Images with boxes in the folders of YOLO, and scenes composed of cut-out objects with their boxes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from lwfm._common.text import one_line
from lwfm.data.layouts.folders import scan_folder
from lwfm.errors import UserError
from lwfm.metric.data.archives import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

_BLACK = 24
"""Brightest channel of a pixel that counts as the black around a cut-out object."""


class BoxedImage(NamedTuple):
    """An image with the boxes [N, 4] (left, top, right, bottom in pixels) and the classes [N] in it."""

    image: Path | Image.Image
    boxes: npt.NDArray[np.float32]
    codes: npt.NDArray[np.int64]


@contextmanager
def open_boxes(root: Path) -> Iterator[dict[str, list[BoxedImage]]]:
    """Yield the images of ``{train,val}/images`` with the boxes of ``{train,val}/labels``, by split.

    A line of a label file is class, center and size, as shares of the image.

    Raises
    ------
    UserError
        For another layout, a label file that is missing or damaged, naming it and the line.
    """
    if root.is_dir():
        yield _read(root, root)
        return
    with unpacked(root, other="a folder", content="images and boxes") as folder:
        yield _read(folder, root)


def _read(folder: Path, root: Path) -> dict[str, list[BoxedImage]]:
    found = {}
    for split in ("train", "val"):
        place = folder / split / "images"
        if not place.is_dir():
            raise UserError(f"{root} has no folder {split}/images: boxes are expected in {split}/labels")
        names = scan_folder(place).images
        found[split] = [_boxed(place / name, folder / split / "labels") for name in names]
        if not found[split]:
            raise UserError(f"{root} holds no image in {split}/images")
    return found


def _boxed(image: Path, labels: Path) -> BoxedImage:
    file = labels / f"{image.stem}.txt"
    if not file.is_file():
        raise UserError(f"the image {image.name} has no boxes: {file.name} is missing")
    with Image.open(image) as opened:
        width, height = opened.size
    boxes, codes = [], []
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            code, x, y, w, h = int(words[0]), *map(float, words[1:])
        except ValueError as error:
            raise UserError(
                f"line {number} of {file.name} is not class, center and size: {one_line(line[:80])}"
            ) from error
        if code < 0 or not all(0 <= value <= 1 for value in (x, y, w, h)) or 0 in (w, h):
            raise UserError(f"line {number} of {file.name} has shares out of 0 to 1: {one_line(line[:80])}")
        corners = (x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height
        boxes.append(corners)
        codes.append(code)
    return BoxedImage(image, np.array(boxes, np.float32).reshape(-1, 4), np.array(codes, np.int64))


def compose_scene(
    objects: Sequence[Image.Image], random: np.random.Generator, *, size: int = 416
) -> BoxedImage:
    """Paste objects that are cut out on black onto a ground of blurred noise, turned and of several sizes.

    Parameters
    ----------
    objects : sequence of Image
        Each has its own cell of a grid, within which its place is random, so that they hardly overlap.
    random : Generator
        Of places, angles, sizes, and of the ground.
    size : int
        Side of the scene in pixels.

    Returns
    -------
    BoxedImage
        The boxes of the objects, and as the class of each its number in `objects`.
    """
    ground = random.uniform(60, 150, 3) + random.normal(0, 60, (size // 8, size // 8, 1)) * np.ones(3)
    scene = Image.fromarray(ground.clip(0, 255).astype(np.uint8)).resize((size, size))
    scene = scene.filter(ImageFilter.GaussianBlur(2))
    side = int(np.ceil(np.sqrt(len(objects))))
    cell = size // side
    boxes = np.zeros((len(objects), 4), np.float32)
    cells = random.permutation(side * side)[: len(objects)]
    for number, (each, place) in enumerate(zip(objects, cells, strict=True)):
        scale = random.uniform(0.7, 1.0) * cell / np.hypot(*each.size)
        small = each.resize((max(1, round(each.width * scale)), max(1, round(each.height * scale))))
        turned = small.rotate(random.uniform(0, 360), expand=True)
        mask = Image.fromarray((np.asarray(turned).max(-1) > _BLACK).astype(np.uint8) * 255)
        inner = mask.getbbox() or (0, 0, *turned.size)
        turned, mask = turned.crop(inner), mask.crop(inner)
        left = (place % side) * cell + int(random.integers(max(1, cell - turned.width + 1)))
        top = (place // side) * cell + int(random.integers(max(1, cell - turned.height + 1)))
        scene.paste(turned, (left, top), mask)
        boxes[number] = left, top, left + turned.width, top + turned.height
    return BoxedImage(scene, boxes, np.arange(len(objects)))


def one_class(images: Sequence[BoxedImage]) -> list[BoxedImage]:
    """Return images whose objects all have the class 0."""
    return [image._replace(codes=np.zeros_like(image.codes)) for image in images]


def class_count(images: Sequence[BoxedImage]) -> int:
    """Return the number of classes, which are counted from 0."""
    return 1 + max((int(image.codes.max(initial=0)) for image in images), default=0)
