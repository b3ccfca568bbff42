"""Build the two extension modules; everything else about the package is in pyproject.toml.

``lwfm._lap`` binds the core to NumPy and includes nothing of torch. ``lwfm._ops`` registers the torch
operators through torch's stable ABI, so a build made against one torch (>= 2.10) loads in another; with
LWFM_TORCH=0 it is left out, and torch is not needed.
Object files stay in ``build/objects`` (setup_objects.py); a build only compiles what has changed.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import NoReturn

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, LinkError

sys.path.insert(0, str(Path(__file__).parent))  # pip runs this file from elsewhere
import setup_cuda
import setup_objects
from setup_objects import Compilation

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


def import_torch() -> tuple[Path, str, str | None, list[tuple[int, int]]]:
    """Return folder, version, CUDA version (None: CPU-only) and visible GPUs of the torch built against."""
    try:
        import torch
    except ImportError:
        fail(
            "torch is not installed in the environment that builds lwfm. Install torch>=2.10 first, "
            "or leave out --no-build-isolation so that pip fetches it for the build. LWFM_TORCH=0 "
            "builds what lwfm.lap and lwfm.lite need, without torch."
        )
    root = Path(torch.__file__).parent
    if not (root / "include" / "torch" / "csrc" / "stable" / "library.h").exists():
        fail(f"torch {torch.__version__} has no stable C++ interface; lwfm needs torch>=2.10.")
    # Not device_count: it also counts GPUs whose driver torch cannot use.
    visible = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    gpus = [torch.cuda.get_device_capability(index) for index in visible]
    return root, torch.__version__, torch.version.cuda, gpus


def find_pybind11() -> tuple[str, str]:
    """Return the folder of pybind11's headers and their version."""
    try:
        import pybind11
    except ImportError:
        fail("pybind11 is not installed in the environment that builds lwfm: pip install 'pybind11>=2.13'.")
    return str(pybind11.get_include()), str(pybind11.__version__)


def cuda_kernels(
    torch_cuda: str | None, gpus: list[tuple[int, int]]
) -> tuple[list[Compilation], Path | None, str]:
    """Decide on the CUDA kernels -> how they are compiled, the folder of CUDA's runtime, a summary."""
    try:
        toolkit = setup_cuda.find_toolkit(os.environ)
        decision = setup_cuda.decide(os.environ, torch_cuda, toolkit)
        if decision.toolkit is None:
            print(f"lwfm: CUDA kernels are not built: {decision.reason}", flush=True)
            return [], None, f"not built: {decision.reason}"
        architectures = setup_cuda.choose_architectures(os.environ, decision.toolkit, gpus)
    except setup_cuda.CudaError as error:
        fail(str(error))
    summary = setup_cuda.describe(decision.toolkit, architectures)
    print(f"lwfm: CUDA kernels for {summary}: {decision.reason}", flush=True)
    compilations = setup_cuda.kernel_compilations(decision.toolkit, architectures, os.environ)
    return compilations, decision.toolkit.runtime_folder, summary


class BuildExtensions(build_ext):
    """Compile with ninja, link with setuptools; failures say what to install."""

    def build_extensions(self) -> None:
        """Compile what has changed, and link both modules."""
        command = getattr(self.compiler, "compiler_so_cxx", None) or ["c++", "-fPIC"]
        if shutil.which(command[0]) is None:
            fail(f"no C++ compiler: {command[0]!r} was not found. {NEEDED} {INSTALL_HINT}")
        kernels = self._add_objects(command)
        jobs = setup_objects.job_count(os.environ)
        try:
            setup_objects.compile_all(self.compilations, setup_cuda.with_threads(os.environ, jobs))
            self.force = True  # linking takes a second; times of objects do not tell which were linked
            super().build_extensions()
        except setup_objects.CompilationError as error:
            without = " LWFM_CUDA=0 builds without the CUDA kernels." if kernels else ""
            fail(f"{error}. {NEEDED} {INSTALL_HINT}{without}")
        except (BaseError, LinkError, OSError) as error:
            fail(f"linking lwfm failed: {error}. {NEEDED} {INSTALL_HINT}")

    def _add_objects(self, command: list[str]) -> bool:
        """Complete both modules' objects and libraries -> whether there are CUDA kernels among them."""
        compiler = setup_objects.compiler_version(command)
        pybind11_include, pybind11_version = find_pybind11()
        common = [*command, *COMPILE_FLAGS, *WARNING_FLAGS, "-Icsrc", f"-I{sysconfig.get_path('include')}"]

        def compilation(source: Path, flags: list[str], versions: str) -> Compilation:
            return Compilation(source, setup_objects.with_ccache([*common, *flags], os.environ), versions)

        lap = [
            compilation(source, [f"-I{pybind11_include}"], f"{compiler}pybind11 {pybind11_version}")
            for source in sorted(Path("csrc", "python").glob("*.cpp"))
        ]
        LAP.extra_objects = [str(one.target()) for one in lap]
        self.compilations = lap
        if OPS not in self.extensions:
            return False
        root, torch_version, torch_cuda, gpus = import_torch()
        kernels, runtime_folder, summary = cuda_kernels(torch_cuda, gpus)
        # As system headers: their warnings are not ours, and torch's version says when they change.
        flags = ["-isystem", str(root / "include"), f"-DTORCH_TARGET_VERSION={TORCH_TARGET_VERSION}"]
        flags += ["-DLWFM_WITH_CUDA=1"] if kernels else []
        ops = [
            compilation(
                source,
                [*flags, *([f'-DLWFM_CUDA_KERNELS="{summary}"'] if source.name == "module.cpp" else [])],
                f"{compiler}torch {torch_version}",
            )
            for source in sorted(Path("csrc", "ops").glob("*.cpp"))
        ]
        self.compilations = [*kernels, *lap, *ops]
        OPS.extra_objects = [str(one.target()) for one in [*ops, *kernels]]
        OPS.library_dirs = [str(root / "lib"), *([str(runtime_folder)] if runtime_folder else [])]
        OPS.libraries = ["torch_cpu", *(["cudart_static", "dl", "rt", "pthread"] if kernels else [])]
        return bool(kernels)


LAP = Extension(
    "lwfm._lap",
    sources=[],
    language="c++",
    extra_link_args=[] if sys.platform == "darwin" else ["-pthread"],
)
OPS = Extension("lwfm._ops", sources=[], language="c++")

MODULES = [LAP] if os.environ.get("LWFM_TORCH") == "0" else [LAP, OPS]

setup(ext_modules=MODULES, cmdclass={"build_ext": BuildExtensions})
