"""Recordings of impedance tomography: what is read, in which order, and what is refused."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.io import savemat

from lwfm.errors import UserError
from lwfm.metric.data.eit import MEASURED, read_recordings

if TYPE_CHECKING:
    from pathlib import Path

FRAMES = np.random.default_rng(0).normal(1, 0.1, (20, 208)).astype(np.float32)


def whole(frames: np.ndarray) -> np.ndarray:
    """Return frames [T, 256] with zeros for pairs that are not measured."""
    full = np.zeros((len(frames), 256), np.float32)
    full[:, MEASURED] = frames
    return full


def test_the_measured_pairs_share_no_electrode() -> None:
    drive, measure = np.divmod(MEASURED, 16)
    assert len(MEASURED) == 208
    assert not np.isin((measure - drive) % 16, [0, 1, 15]).any()


@pytest.mark.parametrize("rows", [208, 256])
def test_matrices_of_mat_files_are_recordings(rows: int, tmp_path: Path) -> None:
    frames = FRAMES if rows == 208 else whole(FRAMES)
    content = {"zc_resp": frames.T, "zc_hold": frames.T + 1, "one": frames.T[:, :1], "ecg": np.zeros((99, 1))}
    savemat(tmp_path / "a.mat", content)
    first, second = read_recordings(tmp_path / "a.mat", 7.0)
    assert (first.name, second.name, first.rate) == ("zc_resp", "zc_hold", 7)
    np.testing.assert_array_equal(first.frames, FRAMES)
    (only,) = read_recordings(tmp_path / "a.mat", 7.0, names=["zc_hold"])
    assert only.name == "zc_hold"


def test_get_files_begin_beside_the_driving_pair(tmp_path: Path) -> None:
    rotated = np.zeros((20, 256), "<f4")
    full = whole(FRAMES)
    for drive in range(16):
        for place in range(13):
            rotated[:, 13 * drive + place] = full[:, 16 * drive + (drive + 2 + place) % 16]
    rotated.tofile(tmp_path / "a.get")
    (found,) = read_recordings(tmp_path / "a.get", 13.0)
    np.testing.assert_array_equal(found.frames, FRAMES)


@pytest.mark.parametrize("shape", [(20, 208), (20, 5), (20, 4, 6)], ids=["voltages", "channels", "pixels"])
def test_arrays_are_recordings(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(1).random(shape)
    np.save(tmp_path / "a.npy", values)
    (found,) = read_recordings(tmp_path / "a.npy", 20.0)
    np.testing.assert_allclose(found.frames, values.reshape(20, -1), rtol=1e-6)
    assert found.shape == shape[1:] * (len(shape) == 3)


def test_a_zip_is_read_as_its_folder(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FRAMES)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.npy", "folder/a.npy")
    assert [each.name for each in read_recordings(tmp_path / "a.zip", 13.0)] == ["a"]


@pytest.mark.parametrize("name", ["a.mat", "a.get", "a.npy", "a.zip"])
@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY\x01", b"MATLAB 5.0 MAT-file" + 200 * b"\0", 1000 * b"x"]
)
def test_damaged_files_are_refused_with_their_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        read_recordings(tmp_path / name, 13.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((20, 208), np.nan, np.float32), "holds NaN"),
        (FRAMES[:5], "has 5 frames; at least 16"),
        (np.ones((20, 208), np.float32), "no value of the recording a of .* changes"),
        (np.zeros((20, 2, 3, 4)), r"must hold numbers \[frames, channels\]"),
        (np.array(["a", "b"]), "must hold numbers"),
        (np.array([{"a": 1}], dtype=object), "is not a readable array"),
    ],
    ids=["nan", "short", "constant", "four-dimensions", "text", "pickle"],
)
def test_wrong_arrays_are_refused(values: Any, message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", values, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        read_recordings(tmp_path / "a.npy", 13.0)


def test_mat_files_without_frames_and_unknown_names_are_refused(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"ecg": np.zeros((100, 2))})
    with pytest.raises(UserError, match=r"holds no series of frames: .* it has ecg \[100, 2\]"):
        read_recordings(tmp_path / "a.mat", 7.0)
    np.save(tmp_path / "b.npy", FRAMES)
    with pytest.raises(UserError, match="has no recording c: there are b"):
        read_recordings(tmp_path / "b.npy", 7.0, names=["c"])
    with pytest.raises(UserError, match="rate must be a number above 0"):
        read_recordings(tmp_path / "b.npy", 0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no recording"):
        read_recordings(tmp_path / "empty", 7.0)
