"""Compile source files with ninja into ``build/objects``; used by setup.py.

An object file is named after a digest of its command and its compilers' versions, so objects of several
configurations live side by side. Ninja compiles what is missing, or older than its source or one of the
headers that the compiler has listed.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path("build", "objects")
RULES = """ninja_required_version = 1.5
builddir = {folder}
rule compile
  command = $compiler -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
  description = compile $in
"""


class CompilationError(Exception):
    """A compiler has refused a file; its message is on the terminal."""


@dataclass(frozen=True)
class Compilation:
    """One object file to make.

    Attributes
    ----------
    source : Path
        The file to compile, relative to the repository.
    command : tuple of str
        Compiler and flags, without source, target and dependency options.
    versions : str
        Versions of the compilers, and of libraries whose headers are not tracked.
    """

    source: Path
    command: tuple[str, ...]
    versions: str = ""

    def target(self, folder: Path = FOLDER) -> Path:
        """Return the object file, whose name changes with the command and the versions."""
        digest = hashlib.sha256(f"{shlex.join(self.command)}\n{self.versions}".encode()).hexdigest()[:12]
        return folder / self.source.with_name(f"{self.source.stem}-{digest}.o")


def output_of(command: Sequence[str | Path]) -> str:
    """Return what a command prints, on either stream; nothing if it cannot run."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout + result.stderr


def compiler_version(command: Sequence[str]) -> str:
    """Return the version that a compile command prints.

    The whole command is asked: its first word may be a launcher such as ccache, and flags may choose the
    compiler.
    """
    return output_of([*command, "--version"])


def job_count(environment: Mapping[str, str]) -> int:
    """Return how many compilers run at once: MAX_JOBS as in torch's builds, else one for each processor."""
    wanted = environment.get("MAX_JOBS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def with_ccache(command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the command, run by ccache where ccache is installed and not yet named."""
    ccache = shutil.which("ccache", path=environment.get("PATH"))
    if ccache is None or Path(command[0]).name in ("ccache", "sccache"):
        return tuple(command)
    return (ccache, *command)


def manifest(compilations: Sequence[Compilation], folder: Path) -> str:
    """Return the text of ``build.ninja``; files are begun in the order of ``compilations``."""
    lines = [RULES.format(folder=_escaped(folder))]
    for compilation in compilations:
        target, source = _escaped(compilation.target(folder)), _escaped(compilation.source)
        command = shlex.join(compilation.command).replace("$", "$$")
        lines.append(f"build {target}: compile {source}\n  compiler = {command}\n")
    return "\n".join(lines)


def compile_all(
    compilations: Sequence[Compilation], environment: Mapping[str, str], folder: Path = FOLDER
) -> None:
    """Make every object file that is missing or out of date.

    Raises
    ------
    CompilationError
        A compiler has refused a file, or ninja is not installed.
    """
    if find_spec("ninja") is not None:
        ninja = [sys.executable, "-m", "ninja"]
    elif (on_path := shutil.which("ninja", path=environment.get("PATH"))) is not None:
        ninja = [on_path]
    else:
        raise CompilationError(
            "ninja is not installed in the environment that builds lwfm: pip install ninja"
        )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "build.ninja"
    file.write_text(manifest(compilations, folder))
    jobs = job_count(environment)
    command = [*ninja, "-f", str(file), "-j", str(jobs)]
    if subprocess.run(command, check=False, env=environment).returncode != 0:  # noqa: S603
        raise CompilationError("compiling lwfm failed; the compiler's message is above")


def _escaped(path: Path) -> str:
    """Return a path as ninja reads it."""
    return path.as_posix().replace("$", "$$").replace(":", "$:").replace(" ", "$ ")
