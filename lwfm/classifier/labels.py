"""Class labels, names or whole numbers, and the label of images of no class."""

from __future__ import annotations

from collections.abc import Sized
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
    array = np.asarray(labels)
    if array.dtype == object and all(isinstance(label, str) for label in array.flat):
        array = array.astype(str)  # as pandas holds names
    if array.ndim != 1 or array.dtype.kind not in "iuU":
        raise UserError(f"labels must be names or whole numbers [S], got {array.dtype} {list(array.shape)}")
    if isinstance(images, Sized) and len(images) != len(array):
        raise UserError(f"{len(images)} images need as many labels, got {len(array)}")
    if not len(array):
        raise UserError("there are no images to learn from")
    return array if array.dtype.kind == "U" else array.astype(np.int64)


def are_names(classes: npt.NDArray[Any]) -> bool:
    """Whether labels are names, not numbers."""
    return classes.dtype.kind == "U"


def unknown_label(classes: npt.NDArray[Any], given: str | int | None) -> str | int:
    """Choose the label of images of no class: ``given``, or "unknown" among names and -1 among numbers.

    Raises
    ------
    UserError
        If one of the classes has this label.
    """
    default: str | int = "unknown" if are_names(classes) else -1
    label = default if given is None else given
    if label in classes.tolist():
        raise UserError(f"{label!r} is one of the classes: choose another unknown_label")
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
