"""Report the installed versions, the build and the machine, for `lwfm info` and bug reports."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

import lwfm
from lwfm import _ops, lap


@dataclass(frozen=True)
class Info:
    """Versions, build and machine.

    Attributes
    ----------
    version, python, torch : str
        Versions of this package, the interpreter and PyTorch (with the CUDA version it was built for).
    cuda_kernels : str
        Architectures for which this build has CUDA kernels (sm: machine code, compute: PTX, which newer GPUs
        compile), and why they were chosen; or why it has none, so that tensor expressions are used instead.
    cuda_devices : str
        GPUs that PyTorch sees.
    simd : str
        Instruction set of the assignment solver on this processor.
    threads : str
        Threads that PyTorch and the NumPy solver use.
    """

    version: str
    python: str
    torch: str
    cuda_kernels: str
    cuda_devices: str
    simd: str
    threads: str

    def __str__(self) -> str:
        names = {name: name.replace("_", " ").replace("cuda", "CUDA") for name in vars(self)}
        return "\n".join(f"{names[name]:<13} {value}" for name, value in vars(self).items())


def info() -> Info:
    """Collect versions, build, GPUs, SIMD level and threads.

    Examples
    --------
    >>> from lwfm.cli.info import info
    >>> info().version == lwfm.__version__
    True
    """
    # Not device_count: it also counts GPUs whose driver torch cannot use, and asking for their name fails.
    visible = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    devices = [torch.cuda.get_device_name(index) for index in visible]
    return Info(
        version=str(lwfm.__version__),
        python=f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        torch=f"{torch.__version__} (CUDA {torch.version.cuda or 'none: CPU-only build'})",
        cuda_kernels=_ops.cuda_kernels,
        cuda_devices=", ".join(devices) or "none",
        simd=lap.simd_level(),
        threads=f"{torch.get_num_threads()} (torch), {lap.default_threads()} (lwfm.lap)",
    )
