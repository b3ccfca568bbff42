"""Build, test and time everything on a GPU within minutes, and write one report.

    python tools/gpu_day.py [--minutes 9] [--out gpu-report] [--steps build tests head ...] [--wheels FOLDER]

Builds for the GPU at hand, runs the GPU tests, a selection of them under compute-sanitizer (memory, races,
synchronization), and the benchmarks. Each step has a limit of its own, and all of them together have
--minutes. Results are kept in OUT.json after every step and written as OUT.md; the same command once more
runs only what has not ended yet (--again runs steps anew). A step that fails or is cut does not stop the
others. The exit status is 1 if one failed; a limit that cuts a step, or a slow one, is no failure. --list
shows the steps with their limits, in the order in which they run.
"""

# ruff: noqa: S603
from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable
SITE = ROOT / "build" / "gpu-site"
PYTEST = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "gpu"]
# Kernels are up to a hundred times slower under a sanitizer: one test of each kind, no CUDA graphs.
KERNEL_TESTS = [
    "tests/ops/test_cuda_kernels.py", "tests/ops/test_cuda_episodes.py",
    "tests/ops/test_linear_assignment.py",
    "-k", "not graph and not 120x110 and not opcheck and not gradcheck", "--timeout", "0",
]  # fmt: skip
SANITIZERS = {"memcheck": 90, "racecheck": 120, "synccheck": 60, "initcheck": 60}
PASSED, FAILED, CUT, NOT_RUN = "passed", "failed", "cut by a limit", "not run: no time was left"

BUILD = """
import os, subprocess, sys, torch
capability = ".".join(map(str, torch.cuda.get_device_capability()))
environment = {**os.environ, "TORCH_CUDA_ARCH_LIST": capability, "LWFM_CUDA": "1"}
command = [sys.executable, "setup.py", "build_ext", "--inplace"]
sys.exit(subprocess.run(command, env=environment).returncode)
"""


@dataclass(frozen=True)
class Step:
    """A command with its limit in seconds and its heading in the report."""

    title: str
    limit: int
    command: list[str]


@dataclass(frozen=True)
class Result:
    """What became of a step."""

    title: str
    command: str
    state: str
    seconds: float
    output: str


def run(step: Step, seconds: float) -> Result:
    """Run a step for at most so many seconds."""
    print(f"{step.title} (at most {seconds:.0f} s) ...", end=" ", flush=True)
    begin = time.monotonic()
    try:
        state, output = run_limited(step.command, seconds)
    except OSError as error:
        state, output = FAILED, str(error)
    elapsed = time.monotonic() - begin
    print(f"{state} after {elapsed:.0f} s", flush=True)
    command = " ".join(part if "\n" not in part else "..." for part in step.command)
    return Result(step.title, command, state, round(elapsed, 1), output.strip())


def run_limited(command: list[str], seconds: float) -> tuple[str, str]:
    """Run a command in a process group; return how it ended and its output."""
    path = os.pathsep.join(filter(None, [str(ROOT), str(SITE), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "TQDM_DISABLE": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}
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
            return CUT, output
        return (PASSED if process.returncode == 0 else FAILED), output


def all_steps(sanitizer: str, wheels: Path | None) -> dict[str, Step]:
    """Return every step by name, in the order in which they run."""
    lwfm = [PYTHON, "-m", "lwfm"]

    def benchmark(name: str, *options: str) -> list[str]:
        return [PYTHON, "-m", f"benchmarks.speed.{name}", "--device", "cuda", *options]

    def sanitized(tool: str) -> Step:
        command = [sanitizer, "--tool", tool, "--error-exitcode", "1", *PYTEST, *KERNEL_TESTS]
        return Step(f"compute-sanitizer {tool}", SANITIZERS[tool], command)

    head = benchmark("bench_matching", "--threads", "1")
    graphed = ["--forms", "head, CUDA graph", "--cases"]
    pipeline = [
        "benchmarks/speed/bench_images.py",
        "--benchmark-group-by=group",
        "-k",
        "decoded or ImageFolder",
    ]
    steps = {"machine": Step("Machine", 20, ["nvidia-smi"])}
    if wheels is not None:
        install = [PYTHON, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--upgrade", "--target"]
        steps["wheels"] = Step("Wheels", 60, [*install, str(SITE), *map(str, sorted(wheels.glob("*.whl")))])
    steps |= {
        "build": Step("Build for this GPU alone", 240, [PYTHON, "-c", BUILD]),
        "info": Step("Build as lwfm sees it", 30, [*lwfm, "info"]),
        "tests": Step("GPU tests", 150, [*PYTEST, "tests"]),
        "memcheck": sanitized("memcheck"),
        "head": Step("Head: eager, CUDA graph, products", 60, [*head, *graphed, "5x5xF3"]),
        "head_tf32": Step("Head with TF32", 60, [*head, "--tf32", *graphed, "5x5xF3"]),
        "evaluation": Step("Evaluation, end to end", 90, benchmark("bench_evaluation")),
        "training_resnet12": Step(
            "Training step of ResNet-12", 60, benchmark("bench_training", "--backbone", "resnet12")
        ),
        "training_resnet18": Step("Training step of ResNet-18", 60, benchmark("bench_training")),
        "assignment": Step("Assignments", 150, [*lwfm, "bench", "assignment", "--device", "cuda"]),
        "images": Step(
            "Images per second of the input pipeline",
            60,
            [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", *pipeline],
        ),
        "head_sizes": Step("Head: other episodes", 90, [*head, *graphed, "20x5xF3", "5x5xF5", "20x5xF5"]),
        "head_forms": Step(
            "Head: published form, einsum, cdist, compiled expressions", 180, [*head, "--cases", "5x5xF3"]
        ),
    }  # fmt: skip
    return steps | {tool: sanitized(tool) for tool in SANITIZERS if tool != "memcheck"}


class Report:
    """Results by step, kept in a JSON file and written as Markdown after each step."""

    def __init__(self, out: Path) -> None:
        self.json, self.markdown = out.with_suffix(".json"), out.with_suffix(".md")
        self.results: dict[str, Result] = {}
        if self.json.exists():
            stored = json.loads(self.json.read_text())
            self.results = {name: Result(**result) for name, result in stored["steps"].items()}

    def has_ended(self, name: str) -> bool:
        """Return whether a step has passed or failed before, rather than been cut."""
        return name in self.results and self.results[name].state in (PASSED, FAILED)

    def add(self, name: str, result: Result) -> None:
        """Add the result of a step and write both files whole."""
        self.results[name] = result
        stored = {name: asdict(each) for name, each in self.results.items()}
        date = datetime.now(UTC).isoformat(timespec="seconds")
        commit = describe_commit()
        content = json.dumps({"date": date, "commit": commit, "steps": stored}, indent=1)
        lines = [f"# GPU run of {date}, commit {commit}\n"]
        for each in self.results.values():
            lines.append(f"## {each.title}: {each.state}, {each.seconds:.0f} s\n")
            lines.append(f"    {each.command}\n\n```text\n{each.output}\n```\n")
        for path, text in ((self.json, content), (self.markdown, "\n".join(lines))):
            temporary = path.with_name(path.name + ".new")
            temporary.write_text(text)
            temporary.replace(path)


def describe_commit() -> str:
    """Return the commit of the work tree, "unknown" outside a repository."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "describe", "--always", "--dirty"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def run_steps(steps: dict[str, Step], report: Report, seconds: float, *, again: bool) -> None:
    """Run the steps that have not ended, within so many seconds in all."""
    end = time.monotonic() + seconds
    for name, step in steps.items():
        if report.has_ended(name) and not again:
            print(f"{step.title}: {report.results[name].state} before")
            continue
        left = end - time.monotonic()
        if left < 5:
            print(f"{step.title}: {NOT_RUN}")
            report.add(name, Result(step.title, " ".join(step.command), NOT_RUN, 0.0, ""))
        else:
            report.add(name, run(step, min(step.limit, left)))


def main() -> int:
    """Run the selected steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="time of all steps (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("gpu-report"), help="report (%(default)s.{md,json})")
    parser.add_argument("--steps", nargs="+", metavar="STEP", help="steps to run (default: all)")
    parser.add_argument("--again", action="store_true", help="run steps anew that have ended before")
    parser.add_argument(
        "--wheels",
        type=Path,
        metavar="FOLDER",
        help="wheels to install first, into build/gpu-site",
    )
    parser.add_argument("--list", action="store_true", help="list the steps and their limits")
    options = parser.parse_args()
    sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    steps = all_steps(sanitizer, options.wheels)
    if options.list:
        for name, step in steps.items():
            print(f"{name:<18} {step.limit:>4} s  {step.title}")
        return 0
    if unknown := [name for name in options.steps or [] if name not in steps]:
        parser.error(f"unknown step {unknown[0]}; the steps are {', '.join(steps)}")
    if not options.minutes > 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    chosen = {name: step for name, step in steps.items() if name in (options.steps or steps)}
    report = Report(options.out)
    run_steps(chosen, report, 60 * options.minutes, again=options.again)
    failed = [each.title for name, each in report.results.items() if name in chosen and each.state == FAILED]
    print(f"{report.markdown}: " + (f"failed: {', '.join(failed)}" if failed else "no step failed"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
