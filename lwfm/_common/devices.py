"""Choice of the device and of the number of threads to compute with."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

import torch

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run what this thread computes by torch on the CPU with a number of threads.

    Examples
    --------
    >>> with torch_threads(1):
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
