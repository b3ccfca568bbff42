"""Splits that share classes or identical images: refused, unless that is allowed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from lwfm.data import ClassDataModule, EpisodeDataModule, open_images
from lwfm.data.inspection import inspect_data
from lwfm.data.overlap import check_splits, check_unseen
from lwfm.errors import UserError
from tests.helpers.miniatures import WORDNET, folders

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lwfm.data._datamodule_base import TrainingDataModule
    from lwfm.data.overlap import Overlap


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of two images of noise in each split, no two alike."""
    random = np.random.default_rng(0)
    for split, classes in (("train", "ab"), ("val", "cd"), ("test", "ef")):
        for label in classes:
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(2):
                pixels = random.integers(256, size=(16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / label / f"{number}.png")
    return tmp_path


def episodes(root: Path, overlap: Overlap) -> TrainingDataModule:
    return EpisodeDataModule("folder", root, way=2, queries=1, episodes=1, overlap=overlap)


def batches(root: Path, overlap: Overlap) -> TrainingDataModule:
    return ClassDataModule("folder", root, validation_way=2, validation_queries=1, overlap=overlap)


MODULES = {"episodes": episodes, "batches": batches}


@pytest.mark.parametrize("module", MODULES.values(), ids=MODULES)
@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        (
            "train/a",
            "val/a",
            "train and val have 1 classes in common: a\n.*2 identical images: a/0.png",
        ),
        ("train/a", "test/a", "train and test have 1 classes in common: a\n"),
        ("val/c", "test/c", "val and test have 1 classes in common: c\n"),
        ("train/a/1.png", "val/d/copy.png", "train and val have 1 identical images: a/1.png = d/copy.png\n"),
    ],
    ids=["train-val", "train-test", "val-test", "image"],
)
def test_training_refuses_splits_that_share(
    module: Callable[[Path, Overlap], TrainingDataModule], source: str, target: str, message: str, root: Path
) -> None:
    module(root, "stop").setup("fit")
    if (root / source).is_dir():
        shutil.copytree(root / source, root / target)
    else:
        shutil.copy(root / source, root / target)
    with pytest.raises(UserError, match=message + r"[\s\S]*--overlap allow"):
        module(root, "stop").setup("fit")
    with pytest.warns(UserWarning, match=message + r"[\s\S]*not that of unseen classes"):
        module(root, "allow").setup("fit")
    assert any(message.split("\n")[0] in problem for problem in inspect_data("inspect", root).problems)


def test_images_of_the_test_split_are_not_read(root: Path) -> None:
    (root / "test/e/0.png").write_text("not an image")
    episodes(root, "stop").setup("fit")


def test_many_shared_classes_are_counted(tmp_path: Path) -> None:
    classes = [f"class-{number:02d}" for number in range(13)]
    folders(tmp_path, {"train": classes, "val": classes})
    images = [open_images("folder", tmp_path, split) for split in ("train", "val")]
    with pytest.raises(UserError, match=r"13 classes in common: class-00, .*, class-09 and 3 more"):
        check_splits(images, "stop")


def test_an_image_in_two_splits_of_a_benchmark_is_left_to_inspection(tmp_path: Path) -> None:
    """Its results are comparable only with the images as they are; its classes must be disjoint."""
    folders(tmp_path, WORDNET)
    train, val = (next((tmp_path / split).glob("*/*")) for split in ("train", "val"))
    shutil.copy(train, val)
    images = [open_images("miniimagenet", tmp_path, split) for split in ("train", "val")]
    check_splits(images, "stop")
    assert any("identical images" in problem for problem in inspect_data("inspect", tmp_path).problems)
    shutil.copytree(train.parent, tmp_path / "val" / train.parent.name)
    images[1] = open_images("miniimagenet", tmp_path, "val")
    with pytest.raises(UserError, match=f"miniimagenet: .*classes in common: {train.parent.name}"):
        check_splits(images, "stop")


@pytest.mark.parametrize("name", ["cub", "emoji"])
def test_a_folder_named_like_a_data_set_is_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a benchmark an image in two splits would be let pass."""
    folders(tmp_path / name, {"train": ["a"], "val": ["b"]})
    shutil.copy(tmp_path / name / "train/a/0.png", tmp_path / name / "val/b/copy.png")
    monkeypatch.chdir(tmp_path)
    images = [open_images("folder", name, split) for split in ("train", "val")]
    assert images[0].name == f"./{name}"
    with pytest.raises(UserError, match=r"1 identical images: a/0\.png = b/copy\.png"):
        check_splits(images, "stop")


def test_the_bundled_emoji_share_nothing() -> None:
    check_splits([open_images(split="train"), open_images(split="val"), open_images(split="test")], "stop")


def test_evaluation_on_training_classes() -> None:
    train, test = open_images(split="train"), open_images(split="test")
    check_unseen(test, train.classes, "stop")
    check_unseen(test, (), "stop")
    known = ("hammer-and-anvil", *test.classes[:2])
    message = f"2 of the 77 classes of emoji .test. are training classes of the checkpoint: {known[1]}, "
    with pytest.raises(UserError, match=message):
        check_unseen(test, known, "stop")
    with pytest.warns(UserWarning, match=message):
        check_unseen(test, known, "allow")
    with pytest.warns(UserWarning, match="248 of the 248 classes of emoji .train. are training classes"):
        check_unseen(train, train.classes, "stop")  # the split was named: a warning is enough
