"""Tables of evaluations: fractions in per cent, other scores in their unit; simulated data are so named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from lwfm.cli import main
from lwfm.metric.evaluation import SIMULATED, MetricEvaluation, Row

ROWS = (
    Row.over_seeds("all", "ours", "system", [{"AUPRC": 0.5, "delay (h)": 12.25}] * 2),
    Row.over_seeds("all", "other", "baseline", [{"AUPRC": 0.25, "delay (h)": 20.0}] * 2),
)
RESULT = MetricEvaluation("turbine_faults", "made up", (0, 1), ROWS, "delay (h)", "nothing")


def test_scores_with_a_unit_are_shown_in_it() -> None:
    text = str(RESULT)
    assert "12.25" in text
    assert "50.00" in text
    assert "-7.75 [-7.75, -7.75]" in text
    assert RESULT.figure().axes[0].get_xlabel() == "delay (h)"


@pytest.mark.parametrize("simulated", [True, False])
def test_every_output_says_whether_data_are_simulated(simulated: bool) -> None:
    result = replace(RESULT, simulated=simulated)
    assert (SIMULATED in str(result)) == simulated
    assert (json.loads(result.to_json())["simulated"] == SIMULATED) == simulated
    assert (result.figure().get_suptitle() == SIMULATED) == simulated


def test_a_system_without_simulator_asks_for_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metric", "evaluate", "pvc_beats"]) == 2
    assert "pvc_beats has no simulator: give its data, --root" in capsys.readouterr().err
