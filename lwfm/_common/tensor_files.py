"""Tensors and a JSON description of them in one .safetensors file, written whole and read without pickle."""

from __future__ import annotations

import json
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch

from lwfm._common.files import write_bytes_atomically
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

FORMAT = 1
"""Number of the layout of these files; another one is refused."""


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
        What the file should be, for messages: ``lwfm model``.

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
        description = dict(json.loads(metadata[key]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds tensors but no {what} (its metadata lack the key {key!r})") from error
    if description.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {description.get('format')}, this version of lwfm reads {FORMAT}: "
            f"it was written by lwfm {description.get('version')}"
        )
    return description, tensors


def holds_description(path: Path, *, key: str) -> bool:
    """Say whether a file is one of :func:`write_tensor_file`, of the kind that `key` names."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return key in (file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        return False


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Choose the tensors whose names begin with a prefix, and take it off.

    Examples
    --------
    >>> import torch
    >>> tensors_under("model.", {"model.weight": torch.ones(1), "labels": torch.zeros(1)})
    {'weight': tensor([1.])}
    """
    return {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
