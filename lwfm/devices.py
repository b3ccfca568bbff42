"""Where to compute."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from lwfm.errors import UserError

Accelerator = Literal["auto", "cpu", "gpu"]


def choose_device(accelerator: str) -> torch.device:
    """Device for ``auto`` (a GPU when there is one), ``cpu`` or ``gpu``; UserError when there is none."""
    if accelerator not in get_args(Accelerator):
        raise UserError(f"accelerator must be one of {', '.join(get_args(Accelerator))}, not {accelerator!r}")
    available = torch.cuda.is_available()
    if accelerator == "gpu" and not available:
        raise UserError("accelerator gpu was asked for, but torch finds no CUDA device; try cpu or auto")
    return torch.device("cuda" if available and accelerator != "cpu" else "cpu")
