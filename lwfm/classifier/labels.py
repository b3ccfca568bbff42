"""Class labels, names or whole numbers, and the label of images of no class."""

from __future__ import annotations

from collections.abc import Mapping, Set, Sized
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm.errors import UserError

if TYPE_CHECKING:
    import numpy.typing as npt


def check_labels(images: object, labels: Any) -> npt.NDArray[Any]:
    """Convert labels to an array [S] of names (dtype U) or of int64; UserError for anything else.

    Where ``images`` have a length, it must be theirs.

    Examples
    --------
    >>> check_labels(["a.jpg", "b.jpg"], ["cat", "owl"]).tolist()
    ['cat', 'owl']
    """
    if isinstance(labels, (Set, Mapping)):
        raise UserError(f"labels are a {type(labels).__name__}, which has no order: give a list")
    # NumPy alone would turn a list of names and numbers into names, and NaN into the name "nan".
    array = np.asarray(labels) if hasattr(labels, "dtype") else np.array(labels, dtype=object)
    if array.ndim != 1:
        raise UserError(f"labels must be names or whole numbers [S], got {array.dtype} {list(array.shape)}")
    if isinstance(images, Sized) and len(images) != len(array):
        raise UserError(f"{len(images)} images need as many labels, got {len(array)}")
    if not len(array):
        raise UserError("there are no images to learn from")
    return _names_or_numbers(array)


def _names_or_numbers(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert [S] of any dtype to names or int64; UserError naming the first label that is neither."""
    values = [plain_value(value) for value in array] if array.dtype == object else array.tolist()
    kind = str if isinstance(values[0], str) else int
    for number, value in enumerate(values):
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UserError(
                f"labels must be all names or all whole numbers; label {number} is {value!r} "
                f"({type(value).__name__}), label 0 is {values[0]!r}"
            )
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"label {number} is {value!r}: a name cannot hold the character NUL")
    if kind is str:
        return np.array(values, dtype=str)
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        largest = max(values, key=abs)
        raise UserError(
            f"the label {largest} does not fit into 64 bits: use smaller numbers or names"
        ) from error


def plain_value(value: Any) -> Any:
    """Return a scalar of NumPy or torch as Python's own; anything else as it is.

    Examples
    --------
    >>> plain_value(np.float32(0.5)), plain_value("cat")
    (0.5, 'cat')
    """
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def are_names(classes: npt.NDArray[Any]) -> bool:
    """Return whether labels are names, not numbers."""
    return classes.dtype.kind == "U"


def check_options(unknown_below: Any, batch_size: Any, unknown_label: Any) -> None:
    """Raise UserError naming the first option of a classifier that is out of its range."""
    below, size, label = map(plain_value, (unknown_below, batch_size, unknown_label))
    if not isinstance(below, (int, float)) or not 0 <= below <= 1:
        raise UserError(f"unknown_below must be a number in 0..1, got {below!r}")
    if size is not None and (not isinstance(size, int) or size < 1):
        raise UserError(f"batch_size must be a whole number, at least 1, got {size!r}")
    if not isinstance(label, (str, int, NoneType)):
        raise UserError(f"unknown_label must be a name or a whole number, got {label!r}")


def unknown_label(classes: npt.NDArray[Any], given: str | int | None) -> str | int:
    """Choose the label of images of no class: ``given``, or "unknown" among names and -1 among numbers.

    Raises
    ------
    UserError
        If one of the classes has this label.
    """
    default: str | int = "unknown" if are_names(classes) else -1
    label: str | int = default if given is None else plain_value(given)
    if label in classes.tolist():
        raise UserError(f"{label!r} is one of the classes: choose another unknown_label (--unknown_label)")
    return label


def replace_unknown(
    labels: npt.NDArray[Any], unknown: npt.NDArray[np.bool_], label: str | int
) -> npt.NDArray[Any]:
    """Replace labels by ``label`` where ``unknown``; of dtype object if one is a name, the other a number.

    Examples
    --------
    >>> replace_unknown(np.array(["cat", "owl"]), np.array([True, False]), "unknown").tolist()
    ['unknown', 'owl']
    """
    same_kind = isinstance(label, str) == are_names(labels)
    dtype = np.result_type(labels, np.array(label)) if same_kind else np.dtype(object)
    return np.where(unknown, np.array(label, dtype), labels.astype(dtype))
