"""Hostile pickles, broken lists, missing images; and what an inspection says about a folder."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from lwfm.data import open_images
from lwfm.data.inspection import inspect_data
from lwfm.data.layouts.pickles import read_pickle
from lwfm.errors import UserError
from tests.helpers.miniatures import SPLITS, birds, caches, dump, folders, ravi

if TYPE_CHECKING:
    from pathlib import Path


class Malice:
    """What a hostile pickle would run."""

    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"image_data": Malice(), "class_dict": {}}), r"it contains builtins\.print"),
        (pickle.dumps({"image_data": np.zeros((2, 4, 4, 3), np.uint8)})[:-20], "damaged"),
        (b"not a pickle", "damaged"),
        (pickle.dumps([1, 2]), "lacks image_data, class_dict: it holds list"),
        (
            pickle.dumps({"image_data": np.zeros((2, 4, 4)), "class_dict": {}}),
            r"must be uint8 \[n, H, W, 3\]",
        ),
        (
            pickle.dumps({"image_data": np.zeros((2, 4, 4, 3), np.uint8), "class_dict": {"a": [2]}}),
            "class a has image 2, but there are 2",
        ),
    ],
    ids=["code", "cut", "text", "list", "shape", "index"],
)
def test_pickles_run_nothing_and_are_checked(
    content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mini-imagenet-cache-train.pkl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_images("miniimagenet", tmp_path)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol_is_read(protocol: int, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "a": np.arange(6).reshape(2, 3),
        "b": [b"bytes", "text", {1, 2}],
        "c": np.float32(2),
    }
    content["d"] = np.array([np.zeros(2, np.uint8), np.zeros(3, np.uint8)], dtype=object)
    dump(tmp_path / "x.pkl", content, protocol)
    read = read_pickle(tmp_path / "x.pkl")
    assert np.array_equal(read["a"], content["a"])
    assert read["b"] == content["b"]
    assert read["c"] == 2
    assert [len(row) for row in read["d"]] == [2, 3]


def test_a_python_2_pickle_of_an_old_numpy_is_read(tmp_path: Path) -> None:
    """Protocol 2 with the module names and byte strings of Python 2 and NumPy 1."""
    written = (
        b"\x80\x02}q\x00U\x04dataq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b"
        b"\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x02\xf0\x07tbs."
    )
    (tmp_path / "old.pkl").write_bytes(written)
    assert read_pickle(tmp_path / "old.pkl")["data"].tolist() == [0xF0, 0x07]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file;class\na.jpg;n01532829\n",
            "must begin with the header filename,label or image_name,class_name",
        ),
        ("filename,label\n", "lists no image"),
        ("filename,label\na.jpg\n", "line 2 has too few columns"),
        ("filename,label\na.jpg,n01532829\n", "lists a.jpg, but there is no such image: looked for"),
    ],
    ids=["header", "empty", "columns", "nowhere"],
)
def test_broken_lists_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        open_images("miniimagenet", tmp_path)


def test_a_listed_image_that_is_missing_or_broken_is_found_by_reading(tmp_path: Path) -> None:
    ravi(tmp_path, "split")
    (tmp_path / "images/n0153282900000000.jpg").unlink()
    (tmp_path / "images/n0155899300000001.jpg").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"2 of 4 images cannot be read:\n.*0000\.jpg: No such file"):
        open_images("miniimagenet", tmp_path)
    with pytest.warns(UserWarning, match="left out"):
        assert len(open_images("miniimagenet", tmp_path, unreadable="skip")) == 2


def test_inspection_reports_what_differs(tmp_path: Path) -> None:
    ravi(tmp_path, "split")
    caches(tmp_path, "val")
    twice = (tmp_path / "images/n0153282900000000.jpg").read_bytes()
    (tmp_path / "images/n0193011200000000.jpg").write_bytes(twice)
    (tmp_path / "images/n0198127600000001.jpg").write_bytes(b"broken")
    inspection = inspect_data("inspect", tmp_path)
    assert (inspection.data, inspection.others) == (
        "miniimagenet",
        ("mini-imagenet-cache-{train,val,test}.pkl",),
    )
    train, _, test = inspection.splits
    assert (train.classes, train.expected_classes, train.images, train.expected_images) == (
        2,
        64,
        4,
        38400,
    )
    assert train.sizes == "16x16"
    assert train.fingerprint == open_images("miniimagenet", tmp_path).fingerprint
    with pytest.warns(UserWarning, match="left out"):
        skipped = open_images("miniimagenet", tmp_path, "test", "skip")
    assert test.fingerprint == skipped.fingerprint
    problems = "\n".join(inspection.problems)
    assert "train: 2 classes, 64 are expected" in problems
    assert "train: 2 classes have not 600 images: n01532829 2, n01558993 2" in problems
    assert "test: 1 images cannot be read:" in problems
    assert "images/n0198127600000001.jpg: cannot identify" in problems
    same = "n01532829/n0153282900000000.jpg = n01930112/n0193011200000000.jpg"
    assert f"train and test have 1 identical images: {same}" in problems
    table = str(inspection)
    assert all(text in table for text in ("miniimagenet", "2 (64)", "4 (38400)", problems.splitlines()[0]))


def test_inspection_of_whole_data_finds_nothing_wrong(tmp_path: Path) -> None:
    folders(tmp_path, {split: [f"{split}-{i}" for i in range(2)] for split in SPLITS})
    inspection = inspect_data("inspect", tmp_path)
    assert (inspection.data, inspection.problems) == ("folder", ())
    assert str(inspection).endswith("nothing")


@pytest.mark.parametrize(
    ("crop", "sized", "expected"),
    [(False, False, "no: 0 of 16"), (False, True, "yes: 16 of 16"), (True, False, "yes: to")],
)
def test_inspection_tells_cropped_birds(crop: bool, sized: bool, expected: str, tmp_path: Path) -> None:
    birds(tmp_path)
    if sized:
        for path in (tmp_path / "images").glob("*/*.jpg"):
            Image.open(path).crop((0, 0, 8, 6)).save(path)
    inspection = inspect_data("inspect", tmp_path, class_split="frn", crop=crop)
    assert inspection.cropped.startswith(expected)
    assert "16 images in all, 11788 are expected" in inspection.problems


def test_classes_in_common_are_reported(tmp_path: Path) -> None:
    folders(tmp_path, {"train": ["a", "b"], "val": ["b"], "test": ["c"]})
    assert "train and val have 1 classes in common: b" in inspect_data("inspect", tmp_path).problems


def test_the_same_image_in_two_classes_of_a_split_is_reported(tmp_path: Path) -> None:
    folders(tmp_path, {split: [f"{split}-a", f"{split}-b"] for split in SPLITS})
    first, second = (sorted((tmp_path / "val" / label).iterdir())[0] for label in ("val-a", "val-b"))
    second.write_bytes(first.read_bytes())
    same = f"val-a/{first.name} = val-b/{second.name}"
    assert inspect_data("inspect", tmp_path).problems == (
        f"val: 1 images are identical to one of another class: {same}",
    )
