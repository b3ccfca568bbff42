"""Read pickles of arrays and plain containers without running code from them."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm.data.layouts.layout import Listing
from lwfm.data.sources import PixelSource
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

_ARRAYS = {"numpy": ("ndarray", "dtype")} | {
    f"numpy.{core}.{module}": names
    for core in ("core", "_core")  # before and after NumPy 2
    for module, names in (("multiarray", ("_reconstruct", "scalar")), ("numeric", ("_frombuffer",)))
}
_CONTAINERS = {
    "collections": ("OrderedDict",),
    "_codecs": ("encode",),  # how Python 3 writes bytes in protocol 2
    **dict.fromkeys(
        ("builtins", "__builtin__"),  # of Python 3 and 2
        ("set", "frozenset", "list", "dict", "tuple", "bytearray", "bytes", "str", "int"),
    ),
}
_ALLOWED = {(module, name) for module, names in (_ARRAYS | _CONTAINERS).items() for name in names}


class ArrayUnpickler(pickle.Unpickler):
    """Unpickler of NumPy arrays and plain containers; refuses anything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a global of the pickle; UnpicklingError for all but a few harmless ones."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it contains {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_pickle(path: Path) -> Any:
    """Read a pickle of arrays and plain containers, written by Python 2 or 3.

    Raises
    ------
    UserError
        The file cannot be read, is damaged, or contains anything but arrays and plain containers.
    """
    try:
        with path.open("rb") as file:
            return ArrayUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle makes the unpickler fail in any way it likes
        raise UserError(
            f"{path} is not a pickle of arrays and plain containers, or is damaged "
            f"({(str(error).splitlines() or [type(error).__name__])[0]}); nothing in it was run"
        ) from error


def read_dictionary(path: Path, keys: Sequence[str]) -> dict[str, Any]:
    """Read a pickled dictionary; UserError when it lacks one of `keys`."""
    content = read_pickle(path)
    found = {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
    if missing := [key for key in keys if key not in found]:
        held = ", ".join(sorted(found)) if found else type(content).__name__
        raise UserError(f"{path} lacks {', '.join(missing)}: it holds {held}")
    return found


def pixels_of(path: Path, data: Any) -> npt.NDArray[np.uint8]:
    """Check an array of images ``[n, H, W, 3]`` uint8 from the file `path`."""
    pixels = np.asarray(data)
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8:
        raise UserError(
            f"{path}: the images must be uint8 [n, H, W, 3], not {pixels.dtype} {list(pixels.shape)}"
        )
    return pixels


def labels_of(path: Path, labels: Any, count: int) -> npt.NDArray[np.int64]:
    """Check that there is an integer label for each of `count` images of the file `path`."""
    array = np.asarray(labels)
    if array.ndim != 1 or len(array) != count or not np.issubdtype(array.dtype, np.integer):
        raise UserError(f"{path}: {count} integer labels are expected, not {array.dtype} {list(array.shape)}")
    return array.astype(np.int64)


def class_names(path: Path, names: Any, labels: npt.NDArray[np.int64]) -> list[str]:
    """Return the class name of each label: from a list or dictionary, or else the zero-padded label."""
    if names is None:
        return [f"{label:03d}" for label in labels.tolist()]
    try:
        return [str(names[label]).replace("/", "_") for label in labels.tolist()]
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: there is no class name for label {error}") from error


def read_pixels_and_labels(path: Path) -> Listing:
    """Read a pickle ``{"data": [n, H, W, 3] uint8, "labels": [n]}``, with ``label2catname`` or without."""
    content = read_dictionary(path, ("data", "labels"))
    pixels = pixels_of(path, content["data"])
    of_class = class_names(
        path, content.get("label2catname"), labels_of(path, content["labels"], len(pixels))
    )
    names = [f"{label}/{index:05d}" for index, label in enumerate(of_class)]
    return Listing(names, PixelSource(pixels, str(path)))
