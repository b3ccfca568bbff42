"""Where to compute."""

from __future__ import annotations

import os
from typing import Literal, get_args

import torch

from lwfm.errors import UserError

Accelerator = Literal["auto", "cpu", "gpu"]


def choose_device(accelerator: str) -> torch.device:
    """Device for ``auto`` (a GPU when there is one), ``cpu`` or ``gpu``; UserError when there is none.

    Of several processes that ``torchrun`` started on one machine, each takes a GPU of its own.
    """
    if accelerator not in get_args(Accelerator):
        raise UserError(f"accelerator must be one of {', '.join(get_args(Accelerator))}, not {accelerator!r}")
    available = torch.cuda.is_available()
    if accelerator == "gpu" and not available:
        raise UserError("accelerator gpu was asked for, but torch finds no CUDA device; try cpu or auto")
    if not available or accelerator == "cpu":
        return torch.device("cpu")
    if "LOCAL_RANK" not in os.environ:
        return torch.device("cuda")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
