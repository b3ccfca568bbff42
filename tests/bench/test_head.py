"""lwfm bench matching: the forms of the head that it compares, its table, its figure, its errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lwfm.bench import bench_matching
from lwfm.cli import main
from lwfm.errors import UserError


def test_table_and_figure(tmp_path: Path) -> None:
    out = tmp_path / "matching.png"
    result = bench_matching(cases=("5x1xF3",), rounds=1, out=out)
    assert {row.form for row in result.rows} == {"products", "head", "expressions"}
    assert all(row.seconds > 0 for row in result.rows)
    assert "GFLOP/s" in str(result)
    assert out.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cases": ("5x5",)}, "cases must be"),
        ({"cases": ()}, "cases must be"),
        ({"threads": 0}, "threads must be"),
        ({"out": Path("figure.txt")}, "its suffix must be"),
    ],
    ids=["unknown-case", "no-case", "no-thread", "unknown-figure"],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        bench_matching(**options)


def test_command_names_the_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "matching", "--cases", "[9x9]"]) == 2
    assert "5x5xF3" in capsys.readouterr().err
