"""Exported networks in ONNX Runtime."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lwfm.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

INPUT = "pixels"
"""Name of the input of an exported network."""

CPU_PROVIDER = "CPUExecutionProvider"
_ERRORS_ONLY = 3


def import_runtime() -> Any:
    """Import ONNX Runtime; UserError naming the extra where it is missing."""
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise UserError(
            "the package onnxruntime is missing: pip install 'lwfm[fast]', or use engine torch"
        ) from error


def check_providers(providers: Sequence[str]) -> None:
    """Raise UserError for an execution provider that the installed ONNX Runtime does not have."""
    available = import_runtime().get_available_providers()
    if missing := [each for each in providers if each not in available]:
        raise UserError(
            f"this ONNX Runtime has no provider {missing[0]}, only {', '.join(available)}: install the "
            "package of ONNX Runtime that brings it"
        )


class OnnxNetwork:
    """An exported network in ONNX Runtime, with as many threads as torch has.

    Parameters
    ----------
    path : path
        What :func:`lwfm.model.onnx_export.export_network` wrote.
    providers : sequence of str
        ONNX Runtime's execution providers, the preferred one first.

    Raises
    ------
    UserError
        The package or a provider is missing, or the file is damaged or no exported network.
    """

    def __init__(self, path: str | os.PathLike[str], providers: Sequence[str] = (CPU_PROVIDER,)) -> None:
        check_providers(providers)
        runtime = import_runtime()
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin while they wait take the processors from those that decode the next batch.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = _ERRORS_ONLY
        try:
            session = runtime.InferenceSession(path, options, providers=list(providers))
        except Exception as error:  # its exceptions have no other common base
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"ONNX Runtime cannot read {path}: {reason}") from error
        if [each.name for each in session.get_inputs()] != [INPUT]:
            raise UserError(f"{path} is no network that lwfm exported: its input is not {INPUT}")
        self.session: Any = session
        self.outputs = [each.name for each in session.get_outputs()]
        self._options = runtime.RunOptions()

    def __call__(self, pixels: Tensor, outputs: Sequence[str]) -> tuple[Tensor, ...]:
        """Compute some of the outputs for pixels [B, H, W, 3] uint8 on the CPU."""
        self._options.only_execute_path_to_fetches = len(outputs) < len(self.outputs)
        arrays = self.session.run(list(outputs), {INPUT: np.ascontiguousarray(pixels)}, self._options)
        return tuple(torch.from_numpy(array) for array in arrays)
