"""Tensor files that are filled row by row: complete and readable, or as they were before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy

from lwfm._common.tensor_files import streamed_tensor_file
from lwfm.errors import UserError
from tests.common.test_files import small_disk

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


@pytest.mark.parametrize("length", [None, 0, 7], ids=["no-tail", "empty-tail", "tail"])
def test_what_was_filled_is_read(tmp_path: Path, length: int | None) -> None:
    path = tmp_path / "file.safetensors"
    expected: dict[str, npt.NDArray[Any]] = {
        "maps": np.arange(12, dtype=np.float16).reshape(3, 2, 2),
        "sizes": np.arange(6, dtype=np.int32).reshape(3, 2),
    }
    shapes = {name: (array.dtype.name, array.shape) for name, array in expected.items()}
    metadata = {"key": '{"ä": 1}'}
    tail = "" if length is None else "pixels"
    with streamed_tensor_file(path, shapes, tail=tail, metadata=metadata) as (arrays, file):
        for row in range(3):
            for name, array in expected.items():
                arrays[name][row] = array[row]
            file.write(bytes(range((length or 0) // 3)))
        file.write(bytes((length or 0) % 3))
    if length is not None:
        expected["pixels"] = np.array([0, 1, 0, 1, 0, 1, 0][:length], dtype=np.uint8)
    found = safetensors.numpy.load_file(path)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    with safetensors.safe_open(path, framework="np") as opened:
        assert opened.metadata() == metadata
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RuntimeError("bug")], ids=["ctrl-c", "bug"])
def test_an_interrupted_stream_leaves_the_old_file(tmp_path: Path, stop: BaseException) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(type(stop)), streamed_tensor_file(path, {"x": ("float32", (2, 3))}) as (arrays, _):  # noqa: PT012
        arrays["x"][0] = 1
        raise stop
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("tail", [False, True], ids=["rows", "tail"])
def test_a_full_disk_is_an_error_and_no_signal(tmp_path: Path, tail: bool) -> None:
    path = tmp_path / "file.safetensors"
    rows = 1 if tail else 10_000
    with (  # noqa: PT012
        small_disk(),
        pytest.raises(UserError, match=r"cannot write .*file\.safetensors: File too large"),
        streamed_tensor_file(path, {"x": ("float32", (rows,))}, tail="y") as (arrays, file),
    ):
        arrays["x"][:] = 1
        file.write(bytes(10_000))
    assert not list(tmp_path.iterdir())
