"""Whether and how the CUDA kernels are built; used by setup.py.

They are built where torch was built for CUDA and a toolkit of the same major version is at hand. Kernels
are compiled by nvcc alone and know nothing of torch; their objects, with CUDA's runtime, are linked into
the extension, which therefore loads on machines without a GPU or a CUDA library.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# From Turing to Blackwell; 8.6 and 8.9 run the code of 8.0 as it is. Newer GPUs compile the PTX of the last
# one.
DEFAULT_ARCHITECTURES = "7.5 8.0 9.0 10.0 12.0+PTX"
# A register that is spilled to memory is an error: kernels are written to fit.
NVCC_FLAGS = ["-std=c++17", "-O3", "-Icsrc", "-Xptxas", "-warn-spills,-Werror"]
# Files that take nvcc longest.
SLOWEST = ("correlation", "embedding_weights", "pixel_matching")
HOST_FLAGS = ["-Xcompiler", "-fPIC,-fvisibility=hidden"]


class CudaError(Exception):
    """CUDA kernels were asked for, and cannot be built."""


@dataclass(frozen=True)
class Toolkit:
    """An nvcc with the libraries that belong to it."""

    nvcc: Path
    runtime_folder: Path  # holds libcudart_static.a
    release: tuple[int, int]
    architectures: tuple[int, ...]  # 75 for compute capability 7.5


@dataclass(frozen=True)
class Decision:
    """Build the kernels with ``toolkit``, or, where that is None, do not; and why."""

    toolkit: Toolkit | None
    reason: str


def output_of(command: Sequence[str | Path]) -> str:
    """Return what a command prints, on either stream; nothing if it cannot run."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout + result.stderr


def inspect_nvcc(nvcc: Path) -> Toolkit | None:
    """Return the toolkit of an nvcc, or None if it is not whole.

    The folder is what nvcc itself says: the one on the path may be a link or a script that calls another.
    """
    release = re.search(r"release (\d+)\.(\d+)", output_of([nvcc, "--version"]))
    top = re.search(r"^#\$ TOP=(.+)$", output_of([nvcc, "--dryrun", "-c", "none.cu"]), re.MULTILINE)
    if release is None or top is None:
        return None
    root = Path(top[1].strip()).resolve()
    folders = [root / "lib64", root / "lib", *sorted(root.glob("targets/*/lib"))]
    runtime = next((folder for folder in folders if (folder / "libcudart_static.a").exists()), None)
    if runtime is None:
        return None
    listed = re.findall(r"compute_(\d+)$", output_of([nvcc, "--list-gpu-arch"]), re.MULTILINE)
    architectures = tuple(sorted(int(number) for number in listed))
    return Toolkit(nvcc, runtime, (int(release[1]), int(release[2])), architectures)


def candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where an nvcc may be, the likeliest first."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if environment.get(variable):
            yield Path(environment[variable], "bin", "nvcc")
    on_path = shutil.which("nvcc", path=environment.get("PATH"))
    if on_path is not None:
        yield Path(on_path)
    yield Path("/usr/local/cuda/bin/nvcc")


def find_toolkit(environment: Mapping[str, str]) -> Toolkit | None:
    """Return the first whole toolkit, or None."""
    return next((toolkit for nvcc in candidates(environment) if (toolkit := inspect_nvcc(nvcc))), None)


def obstacle(torch_cuda: str | None, toolkit: Toolkit | None) -> str | None:
    """Say why the kernels cannot be built for a torch built for CUDA ``torch_cuda``; None if they can."""
    if torch_cuda is None:
        return "this torch is a CPU-only build"
    if toolkit is None:
        return f"no nvcc with libcudart_static.a was found (torch is for CUDA {torch_cuda})"
    if toolkit.release[0] != int(torch_cuda.split(".")[0]):
        release = "{}.{}".format(*toolkit.release)
        return f"nvcc is of CUDA {release}, but torch is for CUDA {torch_cuda}"
    return None


def decide(environment: Mapping[str, str], torch_cuda: str | None, toolkit: Toolkit | None) -> Decision:
    """Weigh the environment variable LWFM_CUDA, torch and the toolkit.

    Raises
    ------
    CudaError
        ``LWFM_CUDA=1``, and the kernels cannot be built; or the variable is neither 0 nor 1.
    """
    wish = environment.get("LWFM_CUDA", "")
    if wish not in ("", "0", "1"):
        raise CudaError(f"LWFM_CUDA must be 0 (no CUDA kernels) or 1 (an error if impossible), got {wish!r}")
    if wish == "0":
        return Decision(None, "LWFM_CUDA=0")
    reason = obstacle(torch_cuda, toolkit)
    if wish == "1" and reason is not None:
        raise CudaError(f"LWFM_CUDA=1 asks for the CUDA kernels, but {reason}")
    if reason is not None or toolkit is None:
        return Decision(None, str(reason))
    return Decision(toolkit, f"torch and nvcc are both of CUDA {toolkit.release[0]}")


def parse_architectures(text: str, known: Sequence[int]) -> tuple[list[int], list[int]]:
    """Read a TORCH_CUDA_ARCH_LIST -> (architectures of machine code, architectures of PTX).

    Raises
    ------
    CudaError
        An entry is not of the form 8.6 or 8.6+PTX, or nvcc does not know it.
    """
    machine, virtual = set(), set()
    for entry in re.split(r"[\s;,]+", text.strip()):
        match = re.fullmatch(r"(\d+)\.(\d)(\+PTX)?", entry)
        if match is None:
            raise CudaError(f"TORCH_CUDA_ARCH_LIST: {entry!r} is not of the form 8.6 or 8.6+PTX")
        number = int(match[1] + match[2])
        if number not in known:
            raise CudaError(f"TORCH_CUDA_ARCH_LIST: this nvcc does not compile for {entry!r}, only {known}")
        machine.add(number)
        if match[3]:
            virtual.add(number)
    return sorted(machine), sorted(virtual)


def architectures_of(environment: Mapping[str, str], toolkit: Toolkit) -> tuple[list[int], list[int]]:
    """Return what to compile for: TORCH_CUDA_ARCH_LIST, or those of the default that nvcc knows."""
    wanted = environment.get("TORCH_CUDA_ARCH_LIST", "").strip()
    if wanted:
        return parse_architectures(wanted, toolkit.architectures)
    numbers = {int(entry.removesuffix("+PTX").replace(".", "")) for entry in DEFAULT_ARCHITECTURES.split()}
    machine = sorted(numbers & set(toolkit.architectures))
    return machine, machine[-1:]


def describe(toolkit: Toolkit, machine: Sequence[int], virtual: Sequence[int]) -> str:
    """Return the line that the build prints and ``lwfm info`` shows."""
    targets = [f"sm_{number}" for number in machine] + [f"compute_{number}" for number in virtual]
    return f"{' '.join(targets)} (nvcc {'.'.join(map(str, toolkit.release))})"


def nvcc_command(toolkit: Toolkit, machine: Sequence[int], virtual: Sequence[int]) -> list[str]:
    """Return the command that compiles a file, without the file."""
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in machine]
    targets += [f"-gencode=arch=compute_{number},code=compute_{number}" for number in virtual]
    return [str(toolkit.nvcc), *NVCC_FLAGS, *HOST_FLAGS, *targets, "-c"]


def job_count(environment: Mapping[str, str]) -> int:
    """Return how many compilers run at once: MAX_JOBS as in torch's builds, else one for each processor."""
    wanted = environment.get("MAX_JOBS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compile_kernels(command: Sequence[str], folder: Path, jobs: int) -> list[str]:
    """Compile every csrc/cuda/*.cu into ``folder``, where that is not done yet -> the object files.

    ``jobs`` files are compiled at once, those that take longest first; where there are fewer files, several
    architectures of a file.

    Raises
    ------
    CudaError
        nvcc has refused a file; its message stands above.
    """
    headers = [*Path("csrc", "cuda").glob("*.*h"), *Path("csrc", "core").rglob("*.h")]
    newest_header = max(header.stat().st_mtime for header in headers)
    digest = hashlib.sha256(shlex.join(command).encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    targets = {
        source: folder / f"{source.stem}-{digest}.o" for source in sorted(Path("csrc", "cuda").glob("*.cu"))
    }
    stale = [
        source
        for source, target in targets.items()
        if not target.exists() or target.stat().st_mtime <= max(newest_header, source.stat().st_mtime)
    ]
    stale.sort(key=lambda source: not source.stem.startswith(SLOWEST))
    threads = max(1, jobs // max(1, len(stale)))
    failed: list[Path] = []
    with ThreadPoolExecutor(jobs) as pool:
        compiled = [
            pool.submit(
                _compile_kernel, [*command, "--threads", str(threads)], source, targets[source], failed
            )
            for source in stale
        ]
    for future in compiled:
        future.result()  # what went wrong besides nvcc's own errors
    if failed:
        raise CudaError(
            f"nvcc cannot compile {failed[0]}; its message stands above. LWFM_CUDA=0 builds without CUDA"
        )
    return [str(target) for target in targets.values()]


def _compile_kernel(command: Sequence[str], source: Path, target: Path, failed: list[Path]) -> None:
    """Compile one file unless another has failed."""
    if failed:
        return
    partial = target.with_suffix(".partial.o")
    complete = [*command, source.as_posix(), "-o", str(partial)]
    print(shlex.join(complete), flush=True)
    if subprocess.run(complete, check=False).returncode != 0:  # noqa: S603
        failed.append(source)
        return
    partial.replace(target)
