"""The fault detector: as an estimator of scikit-learn, on files, and from the command line."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.base import clone

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import TurbineFaultDetector
from lwfm.metric.data import scada
from lwfm.metric.evaluation import SIMULATED
from lwfm.metric.systems.turbine_comparison import alarm_scores
from lwfm.metric.systems.turbine_faults import held_out

if TYPE_CHECKING:
    from pathlib import Path

pandas = pytest.importorskip("pandas")
QUICK: dict[str, Any] = {"steps": 40, "batch_size": 24, "window": 16, "stride": 4}
OPTIONS = [
    "--options",
    "{steps: 3, batch_size: 16, window: 16, stride: 4, per_week: 100, generator_steps: 2}",
]


def log(seed: int, rows: int = 700, fault: slice | None = None) -> Any:
    """Return a table of two channels, the second of which follows the first but for the fault."""
    random = np.random.default_rng(seed)
    load = np.sin(np.arange(rows) / 9) + 0.1 * random.standard_normal(rows)
    heat = 20 + 5 * load + 0.1 * random.standard_normal(rows)
    label = np.zeros(rows)
    if fault is not None:
        heat[fault] += 8
        label[fault] = 1
    times = pandas.date_range("2024-03-01", periods=rows, freq="10min")
    return pandas.DataFrame({"time": times, "load": load, "heat": heat, "anomaly": label})


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of two kinds of faults, and one without."""
    folder: Path = tmp_path_factory.mktemp("logs")
    for number, kind in enumerate(("hot", "hot", "hot", "leak", "leak", "plain")):
        (folder / kind).mkdir(exist_ok=True)
        part = None if kind == "plain" else slice(300, 420)
        log(number, fault=part).to_csv(folder / kind / f"{number}.csv", index=False, sep=";")
    return folder


@pytest.fixture(scope="module")
def windows(logs: Path) -> scada.Windows:
    found = scada.cut_windows(scada.read_all(logs), 16, 4)
    return found[found.kinds != scada.MIXED]


@pytest.fixture(scope="module")
def fitted(windows: scada.Windows) -> TurbineFaultDetector:
    return TurbineFaultDetector(**QUICK).fit(windows.values, ~windows.normal, windows.series)


def test_faults_are_told_from_normal_windows(fitted: TurbineFaultDetector, windows: scada.Windows) -> None:
    scores = fitted.decision_function(windows.values)
    assert np.median(scores[~windows.normal]) > np.quantile(scores[windows.normal], 0.98)
    np.testing.assert_array_equal(fitted.predict(windows.values), scores > fitted.threshold_)
    shares = fitted.predict_proba(windows.values)
    np.testing.assert_array_equal(shares[:, 1] > 0.5, scores > fitted.threshold_)
    assert fitted.contributions(windows.values[~windows.normal]).mean(0).argmax() == 1


@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_the_threshold_keeps_its_share_of_the_reference(quantile: float, windows: scada.Windows) -> None:
    detector = TurbineFaultDetector(**{**QUICK, "steps": 2}, quantile=quantile)
    detector.fit(windows.values, ~windows.normal, windows.series)
    held = held_out(windows.normal, windows.series, 0.2)
    assert detector.predict(windows.values[held]).mean() == pytest.approx(1 - quantile, abs=0.02)


def test_validation_windows_are_the_last_of_each_machine_and_not_trained_on(windows: scada.Windows) -> None:
    held = held_out(windows.normal, windows.series, 0.2)
    for name in np.unique(windows.series):
        rows = np.flatnonzero(windows.normal & (windows.series == name))
        assert held[rows].sum() == round(0.2 * len(rows))
        assert held[rows[-1]]
    detector = TurbineFaultDetector(**QUICK)
    codes = (~windows.normal).astype(np.int64)
    drawn = detector._batches(codes, windows.series, np.random.default_rng(0))
    assert not held[drawn].any()
    assert set(codes[drawn].ravel()) == {0, 1}
    faulty = drawn[codes[drawn] == 1]
    assert set(windows.series[faulty]) == set(windows.series[~windows.normal])  # every machine's faults


def test_it_learns_from_normal_windows_alone(windows: scada.Windows) -> None:
    normal = windows[windows.normal]
    detector = TurbineFaultDetector(**QUICK).fit(normal.values)
    scores = detector.decision_function(windows.values)
    assert np.median(scores[~windows.normal]) > np.median(scores[windows.normal])


@pytest.mark.parametrize("options", [{}, {"generated": 10, "generator_steps": 2}], ids=["given", "generated"])
def test_the_same_seed_repeats_to_the_bit(options: dict[str, Any], windows: scada.Windows) -> None:
    detector = TurbineFaultDetector(**{**QUICK, "steps": 3, **options})
    first = detector.fit(windows.values, ~windows.normal, windows.series).decision_function(windows.values)
    again = clone(detector).fit(windows.values, ~windows.normal, windows.series)
    np.testing.assert_array_equal(again.decision_function(windows.values), first)


def test_a_saved_detector_answers_as_before(
    fitted: TurbineFaultDetector, windows: scada.Windows, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "model.safetensors")
    loaded = TurbineFaultDetector.load(tmp_path / "model.safetensors")
    assert (loaded.get_params(), loaded.threshold_) == (fitted.get_params(), fitted.threshold_)
    expected = fitted.decision_function(windows.values)
    np.testing.assert_array_equal(loaded.decision_function(windows.values), expected)


@pytest.mark.parametrize(
    ("windows", "labels", "options", "message"),
    [
        (np.zeros((20, 2, 16)), np.zeros(3), {}, "20 rows need as many labels"),
        (np.zeros((20, 16)), None, {}, r"windows must be an array \[N, channels, 8 samples or more\]"),
        (np.zeros((20, 2, 4)), None, {}, r"windows must be an array \[N, channels, 8 samples or more\]"),
        (np.full((20, 2, 16), np.nan), None, {}, "NaN"),
        (np.zeros((20, 2, 16)), np.arange(20), {}, "labels must be true for faulty"),
        (np.zeros((20, 2, 16)), np.arange(20) > 5, {}, "at least ten normal windows"),
        (np.zeros((20, 2, 16)), None, {"loss": "pairs"}, "loss must be one of triplet"),
        (np.zeros((20, 2, 16)), None, {"validation": 1}, "validation must be a number from 0.01 to 0.9"),
        (np.zeros((20, 2, 16)), None, {"window": 4}, "window must be at least 8"),
        (np.zeros((20, 2, 16)), None, {"generated": -1}, "generated must be"),
    ],
    ids=["labels", "flat", "short", "nan", "kinds", "few", "loss", "validation", "window", "generated"],
)
def test_wrong_input_is_refused(
    windows: np.ndarray, labels: np.ndarray | None, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        TurbineFaultDetector(**{**QUICK, "steps": 1, **options}).fit(windows, labels)


def test_delays_begin_at_the_fault_and_missed_faults_count_whole() -> None:
    kinds = np.array(["", "", "a", "a", "a", "", "b", "b", ""])
    events = np.array([-1, -1, 0, 0, 0, -1, 1, 1, -1])
    times = 3600 * np.arange(9, dtype=np.float64)
    test = scada.Windows(
        np.zeros((9, 1, 8), np.float32), times, np.full(9, "x"), kinds, events, times[[2, 6]] - 1800, 1.0
    )
    scores = np.array([0, 0, 0, 5, 5, 0, 1, 1, 9.0])
    found = alarm_scores(test, scores, threshold=2, hold=1, unseen=["b"])
    assert (found["found"], found["delay (h)"]) == (1, 1.5)
    assert (found["found, unseen kinds"], found["delay, unseen kinds (h)"]) == (0, 1.5)
    assert found["false alarms (a week)"] == pytest.approx(168 / 4)
    assert found["AUPRC"] == pytest.approx((1 / 2 + 2 / 3 + 3 / 7) / 3, abs=0.1)


@pytest.fixture
def one_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lwfm.metric.systems.turbine_comparison.SHOTS", (5,))


@pytest.mark.usefixtures("one_protocol")
def test_the_commands_evaluate_fit_and_predict(logs: Path, tmp_path: Path) -> None:
    result, figure = tmp_path / "result.json", tmp_path / "result.png"
    arguments = ["evaluate", "turbine_faults", "--root", str(logs), "--seeds", "1"]
    options = OPTIONS[1].replace("}", ", unseen: [leak]}")
    files = ["--out", str(result), "--figure", str(figure)]
    assert main(["metric", *arguments, "--options", options, *files]) == 0
    content = json.loads(result.read_text())
    assert content["simulated"] is None
    assert {row["role"] for row in content["rows"]} == {"system", "baseline", "ablation"}
    assert {each["metric"] for each in content["differences"]} >= {
        "AUPRC",
        "AUPRC, unseen kinds",
        "delay (h)",
    }

    model, out = tmp_path / "model.safetensors", tmp_path / "answers" / "windows.csv"
    options = "{steps: 60, batch_size: 24, window: 16, stride: 4, per_week: 3}"
    words = ["fit", "turbine_faults", "--root", str(logs), "--out", str(model), "--options", options]
    assert main(["metric", *words]) == 0
    new = tmp_path / "new.csv"
    log(9, fault=slice(300, 420)).drop(columns="anomaly").to_csv(new, index=False)
    drawn = tmp_path / "drawn.png"
    assert main(["metric", "predict", str(model), str(new), "--out", str(out), "--figure", str(drawn)]) == 0
    rows = list(csv.DictReader(out.open()))
    assert rows[0]["time"] == "2024-03-01T02:30:00"
    alarms = list(csv.DictReader((tmp_path / "answers" / "windows-alarms.csv").open()))
    during = [each for each in alarms if "2024-03-03T02:00" <= each["begin"] <= "2024-03-03T22:00"]
    assert during
    assert during[0]["channels"].startswith("heat (")
    assert drawn.stat().st_size > 1000


@pytest.mark.usefixtures("one_protocol")
def test_series_without_labels_get_injected_faults(logs: Path, tmp_path: Path) -> None:
    log(5, rows=1600).to_csv(tmp_path / "plain.csv", index=False)
    out = tmp_path / "result.json"
    words = ["evaluate", "turbine_faults", "--root", str(tmp_path), "--seeds", "1", *OPTIONS]
    assert main(["metric", *words, "--out", str(out)]) == 0
    assert "injected faults" in json.loads(out.read_text())["data"]


@pytest.mark.usefixtures("one_protocol")
def test_without_root_it_is_simulated_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--options", "{steps: 2, batch_size: 16, stride: 36, days: 41, generator_steps: 2}"]
    out = tmp_path / "result.json"
    assert main(["metric", "evaluate", "turbine_faults", "--seeds", "1", *options, "--out", str(out)]) == 0
    assert SIMULATED in capsys.readouterr().out
    assert json.loads(out.read_text())["simulated"] == SIMULATED


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (log(0).drop(columns="heat"), "lacks the channels heat"),
        (log(0, rows=12), "has no window of 16 samples"),
        (log(0).drop(columns="time"), "has no time column"),
    ],
    ids=["channel", "short", "time"],
)
def test_logs_that_do_not_fit_are_refused(
    table: Any, message: str, logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model.safetensors"
    words = ["fit", "turbine_faults", "--root", str(logs), "--out", str(model), *OPTIONS]
    assert main(["metric", *words]) == 0
    table.to_csv(tmp_path / "new.csv", index=False)
    words = ["predict", str(model), str(tmp_path / "new.csv"), "--out", str(tmp_path / "out.csv")]
    assert main(["metric", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_unseen_kinds_that_are_not_there_are_refused(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", "turbine_faults", "--root", str(logs), "--seeds", "1"]
    assert main(["metric", *words, "--options", "{unseen: [cold]}"]) == 2
    assert "no fault is of the unseen kind cold: there are hot, leak" in capsys.readouterr().err


def test_a_model_of_arrays_answers_no_files(
    fitted: TurbineFaultDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted.save(tmp_path / "model.safetensors")
    words = ["predict", str(tmp_path / "model.safetensors"), "x.csv", "--out", str(tmp_path / "out.csv")]
    assert main(["metric", *words]) == 2
    assert "fitted on arrays" in capsys.readouterr().err
