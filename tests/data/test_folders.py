"""What is read from folders of images, and that everything else in them is counted and named."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from lwfm.cli import main
from lwfm.data import open_images
from lwfm.data.decoding import image_endings
from lwfm.data.inspection import inspect_data
from lwfm.data.layouts.folders import scan_folder, scan_tree
from lwfm.errors import UserError
from lwfm.model import LWFM, ModelConfig, save_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RED = Image.new("RGB", (32, 32), (250, 10, 20))
LEFT_OUT = (
    r"2 files without the ending of an image and 1 folder in a folder of images are left out: "
    r"kiwi/a\.heic, kiwi/notes\.txt, kiwi/old/"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training classes; beside the images of one: other files, a folder, hidden and system files."""
    kiwi, lemon = tmp_path / "train/kiwi", tmp_path / "train/lemon"
    for folder in (kiwi, lemon, kiwi / "old", kiwi / ".thumbnails"):
        folder.mkdir(parents=True)
        RED.save(folder / "1.png")
    for name in ("a.heic", "notes.txt", ".a.png", "._1.png", ".DS_Store", "Thumbs.db"):
        (kiwi / name).write_bytes(b"no image")
    return tmp_path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = ModelConfig(backbone="conv4", image_size=16, feature_size=1, embedding=False)
    save_model(LWFM(config), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("ending", ["jfif", "avif", "jp2", "pgm", "JPG", "tiff", "gif", "webp", "ppm", "tga"])
def test_what_pillow_reads_is_an_image(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "train" / "kiwi" / f"1.{ending}"
    path.parent.mkdir(parents=True)
    RED.convert("L" if ending == "pgm" else "RGB").save(path)
    assert open_images("folder", tmp_path).names == (f"kiwi/1.{ending}",)


@pytest.mark.parametrize("ending", [".pdf", ".h5", ".mpg", ".eps", ".wmf", ".txt", ""])
def test_what_is_no_still_image_is_none(ending: str) -> None:
    assert ending not in image_endings()


def test_opening_a_data_set_names_what_it_leaves_out(root: Path) -> None:
    with pytest.warns(UserWarning, match=rf"\(train\) {LEFT_OUT}") as caught:
        images = open_images("folder", root)
    assert len(caught) == 1
    assert images.names == ("kiwi/1.png", "lemon/1.png")


def test_inspection_names_what_is_left_out(root: Path) -> None:
    for split in ("val", "test"):
        (root / split / split).mkdir(parents=True)
        RED.save(root / split / split / "1.png")
    problems = inspect_data("inspect", root).problems
    assert [problem for problem in problems if "left out" in problem] == [
        f"train: {LEFT_OUT}".replace("\\", "")
    ]


def test_classify_names_what_it_leaves_out(
    root: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    queries = root / "train/kiwi"
    assert main(["classify", str(root / "train"), str(queries), "--model", str(model)]) == 0
    printed = capsys.readouterr()
    assert f"in {root / 'train'} {LEFT_OUT}".replace("\\", "") in printed.err
    assert "are left out: a.heic, notes.txt, old/" in printed.err
    assert printed.out.count(".png") == 2  # the query and its example


def test_index_reads_nested_folders_and_leaves_hidden_files_out(
    root: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "i.safetensors"
    assert main(["index", str(root / "train"), "--model", str(model), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("3 images")
    assert "2 files without the ending of an image are left out: kiwi/a.heic, kiwi/notes.txt" in printed.err


def test_a_tree_does_not_follow_links_and_names_them(root: Path) -> None:
    (root / "train/lemon/again").symlink_to(root / "train", target_is_directory=True)
    tree = scan_tree(root / "train", refused=lambda _: None)
    assert tree.images == ["kiwi/1.png", "kiwi/old/1.png", "lemon/1.png"]
    assert tree.folders == ["lemon/again"]


@pytest.fixture
def forbidden(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be read, even by root."""
    folder = root / "train/lemon"
    scandir: Callable[[Any], Any] = os.scandir

    def refuse(path: Any) -> Any:
        if os.fspath(path) == os.fspath(folder):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    return folder


def test_a_class_folder_without_permission_is_named(
    forbidden: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"cannot read the folder .*lemon: Permission denied"):
        scan_folder(forbidden)
    train = str(forbidden.parent)
    assert main(["classify", train, f"{train}/kiwi/1.png", "--model", str(model)]) == 2
    assert f"cannot read the folder {forbidden}: Permission denied" in capsys.readouterr().err


def test_an_index_stops_at_a_folder_without_permission_or_names_it(
    forbidden: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "i.safetensors"
    words = ["index", str(forbidden.parent), "--model", str(model), "--out", str(out)]
    assert main(words) == 2
    assert f"{forbidden}: Permission denied" in capsys.readouterr().err
    assert not out.exists()
    assert main([*words, "--unreadable", "skip"]) == 0
    printed = capsys.readouterr()
    assert f"warning: cannot read the folder {forbidden}: Permission denied" in printed.err
    assert printed.out.startswith("2 images")
