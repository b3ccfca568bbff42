"""Exported networks in ONNX Runtime, opened in the same way with torch and without."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lwfm.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

INPUT = "pixels"
"""Name of the input of an exported network."""

CPU_PROVIDER = "CPUExecutionProvider"
_ERRORS_ONLY = 3


def import_runtime(extra: str = "fast") -> Any:
    """Import ONNX Runtime; UserError naming the extra of lwfm where it is missing."""
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        torch = ", or use engine torch" if extra == "fast" else ""
        raise UserError(f"the package onnxruntime is missing: pip install 'lwfm[{extra}]'{torch}") from error


def open_session(
    path: str | os.PathLike[str], providers: Sequence[str] = (CPU_PROVIDER,), *, extra: str = "fast"
) -> Any:
    """Open an exported network; UserError where ONNX Runtime is missing or the file is no such network.

    On the CPU a run takes one thread, whatever the batch: threads of one run wait for each other after every
    layer, where runs of several batches side by side need not.
    """
    runtime = import_runtime(extra)
    options = runtime.SessionOptions()
    if tuple(providers) == (CPU_PROVIDER,):
        options.intra_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        session = runtime.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # its exceptions have no other common base
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"ONNX Runtime cannot read {path}: {reason}") from error
    if [each.name for each in session.get_inputs()] != [INPUT]:
        raise UserError(f"{path} is no network that `lwfm export` wrote: its input is not {INPUT}")
    return session
