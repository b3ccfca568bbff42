"""Plans of experiments: what is merged, and what is refused before any work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.experiments.plan import read_plan
from tests.helpers.experiment_plans import PLAN, write

if TYPE_CHECKING:
    from lwfm.experiments.plan import Plan


def read_training_plan(path: Path) -> tuple[Plan, dict[str, Any]]:
    """Return a plan all of whose networks are trained, and the options of each."""
    return read_plan(path)


def test_options_of_the_plan_override_the_preset(plan: Path) -> None:
    options: dict[str, Any] = read_plan(plan)[1]
    assert options["paper"]["model"].matching_weight == 0.5
    assert options["paper"]["model"].backbone == "conv4"
    assert options["paper"]["epochs"] == 1
    assert options["prototypical"]["model"].attention_temperature is None


def test_a_plan_that_extends_another_holds_what_differs(plan: Path, tmp_path: Path) -> None:
    first, others = read_training_plan(plan)
    difference = {"extends": plan.name, "seeds": [7], "networks": {"paper": {"model": {"top_k": 2}}}}
    second, options = read_training_plan(write(tmp_path / "second.yaml", difference))
    assert (second.seeds, second.rows, second.data) == ([7], first.rows, first.data)
    assert options["paper"] == others["paper"] | {"model": replace(others["paper"]["model"], top_k=2)}
    assert options["prototypical"] == others["prototypical"]


def test_a_plan_that_extends_a_shipped_one_trains_another_network() -> None:
    first, others = read_training_plan(Path("from-scratch"))
    second, options = read_training_plan(Path("from-scratch-resnet12-small"))
    assert first.rows == second.rows
    for name, other in others.items():
        model = replace(other["model"], backbone="resnet12", layers=(3, 4), image_size=48)
        assert options[name] == other | {"model": model}


def test_a_plan_extends_a_plan_that_is_there_and_whole(plan: Path, tmp_path: Path) -> None:
    second = write(tmp_path / "second.yaml", {"extends": plan.name})
    for extends, message in (
        ("from-scrach", "extends: there is no preset from-scrach; did you mean from-scratch"),
        ("gone.yaml", r"cannot read .*gone\.yaml"),
        (3, "extends must be a shipped plan, or a file beside this one, not 3"),
        ("other/plan.yaml", "extends must be a shipped plan, or a file beside this one, not other/plan"),
        (second.name, r"extends .*second\.yaml, which itself extends another plan"),
    ):
        with pytest.raises(UserError, match=message):
            read_plan(write(tmp_path / "third.yaml", {"extends": extends}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": []}, "rows, data and seeds must not be empty"),
        ({"seeds": [-1]}, "each of seeds must be a whole number from 0 to 4294967295, not -1"),
        ({"episode_seed": 2**32}, "episode_seed must be a whole number from 0 to 4294967295, not 4294967296"),
        ({"seeds": [1, 1]}, "no two rows, nor two seeds"),
        ({"rows": [{"name": "a", "network": "none"}]}, "network none, which is not among networks"),
        ({"rows": [{"name": "a", "network": "paper", "method": "best"}]}, "method must be one of lwfm"),
        ({"rows": [{"name": "base", "network": "paper"}]}, "must not be called base"),
        ({"rows": [{"name": "a", "network": "paper", "head": {"topk": 2}}]}, "topk"),
        ({"networks": {"paper": {"modell": 3}}}, "network paper: .*modell"),
        ({"train": {"optim": {"milestones": [2]}}}, r"plan\.yaml: network .*: optim\.milestones must be"),
        ({"networks": {"paper": {"seed": 3}}}, "network paper: .*seed"),
        ({"networks": {"paper": {"config": "gone.yaml"}}}, r"cannot read .*gone\.yaml"),
        ({"networks": {"paper": {"preset": "papper"}}}, "no preset papper; did you mean paper"),
        ({"networks": {"paper": {"preset": "ablation"}}}, "preset ablation is for lwfm experiment"),
        (
            {"networks": {"paper": {"preset": "paper", "config": "preset.yaml"}}},
            "either a preset or a config",
        ),
        (
            {"networks": {"paper": {"trained": False, "epochs": 2}}},
            "without training it has a model, but no ep",
        ),
        ({"networks": {"paper": {"stage": "test"}}}, "stage must be one of pretrain, train, not test"),
        ({"networks": {"paper": {"stage": "pretrain", "episodes": {"way": 3}}}}, "network paper: .*episodes"),
        ({"networks": {"paper": {"stage": "pretrain", "preset": "paper"}}}, "not for lwfm pretrain"),
        ({"networks": {"paper": {"start": "other"}}}, "start must name a network with stage: pretrain"),
        ({"networks": {"paper": {"start": "paper"}}}, "start must name a network with stage: pretrain"),
        (
            {
                "networks": {
                    "paper": {"start": "first", "model": {"backbone": "conv4"}},
                    "first": {"stage": "pretrain", "model": {"backbone": "resnet12"}},
                }
            },
            "paper, a conv4 with .*, cannot start with the weights of first, a resnet12",
        ),
        (
            {
                "networks": {
                    "paper": {"start": "first", "model": {"backbone": "resnet18", "layers": [5, 6]}},
                    "first": {"stage": "pretrain", "model": {"backbone": "resnet18"}},
                }
            },
            r"paper, a resnet18 with layers \(5, 6\), cannot start with the weights of first, .* by default",
        ),
        (
            {
                "networks": {
                    "paper": {"start": "first", "model": {"backbone": "resnet12", "layers": [3, 9]}},
                    "first": {"stage": "pretrain", "model": {"backbone": "resnet12"}},
                }
            },
            "network paper, which starts with the weights of first: .*layers",
        ),
        (
            {"networks": {"paper": {"stage": "pretrain", "start": "paper"}}},
            "start is for the networks of lwfm train",
        ),
        ({"networks": {"paper": {"trained": False, "model": {"backbon": "a"}}}}, "network paper: .*backbon"),
        ({"data": {"a": {"data": "folder", "queries": {}}}}, "queries must give"),
        ({"data": {"a": {"data": "nothing", "queries": {1: 2}}}}, "nothing"),
        ({"color": 3}, "color"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_invalid_plans_are_refused(plan: Path, change: dict[str, Any], message: str) -> None:
    rows = {"rows": PLAN["rows"][:1]} if "networks" in change else {}
    with pytest.raises(UserError, match=message):
        read_plan(write(plan, {**PLAN, **rows, **change}))


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read"), ("a: [", "is no YAML"), ("3", "must hold options by name")],
)
def test_other_files_are_refused(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.yaml"
    if content is not None:
        path.write_text(content)
    assert main(["experiment", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_shipped_plan_is_read_by_its_name() -> None:
    plan = read_plan(Path("paper-or-recommended"))[0]
    options: dict[str, Any] = read_plan(Path("paper-or-recommended"))[1]
    assert set(options) == {"paper", "recommended"}
    assert options["recommended"]["model"].merge_shots
    assert plan.seeds == [0, 1, 2, 3, 4]
    ablation = read_plan(Path("ablation"))[1]
    assert {name: ablation[name] for name in options} == options, "the plans can share their networks"
    with pytest.raises(UserError, match="no preset ablatoin; did you mean ablation"):
        read_plan(Path("ablatoin"))
