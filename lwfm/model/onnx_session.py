"""Exported networks in ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lwfm._common.onnx_runtime import CPU_PROVIDER, INPUT, import_runtime, open_session
from lwfm.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


def check_providers(providers: Sequence[str]) -> None:
    """Raise UserError for an execution provider that the installed ONNX Runtime does not have."""
    available = import_runtime().get_available_providers()
    if missing := [each for each in providers if each not in available]:
        raise UserError(
            f"this ONNX Runtime has no provider {missing[0]}, only {', '.join(available)}: install the "
            "package of ONNX Runtime that brings it"
        )


class OnnxNetwork:
    """An exported network in ONNX Runtime; several threads may call it at once.

    Parameters
    ----------
    path : path
        What :func:`lwfm.model.onnx_export.export_network` wrote.
    providers : sequence of str
        ONNX Runtime's execution providers, the preferred one first.

    Attributes
    ----------
    threads : int
        Calls that are fastest side by side: as many as torch has threads, or 1 where another provider than
        that of the CPU computes.

    Raises
    ------
    UserError
        The package or a provider is missing, or the file is damaged or no exported network.
    """

    def __init__(self, path: str | os.PathLike[str], providers: Sequence[str] = (CPU_PROVIDER,)) -> None:
        check_providers(providers)
        self.session = open_session(path, providers)
        self.outputs = [each.name for each in self.session.get_outputs()]
        self.threads = torch.get_num_threads() if tuple(providers) == (CPU_PROVIDER,) else 1

    def __call__(self, pixels: Tensor, outputs: Sequence[str]) -> tuple[Tensor, ...]:
        """Compute some of the outputs for pixels [B, H, W, 3] uint8 on the CPU."""
        options = import_runtime().RunOptions()
        options.only_execute_path_to_fetches = len(outputs) < len(self.outputs)
        arrays = self.session.run(list(outputs), {INPUT: np.ascontiguousarray(pixels)}, options)
        return tuple(torch.from_numpy(array) for array in arrays)
