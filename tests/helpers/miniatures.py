"""The benchmarks in miniature: every layout in circulation with a few classes of two images each."""

from __future__ import annotations

import io
import json
import pickle
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lwfm.data.layouts.cifar import SUPERCLASSES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SPLITS = ("train", "val", "test")
WORDNET = {"train": ["n01532829", "n01558993"], "val": ["n01855672"], "test": ["n01930112", "n01981276"]}
BIRDS = [f"{number:03d}.Bird_{number}" for number in range(1, 9)]
CIFAR_FS = {"train": ["apple", "beaver"], "val": ["otter", "shark"], "test": ["baby"]}
EACH = 2


def pixels(seed: int, size: int = 16) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def encoded(seed: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels(seed)).save(stream, kind)
    return stream.getvalue()


def place(root: Path, files: Iterable[str]) -> None:
    """Write an image of its own at each path."""
    for number, file in enumerate(files):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(hash_of(file) + number, "JPEG" if path.suffix.lower() != ".png" else "PNG"))


def hash_of(text: str) -> int:
    return zlib.crc32(text.encode())


def lists(root: Path, tables: dict[str, list[str]], header: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for split, rows in tables.items():
        (root / f"{split}.csv").write_text("\n".join([header, *rows]) + "\n")


def dump(path: Path, content: Any, protocol: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol))


def ravi(root: Path, folder: str) -> None:
    names = {
        split: [(f"{c}0000{i:04d}.jpg", c) for c in cs for i in range(EACH)] for split, cs in WORDNET.items()
    }
    place(root, [f"images/{file}" for rows in names.values() for file, _ in rows])
    lists(
        root / folder,
        {split: [f"{f},{c}" for f, c in rows] for split, rows in names.items()},
        "filename,label",
    )


def imagenet_names(root: Path) -> None:
    names = {split: [(c, f"{c}_{i}.JPEG") for c in cs for i in range(EACH)] for split, cs in WORDNET.items()}
    place(root, [f"train/{c}/{file}" for rows in names.values() for c, file in rows])
    rows = {split: [f"{c},{file.removesuffix('.JPEG')}" for c, file in of] for split, of in names.items()}
    lists(root, rows, "class_name,image_name")


def folders(root: Path, classes: dict[str, list[str]], prefix: str = "") -> None:
    place(
        root, [f"{prefix}{s}/{c}/{i}.png" for s, names in classes.items() for c in names for i in range(EACH)]
    )


def caches(root: Path, val: str) -> None:
    for split, classes in WORDNET.items():
        data = np.stack([pixels(hash_of(f"{c}{i}")) for c in classes for i in range(EACH)])
        members = {c: list(range(EACH * n, EACH * (n + 1))) for n, c in enumerate(classes)}
        name = val if split == "val" else split
        dump(root / f"mini-imagenet-cache-{name}.pkl", {"image_data": data, "class_dict": members})


def labeled_pickles(root: Path, form: str, classes: dict[str, list[str]]) -> None:
    for split, names in classes.items():
        labels = [3 * number for number, _ in enumerate(names) for _ in range(EACH)]
        data = np.stack([pixels(hash_of(f"{split}{i}")) for i, _ in enumerate(labels)])
        dump(root / form.format(split), {"data": data, "labels": labels})


def tiered_pickles(root: Path) -> None:
    for split, classes in WORDNET.items():
        contents = [encoded(hash_of(f"{c}{i}")) for c in classes for i in range(EACH)]
        labels = np.repeat(np.arange(len(classes)), EACH)
        images = [np.frombuffer(content, np.uint8)[:, None] for content in contents]  # as OpenCV encodes them
        dump(root / f"{split}_images_png.pkl", images, protocol=4)
        dump(root / f"{split}_labels.pkl", {"label_specific": labels, "label_specific_str": classes})


def original_cifar(root: Path) -> None:
    names = sorted(name for row in SUPERCLASSES for name in row)
    dump(root / "meta", {"fine_label_names": names})
    for seed, (part, count) in enumerate((("train", 1), ("test", 1))):
        data = np.random.default_rng(seed).integers(0, 256, (100 * count, 3072), dtype=np.uint8)
        dump(root / part, {"data": data, "fine_labels": list(range(100)) * count})


def class_lists(root: Path) -> None:
    (root / "splits/bertinetto").mkdir(parents=True)
    for split, names in CIFAR_FS.items():
        (root / f"splits/bertinetto/{split}.txt").write_text("\n".join(names) + "\n")


def cifar_fs_original(root: Path) -> None:
    original_cifar(root / "cifar-100-python")
    class_lists(root)


def cifar_fs_data(root: Path) -> None:
    class_lists(root)
    place(root, [f"data/{c}/{i}.png" for names in CIFAR_FS.values() for c in names for i in range(EACH)])


def birds(root: Path) -> None:
    files = [f"{bird}/{bird[4:]}_{i}.jpg" for bird in BIRDS for i in range(EACH)]
    place(root / "images", files)
    (root / "images.txt").write_text("".join(f"{n} {file}\n" for n, file in enumerate(files, 1)))
    boxes = "".join(f"{n} 2.0 3.0 8.0 {5 + n % 3}.0\n" for n, _ in enumerate(files, 1))
    (root / "bounding_boxes.txt").write_text(boxes)


def feat(root: Path, template: str = "{bird}/{file}") -> None:
    birds(root)
    order = dict(zip(SPLITS, (BIRDS[4:], BIRDS[:2], BIRDS[2:4]), strict=True))
    rows = {
        split: [
            f"{template.format(bird=b, file=f'{b[4:]}_{i}.jpg')},{b},7,11" for b in bs for i in range(EACH)
        ]
        for split, bs in order.items()
    }
    lists(root / "split", rows, "filename,label,bill,wing")


def feat_flat(root: Path) -> None:
    feat(root, "{file}")
    for image in list((root / "images").glob("*/*.jpg")):
        image.rename(root / image.name)
    for folder in list((root / "images").iterdir()):
        folder.rmdir()
    (root / "images").rmdir()


def meta_dataset(root: Path) -> None:
    birds(root)
    parts = {"train": BIRDS[:6], "valid": BIRDS[6:7], "test": BIRDS[7:]}
    (root / "cu_birds_splits.json").write_text(json.dumps(parts))
