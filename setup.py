"""Builds the two extension modules; everything else about the package stands in pyproject.toml.

``lwfm._lap`` binds the solver to NumPy and knows nothing of torch. ``lwfm._ops`` registers the torch
operators through torch's stable ABI, so a build made against one torch (>= 2.10) loads in another.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError as BuildError

# The oldest torch whose stable ABI is used: 2.10, as in pyproject.toml.
TORCH_TARGET_VERSION = "0x020a000000000000"
# No fused multiply-adds: every SIMD level must round alike, or ties would be broken differently.
COMPILE_FLAGS = ["-std=c++17", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]
NEEDED = "lwfm is built from source and needs a C++17 compiler: install g++ 9 or newer, or clang 10 or newer"
INSTALL_HINT = (
    "(Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; macOS: xcode-select --install), "
    "or name one in the environment variables CC and CXX."
)


def fail(message: str) -> None:
    """Stop the build with one message instead of a traceback."""
    raise SystemExit(f"\nerror: {message}\n")


def torch_folders() -> tuple[list[str], list[str]]:
    """Return the include and library folders of the torch that is built against."""
    try:
        import torch
    except ImportError:
        fail(
            "torch is not installed in the environment that builds lwfm. Install torch>=2.10 first, "
            "or leave out --no-build-isolation so that pip fetches it for the build."
        )
    root = Path(torch.__file__).parent
    include = root / "include"
    if not (include / "torch" / "csrc" / "stable" / "library.h").exists():
        fail(f"torch {torch.__version__} has no stable C++ interface; lwfm needs torch>=2.10.")
    return [str(include), str(include / "torch" / "csrc" / "api" / "include")], [str(root / "lib")]


def lap_extension() -> Extension:
    """Return the NumPy module: the solver without torch."""
    try:
        import pybind11
    except ImportError:
        fail("pybind11 is not installed in the environment that builds lwfm: pip install 'pybind11>=2.13'.")
    return Extension(
        "lwfm._lap",
        sources=["csrc/python/lap_module.cpp"],
        include_dirs=["csrc", pybind11.get_include()],
        extra_compile_args=COMPILE_FLAGS,
        extra_link_args=[] if sys.platform == "darwin" else ["-pthread"],
        language="c++",
    )


def ops_extension() -> Extension:
    """Return the torch module: operators behind torch's stable ABI."""
    include_dirs, library_dirs = torch_folders()
    return Extension(
        "lwfm._ops",
        sources=sorted(str(path) for path in Path("csrc/ops").glob("*.cpp")),
        include_dirs=["csrc", *include_dirs],
        library_dirs=library_dirs,
        libraries=["torch_cpu"],
        define_macros=[("TORCH_TARGET_VERSION", TORCH_TARGET_VERSION)],
        extra_compile_args=COMPILE_FLAGS,
        language="c++",
    )


class BuildExtensions(build_ext):
    """``build_ext`` whose failures say what to install."""

    def build_extensions(self) -> None:
        """Compile, after making sure that there is a compiler."""
        compiler = getattr(self.compiler, "compiler_cxx", None) or ["c++"]
        if shutil.which(compiler[0]) is None:
            fail(f"no C++ compiler: {compiler[0]!r} was not found. {NEEDED} {INSTALL_HINT}")
        try:
            super().build_extensions()
        except (BuildError, OSError, subprocess.SubprocessError) as error:
            fail(f"compiling lwfm failed: {error}. The compiler's own message stands above. {NEEDED}.")


HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
EXTENSIONS = [lap_extension(), ops_extension()]
for extension in EXTENSIONS:
    extension.depends = HEADERS
setup(ext_modules=EXTENSIONS, cmdclass={"build_ext": BuildExtensions})
