"""Labels of support images: grouped by class once, wrong ones refused at once."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import torch

from lwfm.nn import ClassLists

LABELS = [2, 0, 2, 1, 0, 2]


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        tuple(LABELS),
        np.array(LABELS),
        np.array(LABELS, dtype=np.uint8),
        torch.tensor(LABELS),
        torch.tensor(LABELS, dtype=torch.int8),
        torch.tensor(LABELS).double().numpy().astype(np.int32).tolist(),
        iter(LABELS),
    ],
    ids=["list", "tuple", "array", "uint8-array", "tensor", "int8-tensor", "int32-list", "iterator"],
)
def test_images_class_by_class(labels: Any) -> None:
    classes = ClassLists(labels)
    assert classes.order.tolist() == [1, 4, 3, 0, 2, 5]
    assert classes.begin.tolist() == [0, 2, 3, 6]
    assert (classes.shots, classes.way, len(classes)) == ((2, 1, 3), 3, 6)
    assert {classes.order.dtype, classes.begin.dtype} == {torch.int64}
    assert classes.labels == tuple(LABELS)


def test_lists_of_the_expressions() -> None:
    classes = ClassLists(LABELS)
    shares = [[0, 0, 1 / 3], [1 / 2, 0, 0], [0, 0, 1 / 3], [0, 1, 0], [1 / 2, 0, 0], [0, 0, 1 / 3]]
    torch.testing.assert_close(classes.share, torch.tensor(shares, dtype=torch.float64))
    assert [x.tolist() for x in classes.of_equal_count] == [[[3]], [[1, 4]], [[0, 2, 5]]]
    by_count = [torch.tensor([[10 * classes.shots.index(K)]]) for K in sorted(classes.shots)]
    assert classes.in_class_order(by_count).tolist() == [[0, 10, 20]]


def test_moved_to_another_device() -> None:
    classes = ClassLists(LABELS)
    assert classes.to("cpu") is classes
    moved = classes.to("meta")
    assert (moved.device.type, moved.shots, len(moved)) == ("meta", classes.shots, 6)
    assert ClassLists(LABELS, device="meta").order.is_meta


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, 1.5], TypeError, "must be integers"),
        ([0, True], TypeError, "must be integers"),
        ([0, math.nan], TypeError, "must be integers"),
        ([0, math.inf], TypeError, "must be integers"),
        ([0, None], TypeError, "must be integers"),
        (["0", "1"], TypeError, "must be integers"),
        ("01", TypeError, "must be integers"),
        (b"\x00\x01", TypeError, "must be integers"),
        ({0, 1}, TypeError, "must be integers"),
        ({0: 1, 1: 0}, TypeError, "must be integers"),
        (7, TypeError, "must be integers"),
        (None, TypeError, "must be integers"),
        ([[0], [1]], TypeError, "must be integers"),
        (np.array([0.5, 1]), TypeError, "must be integers"),
        (np.array([True, False]), TypeError, "must be integers"),
        (np.array([[0, 1]]), TypeError, "must be integers"),
        (torch.tensor([0.0, 1.0]), ValueError, "must be integers"),
        (torch.tensor([True, False]), ValueError, "must be integers"),
        (torch.tensor([0, 1j]), ValueError, "must be integers"),
        (torch.tensor(1), ValueError, "must be integers"),
        (torch.tensor([[0, 1]]), ValueError, "must be integers"),
        (torch.tensor([0, 1], device="meta"), ValueError, "keep them on the CPU"),
        ([], ValueError, "0 support images need as many labels"),
        ([0, -1], ValueError, "0..way-1, got -1"),
        ([0, 2], ValueError, "0..way-1, got 2: 2 support images have at most 2 classes"),
        ([0, 10**9], ValueError, "got 1000000000"),
        ([0, 2**63], ValueError, "got 9223372036854775808"),
        (torch.tensor([0, 2**62]), ValueError, "got 4611686018427387904"),
        ([1, 1], ValueError, "class 0 has no support images"),
        ([0, 2, 2], ValueError, "class 1 has no support images"),
    ],
    ids=[
        "float", "bool", "nan", "infinity", "none-in-list", "strings", "string", "bytes", "set", "dict",
        "number",
        "none", "nested", "float-array", "bool-array", "matrix", "float-tensor", "bool-tensor",
        "complex-tensor",
        "scalar-tensor", "tensor-matrix", "meta", "empty", "negative", "too-high", "wild", "beyond-int64",
        "wild-tensor", "first-missing", "middle-missing",
    ],
)  # fmt: skip
def test_wrong_labels_are_refused_at_once(labels: Any, error: type[Exception], message: str) -> None:
    begin = time.perf_counter()
    with pytest.raises(error, match=message):
        ClassLists(labels)
    assert time.perf_counter() - begin < 1


def test_a_wrong_number_of_labels_is_refused() -> None:
    with pytest.raises(ValueError, match="5 support images need as many labels, got 6"):
        ClassLists(LABELS, 5)
