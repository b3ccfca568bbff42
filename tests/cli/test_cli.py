"""The command line from end to end, and what it says to a user's mistake."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from lwfm.cli import COMMANDS, main
from lwfm.cli.info import info
from lwfm.experiments.plan import read_plan
from lwfm.model import load_model
from lwfm.presets import Preset, list_presets, preset_path

TINY = ["--model.backbone", "conv4", "--model.image_size", "24", "--model.feature_size", "1"]
EPISODES = ["--episodes.way", "3", "--episodes.queries", "2", "--episodes.auxiliary_batch", "4"]
SHORT = ["--episodes.train", "2", "--episodes.validation", "4", "--epochs", "1", "--progress", "false"]


class Outcome(NamedTuple):
    """What a command returned and printed."""

    status: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run the command line in this process."""
    capsys.readouterr()
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse ends --help and usage errors so
        status = int(stop.code or 0)
    return Outcome(status, *capsys.readouterr())


@pytest.fixture(scope="module")
def trained(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny trained run."""
    out: Path = tmp_path_factory.mktemp("runs") / "tiny"
    arguments = ["train", "--out", out, "--data", "folder", "--root", tiny_images, *TINY, *EPISODES, *SHORT]
    assert main([str(argument) for argument in arguments]) == 0
    return out


def test_train_leaves_model_curves_and_logs(trained: Path) -> None:
    assert {"best.safetensors", "last.ckpt", "curves.png", "logs"} <= {
        path.name for path in trained.iterdir()
    }


def test_evaluate_prints_the_table_and_writes_the_result(
    trained: Path, tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    outcome = run(
        capsys, "evaluate", "--checkpoint", trained / "best.safetensors", "--data", "folder",
        "--root", tiny_images, "--way", "4", "--queries", "3", "--episodes", "20", "--out", result,
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    for method in ("lwfm", "base", "matching", "nearest_class_mean"):
        assert method in outcome.out
    assert json.loads(result.read_text())["options"]["ways"] == [4]


def test_evaluate_takes_several_ways_and_heads(
    trained: Path, tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = tmp_path / "result.json"
    outcome = run(
        capsys, "evaluate", "--checkpoint", trained / "best.safetensors", "--data", "folder",
        "--root", tiny_images, "--way", "[3, 5]", "--queries", "2", "--episodes", "5", "--out", result,
        "--heads", "{no LWE: {attention_temperature: null}, averaged: {top_k: null, layer_reduction: mean}}",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    rows = [line.split() for line in outcome.out.splitlines()[2:]]
    assert [row[0] for row in rows] == ["3"] * 6 + ["5"] * 6
    assert sum("averaged" in row for row in rows) == 2
    assert json.loads(result.read_text())["options"]["heads"]["no LWE"] == {"attention_temperature": None}
    refused = run(capsys, "evaluate", "--heads", "{a: {topk: 3}}")
    assert refused.status == 2
    assert "topk" in refused.err


def test_data_inspect_says_what_a_folder_holds(tiny_images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, "data", "inspect", tiny_images)
    assert outcome.status == 0, outcome.err
    assert "7 (unknown)" in outcome.out
    assert outcome.out.endswith("expected:\nnothing\n")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_match_draws(
    trained: Path, tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    images = [tiny_images / "test" / "test-0" / f"{number}.png" for number in (0, 1)]
    figure = tmp_path / f"match.{suffix}"
    outcome = run(capsys, "match", *images, "--checkpoint", trained / "best.safetensors", "--out", figure)
    assert outcome.status == 0, outcome.err
    assert figure.stat().st_size > 1000
    assert str(figure) in outcome.out


def test_info_says_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, "info")
    assert outcome.status == 0
    for word in (info().version, "torch", "CUDA kernels", "simd", "threads"):
        assert word in outcome.out


def test_help_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--help"]):
        outcome = run(capsys, *arguments)
        assert outcome.status == 0
        assert all(command in outcome.out for command in COMMANDS)
        assert "lwfm train --preset" in outcome.out


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_explains_every_option(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, *command.split(), "--help")
    assert outcome.status == 0
    assert COMMANDS[command].summary in outcome.out
    for option in outcome.out.split("\n  --")[1:]:
        name, _, text = option.partition(" ")
        assert len(text.split()) > 2, f"--{name} has no explanation"


def test_config_file_and_command_line_join(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("epochs: 3\nmodel:\n  backbone: conv4\n")
    outcome = run(capsys, "train", "--config", config, "--out", tmp_path, "--epochs", "5", "--print_config")
    assert outcome.status == 0
    assert "epochs: 5" in outcome.out
    assert "backbone: conv4" in outcome.out


@pytest.mark.parametrize("preset", list_presets(), ids=lambda preset: str(preset.name))
def test_shipped_configurations_are_valid(
    preset: Preset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if preset.command == "experiment":
        assert read_plan(Path(preset.name))[0].rows
        return
    outcome = run(capsys, preset.command, "--preset", preset.name, "--out", tmp_path, "--print_config")
    assert outcome.status == 0, outcome.err


def test_options_override_a_file_and_a_file_a_preset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("optim:\n  momentum: 0.5\n  decay: 0.5\n")
    out = run(
        capsys, "train", "--optim.decay", "0.25", "--config", config, "--preset=recommended", "--out",
        tmp_path, "--print_config",
    ).out  # fmt: skip
    assert [word in out for word in ("decay: 0.25", "momentum: 0.5", "merge_shots: true")] == [True] * 3


def test_evaluate_takes_the_network_of_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--preset", "recommended", "--model.weights", "none", "--print_config"]
    outcome = run(capsys, "evaluate", *arguments)
    assert outcome.status == 0, outcome.err
    assert "merge_shots: true" in outcome.out
    assert "data: emoji" in outcome.out  # not that of the preset


def test_presets_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    listed = run(capsys, "presets").out
    assert all(f"  {preset.name} " in listed and preset.summary in listed for preset in list_presets())
    assert run(capsys, "presets", "paper").out == preset_path("paper").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--episode", "5"], "episode"),
        (["train", "--out", "x", "--epochs", "many"], "epochs"),
        (["train", "--out", "x", "--model.color", "red"], "color"),
        (["clasify"], "did you mean classify?"),
        (["train", "--preset", "recomended", "--out", "x"], "did you mean recommended?"),
        (["train", "--preset", "ablation", "--out", "x"], "the preset ablation is for lwfm experiment"),
        (["train"], "out"),
        (["evaluate", "--checkpoint", "missing.safetensors"], "missing.safetensors"),
        (["evaluate", "--data", "folder", "--root", "missing-folder"], "missing-folder"),
        (["evaluate", "--model.backbone", "resnet19"], "resnet19"),
        (["match", "a.jpg", "b.jpg"], "--checkpoint"),
        (["match", "a.jpg", "b.jpg", "--model.backbone", "conv4"], "a.jpg"),
        (["train", "--config", "missing.yaml", "--out", "x"], "missing.yaml"),
        (["data", "inspect", "nowhere"], "there is no folder nowhere. Place there:"),
        (["evaluate", "--data", "cub", "--root", "."], "CUB_200_2011"),
        (["train", "--out", "x", "--seed", "-1"], "seed must be a whole number from 0 to 4294967295, not -1"),
        (["pretrain", "--out", "x", "--seed", "4294967296"], "from 0 to 4294967295, not 4294967296"),
        (["evaluate", "--seed", "-1"], "seed must be a whole number from 0 to 4294967295, not -1"),
        (["train", "--out", "x", "--workers", "-1"], "workers must be at least 0, not -1"),
        (["evaluate", "--workers", "-1"], "workers must be at least 0, not -1"),
        (["experiment", "ablation", "--workers", "-1"], "workers must be at least 0, not -1"),
        (["train", "--out", "x"], "with 1 as support, give --preset emoji, or --episodes.queries 5 at most"),
        (["pretrain", "--out", "x"], "with 1 as support, give --validation.queries 5 at most, not 15"),
        (["evaluate", "--shot", "[1, 5]"], "with 5 as support, give --queries 1 at most, not 15"),
        (["train", "--out", "x", "--epochs", "null"], "--epochs null trains as long as --max_time allows"),
        (["evaluate", "--data", "folder"], "--data folder needs --root"),
        (["import", "nope.pth", "--out", "x.safetensors"], "there is no checkpoint nope.pth"),
        (["report", "r.json", "--out", "r.pdf"], "--out must end in .html, not r.pdf"),
    ],
    ids=[
        "unknown-option", "wrong-type", "unknown-model-option", "unknown-command",
        "unknown-preset", "preset-of-another-command", "missing-option",
        "missing-checkpoint", "missing-folder", "unknown-backbone", "match-without-network",
        "missing-image", "missing-config", "inspect-nothing", "no-birds",
        "negative-seed", "large-seed", "evaluation-seed", "workers", "evaluation-workers",
        "experiment-workers", "train-alone", "pretrain-alone", "evaluate-alone", "endless", "no-root",
        "import-nothing", "report-as-pdf",
    ],
)  # fmt: skip
def test_mistakes_end_in_a_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(capsys, *arguments)
    assert outcome.status == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_training_is_no_model(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = run(capsys, "evaluate", "--checkpoint", trained / "last.ckpt")
    assert outcome.status == 2
    assert f"the model is in {trained / 'best.safetensors'}" in outcome.err


def test_too_few_images_and_unreadable_ones_are_named(
    tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "images"
    shutil.copytree(tiny_images, root)
    common = ["--data", "folder", "--root", root, *TINY]
    outcome = run(capsys, "evaluate", *common, "--way", "3", "--queries", "9", "--episodes", "2")
    assert outcome.status == 2
    assert "test-0" in outcome.err
    (root / "test" / "test-1" / "0.png").write_bytes(b"no image")
    few = [*common, "--way", "3", "--queries", "2", "--episodes", "2"]
    outcome = run(capsys, "evaluate", *few)
    assert outcome.status == 2
    assert str(Path("test-1") / "0.png") in outcome.err
    outcome = run(capsys, "evaluate", *few, "--unreadable", "skip")
    assert outcome.status == 0, outcome.err
    assert "test-1" in outcome.err


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "lwfm.cli.parser", raising=False)
    monkeypatch.setitem(sys.modules, "jsonargparse", None)  # makes its import fail as if not installed
    outcome = run(capsys, "info")
    assert outcome.status == 2
    assert "jsonargparse" in outcome.err
    assert "lwfm[train]" in outcome.err


def test_ctrl_c_stops_training_and_leaves_whole_files(tiny_images: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "--out", out, "--data", "folder", "--root", tiny_images, *TINY, *EPISODES, *SHORT]
    arguments[arguments.index("--epochs") + 1] = "10000"
    process = subprocess.Popen(
        [sys.executable, "-m", "lwfm", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 120
        while not (out / "last.ckpt").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "resume" in err
    assert not list(out.rglob("*.part*"))
    assert torch.load(out / "last.ckpt", weights_only=True)["epoch"] >= 0
    assert load_model(out / "best.safetensors").config.backbone == "conv4"
