"""The GPU run: limits, what a second run leaves out, and its report. No step here needs a GPU."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from tools import gpu_day
from tools.gpu_day import CUT, FAILED, NOT_RUN, PASSED, Report, Step, run_steps

if TYPE_CHECKING:
    from pathlib import Path


def python(code: str, limit: int = 60) -> Step:
    return Step(f"step {code}", limit, [sys.executable, "-c", code])


def test_steps_pass_fail_or_are_cut(tmp_path: Path) -> None:
    report = Report(tmp_path / "report")
    steps = {
        "good": python("print('measured 3 ms')"),
        "bad": python("raise SystemExit('wrong answer')"),
        "slow": python("import time; print('first row', flush=True); time.sleep(60)", limit=2),
        "missing": Step("no such program", 5, ["/no/such/program"]),
    }
    run_steps(steps, report, 60, again=False)
    assert [report.results[name].state for name in steps] == [PASSED, FAILED, CUT, FAILED]
    stored = json.loads((tmp_path / "report.json").read_text())["steps"]
    assert stored["good"]["output"] == "measured 3 ms"
    assert stored["slow"]["output"] == "first row"  # what it had printed by then
    assert "wrong answer" in (tmp_path / "report.md").read_text()


def test_a_second_run_resumes(tmp_path: Path) -> None:
    steps = {"good": python("print('first')"), "slow": python("import time; time.sleep(60)", limit=1)}
    run_steps(steps, Report(tmp_path / "report"), 60, again=False)
    later = {"good": python("print('second')"), "slow": python("print('in time')")}
    report = Report(tmp_path / "report")
    run_steps(later, report, 60, again=False)
    assert [result.output for result in report.results.values()] == ["first", "in time"]
    run_steps(later, report, 60, again=True)
    assert [result.output for result in report.results.values()] == ["second", "in time"]


def test_steps_share_the_minutes(tmp_path: Path) -> None:
    report = Report(tmp_path / "report")
    steps = {"slow": python("import time; time.sleep(60)"), "late": python("print()")}
    run_steps(steps, report, 6, again=False)
    assert [result.state for result in report.results.values()] == [CUT, NOT_RUN]
    assert report.results["slow"].seconds < 20


def test_modules_and_files_of_all_steps_exist(tmp_path: Path) -> None:
    (tmp_path / "peer-1.0-py3-none-any.whl").touch()
    for step in gpu_day.all_steps("compute-sanitizer", tmp_path).values():
        for flag, word in zip(step.command, step.command[1:], strict=False):
            if flag == "-m" and word.startswith("benchmarks."):
                assert (gpu_day.ROOT / (word.replace(".", "/") + ".py")).exists()
            if word.endswith(".py"):
                assert (gpu_day.ROOT / word).exists()


def test_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_day.py", "--list"])
    assert gpu_day.main() == 0
    assert "compute-sanitizer memcheck" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["gpu_day.py", "--steps", "heed"])
    with pytest.raises(SystemExit):
        gpu_day.main()
    assert "unknown step heed; the steps are machine, build" in capsys.readouterr().err
