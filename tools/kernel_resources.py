"""Write docs/kernels.md: registers, shared memory and occupancy of every CUDA kernel.

    python tools/kernel_resources.py

Compiles the kernels with the toolkit that the build would use, for architectures from Turing to Blackwell,
and reads what ptxas reports. No GPU is needed; a register that is spilled to memory is an error.
"""
# ruff: noqa: S101, S603

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
import setup_cuda  # noqa: E402

REGISTERS_OF_SM = 65536
REGISTER_UNIT = 256  # allocation granularity per warp


@dataclass(frozen=True)
class Limits:
    """Capacity of a multiprocessor (CUDA C++ Programming Guide, compute capabilities)."""

    warps: int
    blocks: int
    shared_kilobytes: int


LIMITS = {
    75: Limits(32, 16, 64),
    80: Limits(64, 32, 164),
    86: Limits(48, 16, 100),
    89: Limits(48, 24, 100),
    90: Limits(64, 32, 228),
    100: Limits(64, 32, 228),
    120: Limits(48, 24, 100),
}

HEADER = """# Registers and occupancy

    python tools/kernel_resources.py

writes this table from the report of ptxas. Each cell: registers per thread, bytes of static shared memory,
and the occupancy (resident warps over the multiprocessor's maximum) that registers, block size and static
shared memory allow; the dynamic shared memory of a launch, which depends on its shape, can lower it (at most
48 KiB per block). The last number of a `Tile` is 0 for products as accurate as float32, 1 for TF32. No kernel
spills registers: the build fails if one does. Times are in [Using a GPU](cuda.md#measured-on-an-h100).

"""


@dataclass(frozen=True)
class Usage:
    """One kernel on one architecture."""

    registers: int
    shared: int
    threads: int  # the largest block

    def occupancy(self, limits: Limits) -> float:
        """Return resident warps over the maximum, 0 to 1."""
        warps = -(-self.threads // 32)
        of_warp = -(-self.registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
        blocks = min(limits.blocks, limits.warps // warps, REGISTERS_OF_SM // of_warp // warps)
        if self.shared:
            blocks = min(blocks, limits.shared_kilobytes * 1024 // (self.shared + 1024))
        return blocks * warps / limits.warps


def compiler_output(command: list[str]) -> str:
    """Run nvcc in the repository -> its output; exit with it if nvcc fails."""
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(result.stdout + result.stderr)
    return result.stdout + result.stderr


def readable(names: list[str]) -> dict[str, str]:
    """Map mangled names to readable ones without namespace, arguments and return type."""
    text = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True).stdout  # noqa: S607
    plain = [re.sub(r"\([\w:]+\)(?=\d)", "", line) for line in text.splitlines()]  # values of enumerations
    short = [re.sub(r"^void |lwfm::|\(.*$", "", line) for line in plain]
    return dict(zip(names, short, strict=True))


def block_sizes(nvcc: str, source: Path) -> dict[str, int]:
    """Return the launch bound of every kernel of a file."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "kernels.ptx"
        flags = ["-std=c++17", "-O3", "-Icsrc", "-arch=compute_90", "-ptx"]
        compiler_output([nvcc, *flags, str(source), "-o", str(target)])
        text = target.read_text()
    found = re.findall(r"\.entry (\w+)\([^)]*\)\s*\.maxntid (\d+)", text)
    return {name: int(threads) for name, threads in found}


def usages(nvcc: str, source: Path, architecture: int, threads: dict[str, int]) -> dict[str, Usage]:
    """Compile a file for one architecture -> usage of its kernels by mangled name."""
    target = [f"-arch=sm_{architecture}", "-Xptxas", "-v", "-c", str(source), "-o", os.devnull]
    output = compiler_output([nvcc, *setup_cuda.NVCC_FLAGS, *target])
    found = {}
    for name, report in re.findall(r"entry function '(\w+)' for .*\n(?:.*\n)*?.*?Used (.*)", output):
        registers = re.search(r"(\d+) registers", report)
        shared = re.search(r"(\d+) bytes smem", report)
        assert registers is not None
        found[name] = Usage(int(registers[1]), int(shared[1]) if shared else 0, threads[name])
    if set(found) != set(threads):
        raise SystemExit(f"{source}: every kernel needs __launch_bounds__; ptxas reports {sorted(found)}")
    return found


def table(nvcc: str, source: Path, architectures: list[int]) -> list[str]:
    """Return the lines of the table of one file; none for one without kernels."""
    threads = block_sizes(nvcc, source)
    if not threads:
        return []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        columns = list(pool.map(lambda number: usages(nvcc, source, number, threads), architectures))
    lines = [f"## {source.name}", "", "| kernel | threads |" + "".join(f" sm_{n} |" for n in architectures)]
    lines.append("| --- | --- |" + " --- |" * len(architectures))
    names = readable(sorted(threads))
    for name in sorted(threads, key=lambda mangled: names[mangled]):
        cells = [
            f"{usage.registers}, {usage.shared}, {100 * usage.occupancy(LIMITS[number]):.0f} %"
            for number, column in zip(architectures, columns, strict=True)
            if (usage := column[name])
        ]
        lines.append(f"| `{names[name]}` | {threads[name]} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def main() -> None:
    """Write the page."""
    toolkit = setup_cuda.find_toolkit(os.environ)
    if toolkit is None:
        raise SystemExit("no CUDA toolkit was found: set CUDA_HOME to its folder")
    architectures = [n for n in LIMITS if n in toolkit.architectures]
    lines: list[str] = []
    for source in sorted(ROOT.glob("csrc/cuda/**/*.cu")):
        lines += table(str(toolkit.nvcc), source.relative_to(ROOT), architectures)
    page = ROOT / "docs" / "kernels.md"
    page.write_text(HEADER + "\n".join(lines))
    print(f"wrote {page.relative_to(ROOT)}: {len(lines)} lines, CUDA {'.'.join(map(str, toolkit.release))}")


if __name__ == "__main__":
    main()
