"""Choice of the device to compute on."""

from __future__ import annotations

import os
from typing import Literal, get_args

import torch

from lwfm.errors import UserError

Accelerator = Literal["auto", "cpu", "gpu"]


def choose_device(accelerator: str) -> torch.device:
    """Return the device for ``auto`` (a GPU if there is one), ``cpu`` or ``gpu``; UserError without a GPU.

    Of several processes that ``torchrun`` started on one machine, each gets its own GPU.
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
