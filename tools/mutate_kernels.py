"""Plant faults in the CUDA kernels, one at a time, and report which ones their emulated tests notice.

    python tools/mutate_kernels.py [tests/simt/mutants/assignment.toml ...] [--only TEXT]

Every fault is compiled into a copy of the sources and run under CPU emulation, first plain, then with
AddressSanitizer, then with ThreadSanitizer, until one notices: a check fails, the emulator or a sanitizer
reports, or the run does not end. A fault that none notices survives, and the exit status is 1. Under each
sanitizer that is needed the tests must first pass without a fault.
"""
# ruff: noqa: S603

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
SIMT = ROOT / "tests" / "simt"
RUNTIME = [
    SIMT / "kernels" / "core_solver.cpp",
    SIMT / "kernels" / "core_episodes.cpp",
    *(
        SIMT / "emulator" / f"{name}.cpp"
        for name in ("fiber", "grid", "matrices", "scheduler", "shared_memory", "warp")
    ),
]
FLAGS = ["-std=c++17", "-O1", "-ffp-contract=off", "-pthread", "-w"]
SANITIZERS = {
    "plain": [],
    "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "tsan": ["-fsanitize=thread"],
}
# Nothing else of the caller's environment, where CPATH, LIBRARY_PATH, TSAN_OPTIONS and the like would
# change what is compiled and what a sanitizer reports.
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0",
    "LC_ALL": "C",  # the reports that first_report looks for are in English
    **{name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ},
}
SECONDS = 120  # limit of processor time, so that a busy machine changes no verdict


@dataclass(frozen=True)
class Mutant:
    """A fault: ``old`` is replaced by ``new`` in ``file`` of csrc/cuda."""

    name: str
    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Suite:
    """A test of tests/simt, the sources of its kernels, and faults that it must notice."""

    test: str
    sources: list[str]
    mutants: list[Mutant]


def read_suite(path: Path) -> Suite:
    """Read a file of faults; the text that each replaces must occur exactly once."""
    table = tomllib.loads(path.read_text())
    mutants = [Mutant(**entry) for entry in table["mutant"]]
    for mutant in mutants:
        count = (ROOT / "csrc" / "cuda" / mutant.file).read_text().count(mutant.old)
        if count != 1:
            raise SystemExit(f"{path.name}: {mutant.name!r} fits {count} places of {mutant.file}, not one")
    return Suite(table["test"], table["sources"], mutants)


def run(command: list[str], seconds: int | None = None) -> tuple[int, str]:
    """Run a command, with a limit on its processor time -> (exit status, output)."""
    if seconds is not None:
        command = ["bash", "-c", f'ulimit -t {seconds}; exec "$@"', "bash", *command]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        check=False, env=ENVIRONMENT,
    )  # fmt: skip
    if seconds is not None and result.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return result.returncode, f"did not end within {seconds} s"
    return result.returncode, result.stdout


def compile_files(files: list[Path], sources: Path, folder: Path, flags: list[str]) -> list[str]:
    """Compile files against a copy of csrc -> their object files in ``folder``."""
    includes = [f"-I{sources}", f"-I{ROOT / 'tests'}", f"-I{SIMT / 'kernels'}"]
    folder.mkdir(parents=True, exist_ok=True)
    objects = []
    for file in files:
        target = str(folder / f"{file.stem}.o")
        command = ["g++", *FLAGS, "-DLWFM_QUICK=1", *flags, *includes, "-x", "c++", "-c", str(file)]
        status, output = run([*command, "-o", target])
        if status != 0:
            raise SystemExit(f"{file} does not compile:\n{output}")
        objects.append(target)
    return objects


def includes_file(test: Path, name: str) -> bool:
    """Return whether a test includes a file of csrc/cuda and must be recompiled with its fault."""
    folders = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests'}", f"-I{SIMT / 'kernels'}"]
    status, output = run(["g++", "-std=c++17", "-MM", *folders, str(test)])
    if status != 0:
        raise SystemExit(f"the headers of {test} cannot be listed:\n{output}")
    return f"/cuda/{name}" in output


class Bench:
    """Compile and run a test with or without a fault; objects that no fault changes are kept in ``built``."""

    def __init__(self, suite: Suite, built: Path) -> None:
        self.suite = suite
        self.built = built
        self.test = SIMT / "kernels" / f"{suite.test}.cpp"
        self._sound: set[str] = set()
        self._lock = Lock()

    def verdict(self, mutant: Mutant) -> str:
        """Return what notices a fault; the empty string if nothing does."""
        with copied_sources(mutant) as sources:
            for kind in SANITIZERS:
                self._check_without_fault(kind)
                if complaint := self._run(kind, sources, mutant):
                    return complaint
        return ""

    def _check_without_fault(self, kind: str) -> None:
        """Exit if the test fails without a fault; checked once per sanitizer."""
        with self._lock:
            if kind not in self._sound:
                with copied_sources(None) as sources:
                    if complaint := self._run(kind, sources, None):
                        raise SystemExit(f"{self.suite.test} fails without a fault: {complaint}")
                self._sound.add(kind)

    def _run(self, kind: str, sources: Path, mutant: Mutant | None) -> str:
        """Compile, link and run under one sanitizer -> its first complaint, empty if there is none."""
        flags = SANITIZERS[kind]
        changed = [sources / "cuda" / source for source in self.suite.sources]
        if mutant is not None and includes_file(self.test, mutant.file):
            changed.append(self.test)
        objects = compile_files(changed, sources, sources.parent / kind, flags)
        if self.test not in changed:
            objects.append(self._compiled_test(kind))
        program = str(sources.parent / f"{kind}.out")
        runtime = [str(path) for path in (self.built / "runtime").iterdir()]
        status, output = run(["g++", "-pthread", *flags, *objects, *runtime, "-o", program])
        if status != 0:
            raise SystemExit(output)
        status, output = run([program], SECONDS)
        return f"{kind}: {first_report(output)}" if status != 0 else ""

    def _compiled_test(self, kind: str) -> str:
        """Return the object file of the test, compiled in the run without a fault."""
        kept = self.built / self.suite.test / kind
        if not kept.exists():
            compile_files([self.test], ROOT / "csrc", kept, SANITIZERS[kind])
        return str(kept / f"{self.suite.test}.o")


@contextmanager
def copied_sources(mutant: Mutant | None) -> Iterator[Path]:
    """Yield a copy of csrc with a fault planted."""
    with tempfile.TemporaryDirectory() as name:
        sources = Path(name) / "csrc"
        shutil.copytree(ROOT / "csrc", sources)
        if mutant is not None:
            file = sources / "cuda" / mutant.file
            file.write_text(file.read_text().replace(mutant.old, mutant.new))
        yield sources


def first_report(output: str) -> str:
    """Return the first line that names an error."""
    words = ("ERROR:", "WARNING:", "what()", "failed:", "runtime error", "did not end")
    lines = [line.strip() for line in output.splitlines() if any(word in line for word in words)]
    return (lines or ["stopped"])[0][:110]


def main() -> int:
    """Plant the selected faults and print a verdict on each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = sorted((SIMT / "mutants").glob("*.toml"))
    parser.add_argument("files", nargs="*", type=Path, default=default, help="files of faults (default: all)")
    parser.add_argument("--only", default="", help="only faults whose name contains this text")
    parser.add_argument("--jobs", type=int, default=2, help="faults at a time (default 2)")
    options = parser.parse_args()
    if shutil.which("g++") is None:
        raise SystemExit("g++ is not on PATH: install it (Debian, Ubuntu: apt install g++)")
    survivors = total = 0
    with tempfile.TemporaryDirectory() as name:
        built = Path(name)
        compile_files(RUNTIME, ROOT / "csrc", built / "runtime", ["-O2"])
        for suite in map(read_suite, options.files):
            bench = Bench(suite, built)
            mutants = [mutant for mutant in suite.mutants if options.only in mutant.name]
            with ThreadPoolExecutor(options.jobs) as pool:
                verdicts = pool.map(bench.verdict, mutants)
                for mutant, noticed in zip(mutants, verdicts, strict=True):
                    print(f"{'noticed ' if noticed else 'SURVIVES'} {mutant.name} -- {noticed}", flush=True)
                    survivors += not noticed
                    total += 1
    print(f"{total - survivors} of {total} faults noticed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
