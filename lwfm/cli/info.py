"""What is installed and how it was built: the answer to the first question of every bug report."""

from __future__ import annotations

import platform
from dataclasses import dataclass

import torch

import lwfm
from lwfm import _ops, lap


@dataclass(frozen=True)
class Info:
    """Version, build and machine.

    Attributes
    ----------
    version, python, torch : str
        Of this package, the interpreter and PyTorch (with the CUDA version it was built for).
    cuda_kernels : str
        For which architectures this build has CUDA kernels (sm: machine code, compute: code that newer GPUs
        compile), or why it has none; then CUDA tensors are worked on through the host.
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
    """Collect version, build, SIMD level and threads.

    Examples
    --------
    >>> from lwfm.cli.info import info
    >>> info().version == lwfm.__version__
    True
    """
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Info(
        version=str(lwfm.__version__),
        python=f"{platform.python_version()} ({platform.system()} {platform.machine()})",
        torch=f"{torch.__version__} (CUDA {torch.version.cuda or 'none: CPU-only build'})",
        cuda_kernels=_ops.cuda_kernels,
        cuda_devices=", ".join(devices) or "none",
        simd=lap.simd_level(),
        threads=f"{torch.get_num_threads()} (torch), {lap.default_threads()} (lwfm.lap)",
    )
