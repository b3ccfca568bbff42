"""Safetensors files, written whole and read without pickle: tensors in memory, or filled row by row."""

from __future__ import annotations

import json
import math
import os
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.torch

from lwfm._common.files import atomic_path, write_bytes_atomically
from lwfm._common.records import parse_json
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

    import numpy.typing as npt
    from torch import Tensor, nn

FORMAT = 1
"""Number of the layout of these files; another one is refused."""
_LONGEST = 2**62
_DTYPES = {"float32": "F32", "float16": "F16", "int32": "I32", "uint8": "U8"}
"""Names of NumPy's dtypes in the header of a safetensors file."""


def write_tensor_file(
    path: str | Path, tensors: dict[str, Tensor], description: dict[str, Any], *, key: str
) -> None:
    """Write tensors and their description, atomically; UserError when the disk refuses.

    Parameters
    ----------
    path : str or Path
        The file. An existing one is replaced.
    tensors : dict of str to Tensor
        On any device.
    description : dict
        JSON values; ``format`` and the ``version`` of lwfm are added.
    key : str
        The metadata's name for the description: it tells one kind of file from another.
    """
    described = {"format": FORMAT, "version": version("lwfm"), **description}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes_atomically(path, safetensors.torch.save(plain, metadata={key: json.dumps(described)}))


def read_tensor_file(path: Path, *, key: str, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read what :func:`write_tensor_file` wrote: the description and the tensors, on the CPU.

    Parameters
    ----------
    path : Path
        An existing file.
    key : str
        As it was written.
    what : str
        Kind of file, for messages: ``lwfm model``.

    Raises
    ------
    UserError
        When the file cannot be read, is of another kind, or has a format that this version does not know.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a readable .safetensors file: {error}") from error
    try:
        description = dict(parse_json(metadata[key]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds tensors but no {what} (its metadata lack the key {key!r})") from error
    if description.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {description.get('format')}, this version of lwfm reads {FORMAT}: "
            f"it was written by lwfm {description.get('version')}"
        )
    return description, tensors


def holds_description(path: Path, *, key: str) -> bool:
    """Return whether a file was written by :func:`write_tensor_file` with this `key`."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return key in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with a prefix, without it.

    Examples
    --------
    >>> import torch
    >>> tensors_under("model.", {"model.weight": torch.ones(1), "labels": torch.zeros(1)})
    {'weight': tensor([1.])}
    """
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}


def numpy_tensors(module: nn.Module) -> dict[str, npt.NDArray[Any]]:
    """Return a module's state dictionary as contiguous arrays, sorted by name."""
    tensors = sorted(module.state_dict().items())
    return {name: tensor.detach().cpu().contiguous().numpy() for name, tensor in tensors}


@contextmanager
def streamed_tensor_file(
    path: str | Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    *,
    tail: str = "",
    metadata: Mapping[str, str] | None = None,
) -> Iterator[tuple[dict[str, np.memmap[Any, Any]], BinaryIO]]:
    """Yield memory-mapped tensors to fill; ``path`` is complete after the block, or as it was before.

    The safetensors library itself writes only what is in memory.

    Parameters
    ----------
    path : str or Path
        The file. An existing one is replaced.
    tensors : dict of str to (dtype, shape)
        Tensors to fill: float32, float16, int32 or uint8.
    tail : str, optional
        Name of a uint8 tensor [n] whose length is not known beforehand.
    metadata : dict of str to str, optional
        Written into the header.

    Yields
    ------
    arrays, file
        An array for each of ``tensors``, and a binary file: what is written to it becomes the tail.

    Raises
    ------
    UserError
        When the disk refuses, also for lack of space.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "rows.safetensors"
    >>> with streamed_tensor_file(path, {"x": ("float32", (2, 3))}, tail="bytes") as (arrays, file):
    ...     arrays["x"][:] = 1
    ...     _ = file.write(bytes(5))
    >>> {name: tuple(x.shape) for name, x in sorted(safetensors.torch.load_file(path).items())}
    {'bytes': (5,), 'x': (2, 3)}
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata or {})}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    longest = {tail: _tail(end, _LONGEST)} if tail else {}
    start = 8 + len(json.dumps({**header, **longest}).encode())
    start += -start % 8  # tensors are aligned
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        if hasattr(os, "posix_fallocate"):  # a full disk raises here, not as a signal at a mapped page
            os.posix_fallocate(file.fileno(), 0, start + end)
        file.truncate(start + end)
        arrays = {
            name: np.memmap(file, dtype, "r+", start + header[name]["data_offsets"][0], shape)
            for name, (dtype, shape) in tensors.items()
        }
        file.seek(start + end)
        yield arrays, file
        for array in arrays.values():
            array.flush()
        if tail:
            header[tail] = _tail(end, file.seek(0, os.SEEK_END) - start - end)
        text = json.dumps(header).encode().ljust(start - 8)  # the format allows spaces
        file.seek(0)
        file.write(len(text).to_bytes(8, "little") + text)


def _tail(begin: int, length: int) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [length], "data_offsets": [begin, begin + length]}
