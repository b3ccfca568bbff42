"""`lwfm experiment`: rows equal the results of their commands, and a stopped run resumes."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.stats

import lwfm.experiments.network
from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.evaluation.results import EvaluationResult, percent
from lwfm.evaluation.statistics import interval_over_runs
from lwfm.experiments.run import experiment
from lwfm.experiments.table import RowResult, mean_difference
from tests.helpers.experiment_plans import PLAN, write

if TYPE_CHECKING:
    from pathlib import Path

    from lwfm.experiments.table import ExperimentTable


def run(plan: Path, root: Path, out: Path, **options: Any) -> ExperimentTable:
    return experiment(plan, root=root, out=out, accelerator="cpu", progress=False, **options)


def test_rows_equal_the_results_of_their_commands(
    plan: Path, tiny_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = run(plan, tiny_images, tmp_path / "out")
    assert [(cell.row, cell.shot) for cell in table.cells] == [
        (row["name"], shot) for row in PLAN["rows"] for shot in (1, 2)
    ]
    assert {tuple(cell.seeds) for cell in table.cells} == {(0, 1)}
    text = (tmp_path / "out/table.md").read_text()
    assert json.loads((tmp_path / "out/table.json").read_text())["cells"][0]["row"] == "LWFM-SPM"
    rows = [json.loads(file.read_text()) for file in (tmp_path / "out/rows").iterdir()]
    assert len(rows) == 4 * 2 * 2
    for row in rows:
        result = tmp_path / "again.json"
        words = shlex.split(row["evaluate"])
        assert main([*words[1:], "--out", str(result)]) == 0
        again = EvaluationResult.from_json(result.read_text()).of(row["method"], row["shot"])
        assert list(again.episode_accuracy) == row["accuracies"]
        if row["seed"] == 0:
            assert row["evaluate"] in text
            assert row["train"] in text
    (train,) = {row["train"] for row in rows if row["network"] == "paper" and row["seed"] == 0}
    words = shlex.split(train)
    trained = words[words.index("--out") + 1]
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert main(words[1:]) == 0
    assert (tmp_path / "again/best.safetensors").read_bytes() == (
        tmp_path / "out" / trained / "best.safetensors"
    ).read_bytes()
    capsys.readouterr()


def test_intervals_and_differences(plan: Path, tiny_images: Path, tmp_path: Path) -> None:
    table = run(plan, tiny_images, tmp_path / "out")
    rows = [json.loads(file.read_text()) for file in (tmp_path / "out/rows").iterdir()]
    found = {(row["row"], row["shot"], row["seed"]): np.array(row["accuracies"]) for row in rows}
    for cell in table.cells:
        mine, first = (
            np.stack([found[name, cell.shot, seed] for seed in (0, 1)]) for name in (cell.row, "LWFM-SPM")
        )
        assert cell.accuracy == pytest.approx(mine.mean())
        assert cell.difference == pytest.approx((mine - first).mean())
        assert cell.differences == pytest.approx((mine - first).mean(1))
        runs = scipy.stats.t.ppf(0.975, 1) * mine.mean(1).std(ddof=1) / np.sqrt(2)
        episodes = scipy.stats.norm.ppf(0.975) * mine.mean(0).std(ddof=1) / np.sqrt(8)
        assert cell.interval == pytest.approx(np.hypot(runs, episodes), rel=1e-3)


def test_interval_of_one_run_is_over_episodes() -> None:
    values = [0.0, 0.5, 1.0, 0.5]
    mean, interval = interval_over_runs([values])
    assert (mean, interval) == pytest.approx((0.5, 1.96 * np.std(values, ddof=1) / 2), rel=1e-4)


@pytest.mark.parametrize("runs", [2, 3, 11, 12, 40])
def test_quantiles_are_students(runs: int) -> None:
    values = np.arange(runs, dtype=float).repeat(5).reshape(runs, 5)  # episodes do not vary
    expected = scipy.stats.t.ppf(0.975, runs - 1) * values[:, 0].std(ddof=1) / np.sqrt(runs)
    assert interval_over_runs(values.tolist())[1] == pytest.approx(expected, rel=0.015)


def test_a_finished_experiment_does_nothing_more(
    plan: Path, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(plan, tiny_images, tmp_path / "out")
    for name in ("train", "evaluate"):
        monkeypatch.setattr(lwfm.experiments.network, name, lambda *_, **__: pytest.fail("done again"))
    monkeypatch.setattr(
        lwfm.experiments.network, "command_line", lambda *_: ""
    )  # reads the signatures of both
    assert run(plan, tiny_images, tmp_path / "out") == first


FIXED: dict[str, Any] = {
    "data": {
        "two ways": {"data": "folder", "root": "images", "queries": {1: 3, 2: 2}, "way": 2, "split": "val"},
        "three ways": {"data": "folder", "root": "images", "queries": {1: 3}, "split": "val"},
    },
    "seeds": [0, 1],
    "way": 3,
    "episodes": 8,
    "networks": {
        "fixed": {"trained": False, "model": {"backbone": "conv4", "image_size": 24, "embedding": False}}
    },
    "rows": [
        {"name": "class means", "network": "fixed", "method": "nearest_class_mean"},
        {"name": "published", "network": "fixed"},
        {"name": "DN4", "network": "fixed", "head": {"baseline": "local_descriptors"}},
    ],
}


def test_a_fixed_network_is_evaluated_without_training(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lwfm.experiments.network, "train", lambda *_, **__: pytest.fail("trained"))
    shutil.copytree(tiny_images / "val", tmp_path / "images/val")  # all that is read
    table = run(write(tmp_path / "plan.yaml", FIXED), tmp_path, tmp_path / "out")
    assert {(cell.data, cell.way, cell.shot) for cell in table.cells} == {
        ("two ways", 2, 1),
        ("two ways", 2, 2),
        ("three ways", 3, 1),
    }
    assert {tuple(cell.seeds) for cell in table.cells} == {(0,)}
    (cell,) = (c for c in table.cells if (c.row, c.data, c.shot) == ("DN4", "two ways", 2))
    assert cell.train == ""
    words = [*shlex.split(cell.evaluate)[1:], "--accelerator", "cpu", "--out", str(tmp_path / "again.json")]
    assert main(words) == 0
    again = EvaluationResult.from_json((tmp_path / "again.json").read_text()).of("DN4", 2)
    assert again.accuracy == pytest.approx(cell.accuracy)


def test_differences_are_averaged_over_data_sets(tiny_images: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_images, tmp_path / "images")
    table = run(write(tmp_path / "plan.yaml", FIXED), tmp_path, tmp_path / "out")
    cells = [cell for cell in table.cells if (cell.row, cell.shot) == ("DN4", 1)]
    mean, interval = mean_difference(cells)
    gains, widths = zip(*((cell.difference, cell.difference_interval) for cell in cells), strict=True)
    assert mean == pytest.approx(np.mean(gains))
    assert interval == pytest.approx(np.hypot(*widths) / 2)
    means = table.markdown().split("## Mean difference")[1]
    assert "| row | 1-shot, 2 sets |" in means
    assert f"| DN4 | {percent(mean, interval, sign='+')} |" in means
    small = {**FIXED, "data": {"two ways": FIXED["data"]["two ways"]}}
    one = run(write(tmp_path / "plan.yaml", small), tmp_path, tmp_path / "out")
    assert "Mean difference" not in one.markdown()


TWO_STAGES: dict[str, Any] = {
    **PLAN,
    "networks": {
        "pretrained": {
            "stage": "pretrain",
            "epochs": 1,
            "batch": 4,
            "model": {"backbone": "conv4", "image_size": 24, "feature_size": 1},
            "validation": {"way": 3, "queries": 2, "episodes": 3},
        },
        "episodes": {"start": "pretrained"},
    },
    "rows": [{"name": "episodes", "network": "episodes"}],
}


def test_episodes_start_from_the_pretrained_network_of_the_same_seed(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = run(write(tmp_path / "plan.yaml", TWO_STAGES), tiny_images, tmp_path / "out")
    assert {tuple(cell.seeds) for cell in table.cells} == {(0, 1)}
    folders = sorted(folder.name for folder in (tmp_path / "out/networks").iterdir())
    assert [name.rsplit("-", 1)[0] for name in folders] == [
        f"{stage}-tiny-{seed}" for stage in ("episodes", "pretrained") for seed in (0, 1)
    ]
    for seed in (0, 1):
        first, second = (tmp_path / "out/networks" / folders[seed + 2 * k] for k in (1, 0))
        words = shlex.split(json.loads((second / "finished.json").read_text())["command"])
        assert words[:2] == ["lwfm", "train"]
        assert words[words.index("--model.weights") + 1] == str(first / "best.safetensors")
        assert words[words.index("--seed") + 1] == str(seed) if seed else "--seed" not in words
        words = shlex.split(json.loads((first / "finished.json").read_text())["command"])
        assert words[:2] == ["lwfm", "pretrain"]
        if seed == 0:
            words[words.index("--out") + 1] = str(tmp_path / "again")
            assert main(words[1:]) == 0
            again = (tmp_path / "again/best.safetensors").read_bytes()
            assert again == (first / "best.safetensors").read_bytes()
    for name in ("train", "pretrain"):
        monkeypatch.setattr(lwfm.experiments.network, name, lambda *_, **__: pytest.fail("done again"))
    monkeypatch.setattr(lwfm.experiments.network, "command_line", lambda *_: "")
    assert run(tmp_path / "plan.yaml", tiny_images, tmp_path / "out") == table


def test_another_pretraining_trains_the_episodes_anew(tiny_images: Path, tmp_path: Path) -> None:
    small = {**TWO_STAGES, "seeds": [0]}
    run(write(tmp_path / "plan.yaml", small), tiny_images, tmp_path / "out")
    networks = {**small["networks"], "pretrained": {**small["networks"]["pretrained"], "batch": 5}}
    run(write(tmp_path / "plan.yaml", {**small, "networks": networks}), tiny_images, tmp_path / "out")
    names = sorted(folder.name.split("-")[0] for folder in (tmp_path / "out/networks").iterdir())
    assert names == ["episodes", "episodes", "pretrained", "pretrained"]


@pytest.mark.parametrize("change", ["row", "option", "episodes"])
def test_only_what_is_new_is_done(
    plan: Path, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    small = {**PLAN, "seeds": [0]}
    run(write(plan, small), tiny_images, tmp_path / "out")
    if change == "row":
        new = {"name": "averaged", "network": "paper", "head": {"top_k": None}}
        small = {**small, "rows": [*PLAN["rows"], new]}
    elif change == "option":
        networks = {**PLAN["networks"], "prototypical": {"optim": {"lr": 0.5}}}
        small = {**small, "networks": networks}
    else:
        small = {**small, "episodes": 9}
    calls = []
    for name in ("train", "evaluate"):
        function = getattr(lwfm.experiments.network, name)

        def noted(*given: Any, name: str = name, function: Any = function, **options: Any) -> Any:
            calls.append((name, list(options.get("heads", {}))))
            return function(*given, **options)

        monkeypatch.setattr(lwfm.experiments.network, name, noted)
    run(write(plan, small), tiny_images, tmp_path / "out")
    trained, evaluated = ([heads for what, heads in calls if what == name] for name in ("train", "evaluate"))
    assert len(trained) == (change == "option")
    expected = {"row": [["averaged"]] * 2, "option": [[], []], "episodes": [["without LWE"]] * 2 + [[], []]}
    assert evaluated == expected[change]


def test_other_weights_in_the_same_file_are_another_network(
    tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    monkeypatch.setattr(
        lwfm.experiments.network.TrainedNetwork, "train", lambda network, **_: trained.append(network.folder)
    )
    monkeypatch.setattr(lwfm.experiments.network.TrainedNetwork, "results", lambda *_, **__: [])
    weights = tmp_path / "weights.safetensors"
    model = {**PLAN["train"]["model"], "weights": str(weights)}
    plan = {**PLAN, "seeds": [0], "networks": {"paper": {"model": model}}, "rows": PLAN["rows"][:1]}
    for content in (b"some", b"others", b"some"):
        weights.write_bytes(content)
        run(write(tmp_path / "plan.yaml", plan), tiny_images, tmp_path / "out")
    first, other, again = trained
    assert first == again
    assert first != other


@pytest.mark.parametrize("where", ["train", "evaluate"])
def test_an_interrupted_experiment_resumes(
    plan: Path, tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    whole = run(plan, tiny_images, tmp_path / "whole")
    function, calls = getattr(lwfm.experiments.network, where), []

    def stop(*given: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return function(*given, **options)

    with monkeypatch.context() as patched:
        patched.setattr(lwfm.experiments.network, where, stop)
        patched.setattr(lwfm.experiments.network, "command_line", lambda *_: "")
        with pytest.raises(KeyboardInterrupt):
            run(plan, tiny_images, tmp_path / "out")
    assert list((tmp_path / "out").rglob(".*.part*")) == []
    again = run(plan, tiny_images, tmp_path / "out")
    for mine, theirs in zip(again.cells, whole.cells, strict=True):
        assert (mine.row, mine.accuracy, mine.difference) == (theirs.row, theirs.accuracy, theirs.difference)


@pytest.mark.slow
@pytest.mark.parametrize("seen", ["networks/*/last.ckpt", "rows/*.json"], ids=["in-training", "in-rows"])
def test_a_killed_experiment_resumes(plan: Path, tiny_images: Path, tmp_path: Path, seen: str) -> None:
    whole = run(plan, tiny_images, tmp_path / "whole")
    command = [sys.executable, "-m", "lwfm", "experiment", str(plan), "--root", str(tiny_images)]
    command += ["--out", str(tmp_path / "out"), "--accelerator", "cpu", "--progress", "false"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not list((tmp_path / "out").glob(seen)) and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL  # else it had finished, and nothing was tested
    again = run(plan, tiny_images, tmp_path / "out")
    for mine, theirs in zip(again.cells, whole.cells, strict=True):
        assert (mine.row, mine.accuracy, mine.difference) == (theirs.row, theirs.accuracy, theirs.difference)


def test_a_half_trained_network_is_resumed(plan: Path, tiny_images: Path, tmp_path: Path) -> None:
    small = {**PLAN, "seeds": [0], "networks": {"paper": {}}, "rows": PLAN["rows"][:1]}
    whole = run(write(plan, small), tiny_images, tmp_path / "out")
    (finished,) = (tmp_path / "out").glob("networks/*/finished.json")
    finished.unlink()  # as if killed after the last epoch
    assert run(plan, tiny_images, tmp_path / "out") == whole
    assert json.loads(finished.read_text())["resumed"] is True


def test_missing_networks_are_skipped_if_asked(plan: Path, tiny_images: Path, tmp_path: Path) -> None:
    assert run(plan, tiny_images, tmp_path / "out", missing="skip").cells == []
    run(write(plan, {**PLAN, "seeds": [1]}), tiny_images, tmp_path / "out")
    table = run(write(plan, PLAN), tiny_images, tmp_path / "out", missing="skip")
    assert {tuple(cell.seeds) for cell in table.cells} == {(1,)}


def test_missing_root_and_unknown_data_are_refused(plan: Path, tiny_images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the data tiny need --root FOLDER"):
        experiment(plan, out=tmp_path)
    with pytest.raises(UserError, match="no data large; it has tiny"):
        experiment(plan, root=tiny_images, out=tmp_path, data=["large"])


def test_splits_that_share_a_class_are_refused_before_training(
    plan: Path, tiny_images: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(tiny_images, tmp_path / "images")
    shutil.copytree(root / "train/train-0", root / "test/train-0")
    with pytest.raises(UserError, match="train and test have 1 classes in common: train-0"):
        run(plan, root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    one = {**PLAN, "seeds": [0], "rows": PLAN["rows"][:1]}
    one["data"] = {"tiny": {**PLAN["data"]["tiny"], "overlap": "allow", "queries": {1: 2}}}
    with pytest.warns(UserWarning, match="training classes of the checkpoint: train-0"):
        table = run(write(plan, one), root, tmp_path / "out")
    assert len(table.cells) == 1


@pytest.mark.parametrize(
    "change",
    [{"accuracies": "x"}, {"accuracies": [0.5]}, {"accuracies": [0.5, 2]}, {"row": None}, {"train": 3}],
    ids=["text", "short", "above-1", "null", "number"],
)
def test_a_damaged_row_is_named(tmp_path: Path, change: dict[str, Any]) -> None:
    row = RowResult("row", "net", "emoji", 0, 1, "lwfm", (0.5, 0.25), "lwfm train", "lwfm evaluate")
    row.write(tmp_path / "row.json")
    assert RowResult.read(tmp_path / "row.json", 2) == row
    (tmp_path / "row.json").write_text(json.dumps(vars(row) | change))
    with pytest.raises(UserError, match=r"row\.json is damaged .*: delete the file"):
        RowResult.read(tmp_path / "row.json", 2)
