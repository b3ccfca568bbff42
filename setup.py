"""Builds the two extension modules; everything else about the package stands in pyproject.toml.

``lwfm._lap`` binds the solver to NumPy and knows nothing of torch. ``lwfm._ops`` registers the torch
operators through torch's stable ABI, so a build made against one torch (>= 2.10) loads in another.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CompileError, LinkError

sys.path.insert(0, str(Path(__file__).parent))  # pip runs this file from elsewhere
import setup_cuda

# The oldest torch whose stable ABI is used: 2.10, as in pyproject.toml.
TORCH_TARGET_VERSION = "0x020a000000000000"
# No fused multiply-adds: every SIMD level must round alike, or ties would be broken differently.
COMPILE_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden"]
if "-g" not in os.environ.get("CFLAGS", "").split():
    # Python's own flags have -g: a third more time and twenty times the size for what few debug.
    COMPILE_FLAGS.append("-g0")
# -Wpsabi is about vectors that cross a call; here all are inlined.
WARNING_FLAGS = ["-Wall", "-Wextra", "-Wno-psabi"]
NEEDED = "lwfm is built from source and needs a C++17 compiler: install g++ 9 or newer, or clang 10 or newer"
INSTALL_HINT = (
    "(Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install), "
    "or name one in the environment variables CC and CXX."
)


def fail(message: str) -> NoReturn:
    """Stop the build with one message instead of a traceback."""
    raise SystemExit(f"\nerror: {message}\n")


def add_torch_folders(extension: Extension) -> str | None:
    """Point the torch extension at the headers and libraries of the torch that is built against.

    Returns that torch's CUDA version, None for a CPU-only build.
    """
    try:
        import torch
    except ImportError:
        fail(
            "torch is not installed in the environment that builds lwfm. Install torch>=2.10 first, "
            "or leave out --no-build-isolation so that pip fetches it for the build."
        )
    root = Path(torch.__file__).parent
    if not (root / "include" / "torch" / "csrc" / "stable" / "library.h").exists():
        fail(f"torch {torch.__version__} has no stable C++ interface; lwfm needs torch>=2.10.")
    # As system headers: their warnings are not ours.
    extension.extra_compile_args += ["-isystem", str(root / "include")]
    extension.library_dirs.append(str(root / "lib"))
    return torch.version.cuda


def add_cuda_kernels(extension: Extension, torch_cuda: str | None, folder: Path) -> None:
    """Compile the CUDA kernels and link them into the torch extension, or say why not."""
    try:
        toolkit = setup_cuda.find_toolkit(os.environ)
        decision = setup_cuda.decide(os.environ, torch_cuda, toolkit)
        summary = f"not built: {decision.reason}"
        if decision.toolkit is not None:
            machine, virtual = setup_cuda.architectures_of(os.environ, decision.toolkit)
            summary = setup_cuda.describe(decision.toolkit, machine, virtual)
            print(f"lwfm: CUDA kernels for {summary}: {decision.reason}", flush=True)
            command = setup_cuda.nvcc_command(decision.toolkit, machine, virtual)
            extension.extra_objects += setup_cuda.compile_kernels(
                command, folder, setup_cuda.job_count(os.environ)
            )
            extension.define_macros.append(("LWFM_WITH_CUDA", "1"))
            extension.library_dirs.append(str(decision.toolkit.runtime_folder))
            extension.libraries += ["cudart_static", "dl", "rt", "pthread"]
        else:
            print(f"lwfm: CUDA kernels are {summary}", flush=True)
    except setup_cuda.CudaError as error:
        fail(str(error))
    extension.define_macros.append(("LWFM_CUDA_KERNELS", f'"{summary}"'))
    # Rebuilt where the decision is another one than last time.
    stamp = folder / "cuda.txt"
    folder.mkdir(parents=True, exist_ok=True)
    if not stamp.exists() or stamp.read_text() != summary:
        stamp.write_text(summary)
    extension.depends += [str(stamp), *extension.extra_objects]


def add_pybind11_folder(extension: Extension) -> None:
    """Point the NumPy extension at pybind11's headers, whose helper also compiles files in parallel."""
    try:
        import pybind11
        from pybind11.setup_helpers import ParallelCompile
    except ImportError:
        fail("pybind11 is not installed in the environment that builds lwfm: pip install 'pybind11>=2.13'.")
    extension.include_dirs.append(pybind11.get_include())
    ParallelCompile(default=setup_cuda.job_count(os.environ)).install()


def extension_module(name: str, folder: str, **options: Any) -> Extension:
    """Return the extension module compiled from every source in a folder of ``csrc``."""
    return Extension(
        f"lwfm.{name}",
        sources=sorted(path.as_posix() for path in Path("csrc", folder).glob("*.cpp")),
        depends=sorted(path.as_posix() for path in Path("csrc").rglob("*.*h")),
        include_dirs=["csrc"],
        extra_compile_args=[*COMPILE_FLAGS, *WARNING_FLAGS],
        language="c++",
        **options,
    )


LAP = extension_module("_lap", "python", extra_link_args=[] if sys.platform == "darwin" else ["-pthread"])
OPS = extension_module(
    "_ops", "ops", libraries=["torch_cpu"], define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION)]
)


class BuildExtensions(build_ext):
    """``build_ext`` whose failures say what to install."""

    def build_extensions(self) -> None:
        """Compile, after making sure that there is a compiler."""
        compiler = getattr(self.compiler, "compiler_cxx", None) or ["c++"]
        if shutil.which(compiler[0]) is None:
            fail(f"no C++ compiler: {compiler[0]!r} was not found. {NEEDED} {INSTALL_HINT}")
        add_pybind11_folder(LAP)
        add_cuda_kernels(OPS, add_torch_folders(OPS), Path(self.build_temp, "cuda"))
        if setup_cuda.job_count(os.environ) > 1:
            self.parallel = 2  # both modules at once: one of them is a single long file
        try:
            super().build_extensions()
        except (BaseError, CompileError, LinkError, OSError, subprocess.SubprocessError):
            fail(f"compiling lwfm failed; the compiler's own message stands above. {NEEDED} {INSTALL_HINT}")


setup(ext_modules=[LAP, OPS], cmdclass={"build_ext": BuildExtensions})
