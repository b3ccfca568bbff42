"""Everything that waits for a GPU, in one command and one report.

python scripts/gpu_day.py [--out gpu-report.md]

Runs the GPU tests, the same kernels' tests under compute-sanitizer (memory, races, synchronisation), and the
benchmarks, and writes what each of them printed, and how it ended, to a Markdown file that grows with every
step. A step that fails does not stop the others. Exits with 1 if one failed.
"""

# ruff: noqa: S603
from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
KERNEL_TESTS = ["tests/test_cuda_kernels.py", "tests/test_correlation.py", "-m", "gpu", "-k", "not graph"]
SANITIZERS = ["memcheck", "racecheck", "synccheck", "initcheck"]
HOUR = 3600


@dataclass(frozen=True)
class Step:
    """One command and the heading it gets in the report."""

    title: str
    command: list[str]

    def run(self) -> tuple[bool, str]:
        """Return whether it succeeded, and its part of the report."""
        print(f"{self.title} ...", end=" ", flush=True)
        begin = time.monotonic()
        try:
            done = subprocess.run(
                self.command, cwd=ROOT, capture_output=True, text=True, timeout=HOUR, check=False
            )
            passed, output = done.returncode == 0, done.stdout + done.stderr
        except (OSError, subprocess.TimeoutExpired) as error:
            passed, output = False, str(error)
        verdict = f"{'passed' if passed else 'FAILED'} in {time.monotonic() - begin:.0f} s"
        print(verdict, flush=True)
        command = " ".join(self.command)
        return passed, f"## {self.title}: {verdict}\n\n    {command}\n\n```text\n{output.strip()}\n```\n\n"


def steps() -> list[Step]:
    """Return every step, the quickest to fail first."""
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    checks = [
        Step(
            f"compute-sanitizer {tool}",
            [sanitizer, "--tool", tool, "--error-exitcode", "1", *PYTEST, *KERNEL_TESTS],
        )
        for tool in SANITIZERS
    ]
    benchmarks = sorted(path.name for path in (ROOT / "benchmarks").glob("bench_*.py"))
    return [
        Step("The machine", ["nvidia-smi"]),
        Step("The build", [sys.executable, "-m", "lwfm", "info"]),
        Step("GPU tests", [*PYTEST, "-m", "gpu", "tests"]),
        *checks,
        *(Step(f"Benchmark {name}", [*PYTEST, f"benchmarks/{name}"]) for name in benchmarks),
        Step("Predicted times", [sys.executable, "scripts/predict_kernels.py"]),
    ]


def main() -> int:
    """Run all steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--out", type=Path, default=Path("gpu-report.md"), help="the report (%(default)s)")
    out = parser.parse_args().out
    failed = []
    with out.open("w") as report:
        report.write("# A day with a GPU\n\n")
        for step in steps():
            passed, text = step.run()
            report.write(text)
            report.flush()
            if not passed:
                failed.append(step.title)
    print(f"{out}: " + (f"failed: {', '.join(failed)}" if failed else "everything passed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
