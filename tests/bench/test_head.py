"""The benchmark of the head: forms that agree, a table, a figure, clear errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lwfm.bench.command import bench
from lwfm.bench.head_table import MatchingTimes
from lwfm.cli import main
from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def test_table_and_figure(tmp_path: Path) -> None:
    out = tmp_path / "matching.png"
    result = bench("matching", cases=("5x1xF3",), rounds=1, out=out)
    assert isinstance(result, MatchingTimes)
    assert {row.form for row in result.rows} == {"products", "head", "expressions"}
    assert all(row.seconds > 0 for row in result.rows)
    assert "GFLOP/s" in str(result)
    assert out.stat().st_size > 10_000


@pytest.mark.parametrize("options", [{"cases": ("5x5",)}, {"cases": ()}, {"threads": 0}], ids=str)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError, match=r"cases must be|threads must be"):
        bench("matching", **options)  # type: ignore[arg-type]


def test_command_names_the_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "matching", "--cases", "[9x9]"]) == 2
    assert "5x5xF3" in capsys.readouterr().err
