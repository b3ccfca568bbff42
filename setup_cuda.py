"""Decide whether, for which GPUs and with which commands the CUDA kernels are built; used by setup.py.

They are built where torch was built for CUDA and a toolkit of the same major version is installed. Kernels
are compiled by nvcc alone and include nothing of torch; their objects and CUDA's runtime are linked into
the extension, which therefore loads on machines without a GPU or a CUDA library.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from setup_objects import Compilation, output_of, with_ccache

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# From Turing to Blackwell, where torch sees no GPU; 8.6 and 8.9 run the code of 8.0 as it is. Newer GPUs
# compile the PTX of the last one.
DEFAULT_ARCHITECTURES = "7.5 8.0 9.0 10.0 12.0+PTX"
# A register that is spilled to memory is an error: kernels are written to fit.
NVCC_FLAGS = ["-std=c++17", "-O3", "-Icsrc", "-Xptxas", "-warn-spills,-Werror"]
# Files that take nvcc longest, and are therefore begun first.
SLOWEST = ("fused_episodes", "episodes", "embedding_weights", "feature_matching")
HOST_FLAGS = ["-Xcompiler", "-fPIC,-fvisibility=hidden"]


class CudaError(Exception):
    """CUDA kernels were requested but cannot be built."""


@dataclass(frozen=True)
class Toolkit:
    """An nvcc with its libraries."""

    nvcc: Path
    runtime_folder: Path  # holds libcudart_static.a
    release: tuple[int, int]
    architectures: tuple[int, ...]  # 75 for compute capability 7.5


@dataclass(frozen=True)
class Decision:
    """The toolkit to build the kernels with, None not to build them; and the reason."""

    toolkit: Toolkit | None
    reason: str


def inspect_nvcc(nvcc: Path) -> Toolkit | None:
    """Return the toolkit of an nvcc, or None if it is incomplete.

    The folder is the one that nvcc reports: the nvcc on the path may be a link, or a script that calls
    another.
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
    """Yield the places where an nvcc may be, the likeliest first."""
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if environment.get(variable):
            yield Path(environment[variable], "bin", "nvcc")
    on_path = shutil.which("nvcc", path=environment.get("PATH"))
    if on_path is not None:
        yield Path(on_path)
    yield Path("/usr/local/cuda/bin/nvcc")


def find_toolkit(environment: Mapping[str, str]) -> Toolkit | None:
    """Return the first complete toolkit, or None."""
    return next((toolkit for nvcc in candidates(environment) if (toolkit := inspect_nvcc(nvcc))), None)


def obstacle(torch_cuda: str | None, toolkit: Toolkit | None) -> str | None:
    """Return why the kernels cannot be built for a torch of CUDA ``torch_cuda``; None if they can."""
    if torch_cuda is None:
        return "this torch is a CPU-only build"
    if toolkit is None:
        return f"no nvcc with libcudart_static.a was found (torch is for CUDA {torch_cuda})"
    if toolkit.release[0] != int(torch_cuda.split(".")[0]):
        release = "{}.{}".format(*toolkit.release)
        return f"nvcc is of CUDA {release}, but torch is for CUDA {torch_cuda}"
    return None


def decide(environment: Mapping[str, str], torch_cuda: str | None, toolkit: Toolkit | None) -> Decision:
    """Decide from the environment variable LWFM_CUDA, torch and the toolkit.

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


def number_of(entry: str) -> int:
    """Return 86 for "8.6" and "8.6+PTX"."""
    return int(entry.removesuffix("+PTX").replace(".", ""))


@dataclass(frozen=True)
class Architectures:
    """Architectures that the kernels are compiled for, and the reason."""

    machine: list[int]  # machine code; 75 for compute capability 7.5
    virtual: list[int]  # PTX, which newer GPUs compile when they load it
    reason: str


def choose_architectures(
    environment: Mapping[str, str], toolkit: Toolkit, gpus: Sequence[tuple[int, int]]
) -> Architectures:
    """Choose what to compile for: TORCH_CUDA_ARCH_LIST, else the visible GPUs, else the default list.

    Parameters
    ----------
    environment : Mapping of str to str
        The process's environment.
    toolkit : Toolkit
        Its nvcc decides which architectures are possible.
    gpus : Sequence of (int, int)
        Compute capabilities of the GPUs that torch sees. They are the choice if nvcc knows all of them and
        none is older than the default list; the newest gets PTX as well, as in torch's own builds.

    Raises
    ------
    CudaError
        TORCH_CUDA_ARCH_LIST is malformed, or names an architecture that nvcc does not know.
    """
    wanted = environment.get("TORCH_CUDA_ARCH_LIST", "").strip()
    if wanted:
        return Architectures(*parse_architectures(wanted, toolkit.architectures), "TORCH_CUDA_ARCH_LIST")
    defaults = {number_of(entry) for entry in DEFAULT_ARCHITECTURES.split()}
    visible = sorted({10 * major + minor for major, minor in gpus})
    if visible and visible[0] >= min(defaults) and set(visible) <= set(toolkit.architectures):
        return Architectures(visible, visible[-1:], "the GPU of the building machine")
    machine = sorted(defaults & set(toolkit.architectures))
    reason = f"nvcc or lwfm does not know the GPU {visible}" if visible else "torch saw no GPU"
    return Architectures(machine, machine[-1:], f"default list, as {reason}")


def describe(toolkit: Toolkit, architectures: Architectures) -> str:
    """Return the line that the build prints and ``lwfm info`` shows."""
    targets = [f"sm_{number}" for number in architectures.machine]
    targets += [f"compute_{number}" for number in architectures.virtual]
    return f"{' '.join(targets)} (nvcc {'.'.join(map(str, toolkit.release))}; {architectures.reason})"


def with_threads(environment: Mapping[str, str], jobs: int) -> dict[str, str]:
    """Return the environment in which an nvcc compiles two architectures of a file at once if it may."""
    flags = environment.get("NVCC_APPEND_FLAGS", "")
    return {**environment, **({"NVCC_APPEND_FLAGS": f"{flags} --threads 2".strip()} if jobs > 1 else {})}


def kernel_compilations(
    toolkit: Toolkit, architectures: Architectures, environment: Mapping[str, str]
) -> list[Compilation]:
    """Return how each csrc/cuda/*.cu is compiled, those that take longest first."""
    targets = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in architectures.machine]
    targets += [f"-gencode=arch=compute_{number},code=compute_{number}" for number in architectures.virtual]
    command = with_ccache([str(toolkit.nvcc), *NVCC_FLAGS, *HOST_FLAGS, *targets], environment)
    added = [environment.get(f"NVCC_{name}", "") for name in ("PREPEND_FLAGS", "APPEND_FLAGS", "CCBIN")]
    host = output_of([environment.get("NVCC_CCBIN") or "g++", "--version"])
    versions = "\n".join([output_of([toolkit.nvcc, "--version"]), host, *added])
    sources = sorted(Path("csrc", "cuda").rglob("*.cu"))
    sources.sort(key=lambda source: not source.stem.startswith(SLOWEST))
    return [Compilation(source, command, versions) for source in sources]
