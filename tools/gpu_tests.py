"""Run all GPU tests and GPU benchmarks, each within a time limit, and write one report.

    python tools/gpu_tests.py [--out gpu-report.md] [--steps tests memcheck matching ...]

Runs the GPU tests, a selection of them under compute-sanitizer (memory, races, synchronization), and the
benchmarks, and appends the output and exit state of each to a Markdown file. A step that fails or exceeds
its limit does not stop the others; then the exit status is 1. --list shows the steps with their limits.
"""

# ruff: noqa: S603
from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
# Kernels are up to a hundred times slower under a sanitizer: one test of each kind, no CUDA graphs.
KERNEL_TESTS = [
    "tests/ops/test_cuda_kernels.py", "tests/ops/test_cuda_episodes.py",
    "tests/ops/test_linear_assignment.py",
    "-k", "not graph and not 120x110 and not opcheck and not gradcheck", "--timeout", "0",
]  # fmt: skip
SANITIZERS = {"memcheck": 90, "racecheck": 120, "synccheck": 60, "initcheck": 60}


@dataclass(frozen=True)
class Step:
    """A command with its time limit in seconds and its heading in the report."""

    title: str
    limit: int
    command: list[str]

    def run(self) -> tuple[bool, str]:
        """Run the command -> whether it succeeded, its section of the report."""
        print(f"{self.title} (at most {self.limit} s) ...", end=" ", flush=True)
        begin = time.monotonic()
        try:
            passed, output = run_limited(self.command, self.limit)
        except OSError as error:
            passed, output = False, str(error)
        verdict = f"{'passed' if passed else 'FAILED'} in {time.monotonic() - begin:.0f} s"
        print(verdict, flush=True)
        command = " ".join(self.command)
        return passed, f"## {self.title}: {verdict}\n\n    {command}\n\n```text\n{output.strip()}\n```\n\n"


def run_limited(command: list[str], seconds: int) -> tuple[bool, str]:
    """Run a command in a process group -> whether it succeeded in time, its output."""
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            output, _ = process.communicate(timeout=seconds)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            output, _ = process.communicate()
            return False, f"{output}\nstopped after {seconds} s"
        return process.returncode == 0, output


def all_steps(sanitizer: str) -> dict[str, Step]:
    """Return every step by name, the shortest first."""
    lwfm = [PYTHON, "-m", "lwfm"]
    head = [PYTHON, "-m", "benchmarks.speed.bench_matching", "--device", "cuda", "--threads", "1"]
    steps = {
        "machine": Step("Machine", 20, ["nvidia-smi"]),
        "build": Step("Build", 60, [*lwfm, "info"]),
        "tests": Step("GPU tests", 150, [*PYTEST, "tests"]),
        "assignment": Step("Assignment benchmark", 150, [*lwfm, "bench", "assignment", "--device", "cuda"]),
        "matching": Step("Head benchmark", 100, [*head, "--forms", "expressions", "head, CUDA graph"]),
        "products": Step(
            "Head benchmark: published form, einsum, cdist, compiled expressions",
            180,
            [*head, "--cases", "5x5xF3"],
        ),
        "evaluation": Step(
            "Evaluation benchmark",
            120,
            [PYTHON, "-m", "benchmarks.speed.bench_evaluation", "--device", "cuda"],
        ),
    }
    for tool, limit in SANITIZERS.items():
        command = [sanitizer, "--tool", tool, "--error-exitcode", "1", *PYTEST, *KERNEL_TESTS]
        steps[tool] = Step(f"compute-sanitizer {tool}", limit, command)
    return steps


def main() -> int:
    """Run the selected steps."""
    steps = all_steps(shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-report.md"), help="report file (%(default)s)")
    parser.add_argument(
        "--steps", nargs="+", choices=steps, default=list(steps), help="steps to run (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="list the steps and their time limits")
    options = parser.parse_args()
    if options.list:
        print(
            "\n".join(
                f"{name:<12} {step.limit:>4} s  {' '.join(step.command)}" for name, step in steps.items()
            )
        )
        return 0
    failed = []
    with options.out.open("w") as report:
        report.write("# GPU test run\n\n")
        for name in options.steps:
            passed, text = steps[name].run()
            report.write(text)
            report.flush()
            if not passed:
                failed.append(steps[name].title)
    print(f"{options.out}: " + (f"failed: {', '.join(failed)}" if failed else "all steps passed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
