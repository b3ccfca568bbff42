"""Every layout of every benchmark, built in miniature: recognized and read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lwfm.data import open_images
from lwfm.data.layouts.cifar import FC100_CLASSES, SUPERCLASSES
from lwfm.data.layouts.cub import split_of
from lwfm.data.layouts.pickles import read_pickle
from lwfm.errors import UserError
from tests.helpers.miniatures import (
    BIRDS,
    CIFAR_FS,
    EACH,
    SPLITS,
    WORDNET,
    birds,
    caches,
    cifar_fs_data,
    cifar_fs_original,
    feat,
    feat_flat,
    folders,
    hash_of,
    imagenet_names,
    labeled_pickles,
    meta_dataset,
    original_cifar,
    pixels,
    ravi,
    tiered_pickles,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORDNET_COUNTS = {split: len(classes) for split, classes in WORDNET.items()}
CIFAR_COUNTS = {split: len(classes) for split, classes in CIFAR_FS.items()}
MANY = {s: [f"n{10_000_000 + 1000 * n + i}" for i in range(60)] for n, s in enumerate(SPLITS)}
FC100_FEW = {split: sorted(names)[:2] for split, names in FC100_CLASSES.items()}

LAYOUTS: dict[str, tuple[str, Callable[[Path], Any], dict[str, int], str]] = {
    "mini-split-csv": ("miniimagenet", lambda r: ravi(r, "split"), WORDNET_COUNTS, "split/{train"),
    "mini-root-csv": ("miniimagenet", lambda r: ravi(r, "."), WORDNET_COUNTS, "{train,val,test}.csv"),
    "mini-imagenet-names": ("miniimagenet", imagenet_names, WORDNET_COUNTS, "{train,val,test}.csv"),
    "mini-folders": ("miniimagenet", lambda r: folders(r, WORDNET), WORDNET_COUNTS, "<class>"),
    "mini-pickles": ("miniimagenet", lambda r: caches(r, "val"), WORDNET_COUNTS, "cache"),
    "mini-pickles-validation": ("miniimagenet", lambda r: caches(r, "validation"), WORDNET_COUNTS, "cache"),
    "mini-category-split": (
        "miniimagenet",
        lambda r: labeled_pickles(r, "miniImageNet_category_split_{}.pickle", WORDNET),
        WORDNET_COUNTS,
        "category",
    ),
    "tiered-folders": ("tieredimagenet", lambda r: folders(r, MANY), dict.fromkeys(SPLITS, 60), "<class>"),
    "tiered-pickles": ("tieredimagenet", tiered_pickles, WORDNET_COUNTS, "_images_png.pkl"),
    "cub-feat": ("cub", feat, {"train": 4, "val": 2, "test": 2}, "split feat"),
    "cub-feat-bare-names": ("cub", feat_flat, {"train": 4, "val": 2, "test": 2}, "split feat"),
    "cub-feat-image-paths": (
        "cub", lambda r: feat(r, "images/{bird}/{file}"), {"train": 4, "val": 2, "test": 2}, "split feat"
    ),
    "cub-meta-dataset": ("cub", meta_dataset, {"train": 6, "val": 1, "test": 1}, "split meta-dataset"),
    "cub-frn-folders": (
        "cub",
        lambda r: folders(r, {s: [b for b in BIRDS if split_of(b, "frn") == s] for s in SPLITS}),
        {"train": 4, "val": 2, "test": 2},
        "split frn",
    ),
    "cifar-fs-meta-folders": ("cifar-fs", lambda r: folders(r, CIFAR_FS, "meta-"), CIFAR_COUNTS, "meta-val"),
    "cifar-fs-folders": ("cifar-fs", lambda r: folders(r, CIFAR_FS), CIFAR_COUNTS, "{train,val,test}/"),
    "cifar-fs-data": ("cifar-fs", cifar_fs_data, CIFAR_COUNTS, "bertinetto"),
    "cifar-fs-pickles": (
        "cifar-fs", lambda r: labeled_pickles(r, "CIFAR_FS_{}.pickle", CIFAR_FS), CIFAR_COUNTS, "CIFAR_FS_"
    ),
    "fc100-folders": ("fc100", lambda r: folders(r, FC100_FEW, "meta-"), dict.fromkeys(SPLITS, 2), "meta-"),
    "fc100-original": (
        "fc100", original_cifar, {"train": 60, "val": 20, "test": 20}, "split by superclass"
    ),
    "fc100-pickles": (
        "fc100", lambda r: labeled_pickles(r, "FC100_{}.pickle", CIFAR_FS), CIFAR_COUNTS, "FC100_"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_recognized_and_read(name: str, tmp_path: Path) -> None:
    data, build, counts, form = LAYOUTS[name]
    build(tmp_path)
    seen: set[str] = set()
    for split in SPLITS:
        images = open_images("auto", tmp_path, split)  # type: ignore[arg-type]
        assert images.name == data
        assert form in images.layout
        assert len(images.classes) == counts[split]
        assert np.bincount(images.labels).tolist() == [EACH] * counts[split]
        assert list(images.names) == sorted(images.names)
        assert [images.classes[label] for label in images.labels] == [n.split("/")[0] for n in images.names]
        assert images.image(0).mode == "RGB"
        named = open_images(data, tmp_path, split)  # type: ignore[arg-type]
        assert (named.names, named.fingerprint) == (images.names, images.fingerprint)
        assert images.fingerprint not in seen
        seen.add(images.fingerprint)


def test_pixels_of_pickles_arrive_unchanged(tmp_path: Path) -> None:
    caches(tmp_path, "val")
    images = open_images("miniimagenet", tmp_path, "test")
    assert np.array_equal(np.asarray(images.image(3)), pixels(hash_of("n019812761")))
    other = tmp_path / "cifar"
    original_cifar(other)
    crab = open_images("fc100", other, "val").names.index(
        next(n for n in open_images("fc100", other, "val").names if n.startswith("crab/test"))
    )
    stored = read_pickle(other / "test")["data"][sorted(n for r in SUPERCLASSES for n in r).index("crab")]
    assert np.array_equal(
        np.asarray(open_images("fc100", other, "val").image(crab)).transpose(2, 0, 1).ravel(), stored
    )


def test_cifar_with_lists_beside_the_original_pickles_must_be_named(tmp_path: Path) -> None:
    cifar_fs_original(tmp_path)
    with pytest.raises(UserError, match="several data sets: choose data=cifar-fs or data=fc100"):
        open_images("auto", tmp_path)
    assert open_images("cifar-fs", tmp_path, "val").classes == ("otter", "shark")
    assert set(open_images("fc100", tmp_path, "val").classes) == FC100_CLASSES["val"]


def test_superclasses_are_cifar_100s() -> None:
    assert len(SUPERCLASSES) == 20
    assert len({name for row in SUPERCLASSES for name in row}) == 100
    assert {split: len(names) for split, names in FC100_CLASSES.items()} == {
        "train": 60,
        "val": 20,
        "test": 20,
    }


@pytest.mark.parametrize(
    ("rule", "val"), [("closer-look", [2, 6]), ("frn", [1, 5])], ids=["counted-from-0", "counted-from-1"]
)
def test_class_splits_of_cub_are_named_never_guessed(rule: Any, val: list[int], tmp_path: Path) -> None:
    birds(tmp_path)
    with pytest.raises(UserError, match="choose --class_split feat, closer-look, frn or meta-dataset"):
        open_images("cub", tmp_path)
    images = open_images("cub", tmp_path, "val", class_split=rule)
    assert images.classes == tuple(BIRDS[number - 1] for number in val)
    assert rule in images.layout
    splits = [set(open_images("cub", tmp_path, s, class_split=rule).classes) for s in SPLITS]  # type: ignore[arg-type]
    assert sorted(set.union(*splits)) == BIRDS
    assert sum(map(len, splits)) == len(BIRDS)


def test_lists_of_two_class_splits_of_cub_are_ambiguous(tmp_path: Path) -> None:
    feat(tmp_path)
    meta_dataset(tmp_path)
    with pytest.raises(UserError, match="the lists of feat and meta-dataset are there"):
        open_images("auto", tmp_path)
    assert len(open_images("auto", tmp_path, class_split="feat").classes) == 4
    assert len(open_images("auto", tmp_path, class_split="meta-dataset").classes) == 6


@pytest.mark.parametrize("build", [birds, feat_flat], ids=["original", "listed"])
def test_birds_are_cropped_to_their_boxes(build: Callable[[Path], None], tmp_path: Path) -> None:
    build(tmp_path)
    rule: Any = "frn" if build is birds else "feat"
    whole = open_images("cub", tmp_path, "val", class_split=rule)
    cropped = open_images("cub", tmp_path, "val", class_split=rule, crop=True)
    assert whole.image(0).size == (16, 16)
    assert cropped.image(0).size == (8, 6)  # image 1 of images.txt
    assert np.array_equal(np.asarray(whole.image(0))[3:9, 2:10], np.asarray(cropped.image(0)))
    assert cropped.names == whole.names
    assert cropped.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("auto", {}, r"holds no known data set.*Place there:\n  miniimagenet: images/.*\n  tieredimagenet"),
        ("auto", {}, r"\n  folder \(any other images\): \{train,val,test\}/<class>/<image>"),
        ("miniimagenet", {}, r"no known layout of miniimagenet.*split/train\.csv"),
        ("cub", {}, r"no known layout of cub.*CUB_200_2011"),
        ("cifar-fs", {}, r"no known layout of cifar-fs.*CIFAR_FS_train\.pickle"),
        ("fc100", {"crop": True}, "--class_split and --crop are for CUB only, and data is fc100"),
        ("miniimagenet", {"class_split": "frn"}, "for CUB only"),
    ],
    ids=["auto", "auto-folder", "mini", "cub", "cifar-fs", "crop", "class-split"],
)
def test_what_is_missing_is_said(data: Any, options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"(?s){message}"):
        open_images(data, tmp_path, **options)


def test_missing_parts_are_named(tmp_path: Path) -> None:
    birds(tmp_path)
    with pytest.raises(UserError, match=r"place train\.csv, val\.csv and test\.csv in .*split"):
        open_images("cub", tmp_path, class_split="feat")
    with pytest.raises(UserError, match=r"place cu_birds_splits\.json"):
        open_images("cub", tmp_path, class_split="meta-dataset")
    (tmp_path / "bounding_boxes.txt").unlink()
    with pytest.raises(UserError, match=r"bounding boxes need .*images\.txt"):
        open_images("cub", tmp_path, class_split="frn", crop=True)
    tiered = tmp_path / "tiered"
    tiered_pickles(tiered)
    (tiered / "val_labels.pkl").unlink()
    with pytest.raises(UserError, match=r"needs the labels .*val_labels\.pkl"):
        open_images("tieredimagenet", tiered, "val")
    (tiered / "test_images_png.pkl").unlink()
    with pytest.raises(UserError, match="tieredimagenet has no test split here: found train, val"):
        open_images("tieredimagenet", tiered, "test")


def test_a_listed_name_that_is_too_long_is_named(tmp_path: Path) -> None:
    ravi(tmp_path, "split")
    for name, message in (("n" * 300, "no such image"), ("a\0b.jpg", "no such image")):
        (tmp_path / "split" / "train.csv").write_text(f"filename,label\n{name},n01532829\n")
        with pytest.raises(UserError, match=message):
            open_images("miniimagenet", tmp_path)


@pytest.mark.parametrize(
    "line", ["2 1 2 3", "2 1 2 nan 4", "2 1 2 0 4", "2 1 2 3 x"], ids=["short", "nan", "empty", "text"]
)
def test_a_bounding_box_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    birds(tmp_path)
    lines = (tmp_path / "bounding_boxes.txt").read_text().splitlines()
    (tmp_path / "bounding_boxes.txt").write_text("\n".join([lines[0], line, *lines[2:]]))
    with pytest.raises(UserError, match=r"bounding boxes need .*bounding_boxes\.txt"):
        open_images("cub", tmp_path, class_split="frn", crop=True)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[]", "must be JSON with lists train"),
        ('{"train": []}', "no image in its train split"),
        (f'{{"train": ["{"a" * 300}"]}}', "there is no folder .*, though the split lists that class"),
        ('{"train": ["../images"]}', "there is no folder .*, though the split lists that class"),
    ],
    ids=["deep", "list", "empty", "long", "outside"],
)
def test_lists_of_meta_dataset_that_are_none_are_refused(tmp_path: Path, lists: str, message: str) -> None:
    meta_dataset(tmp_path)
    (tmp_path / "cu_birds_splits.json").write_text(lists)
    with pytest.raises(UserError, match=message):
        open_images("cub", tmp_path, class_split="meta-dataset")
