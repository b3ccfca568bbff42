"""Several findings of a film: as an estimator, on files, and from the command line."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.base import clone

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import ChestXRayMultiLabel
from lwfm.metric.data.xray import FINDINGS, Films
from lwfm.metric.scores import multi_label_scores
from tests.helpers.chest_films import many_findings, write_nih

if TYPE_CHECKING:
    from pathlib import Path

QUICK: dict[str, Any] = {"steps": 150, "batch_size": 32}
PATIENTS = np.arange(240) // 2


@pytest.fixture(scope="module")
def films() -> Films:
    return many_findings(240)


@pytest.fixture(scope="module")
def fitted(films: Films) -> ChestXRayMultiLabel:
    return ChestXRayMultiLabel(FINDINGS, **QUICK).fit(films.images, films.targets, groups=PATIENTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nih(tmp_path_factory.mktemp("nih"), many_findings(120))


def test_findings_of_new_films_are_ranked(fitted: ChestXRayMultiLabel) -> None:
    other = many_findings(200, seed=1)
    scores = multi_label_scores(other.targets > 0, fitted.predict_proba(other.images), fitted.counts_)
    assert scores["mean AUC"] > 0.75
    assert scores["mean AUC"] == pytest.approx(fitted.score(other.images, other.targets))
    assert scores["Brier"] < 0.12
    found = fitted.predict(other.images)
    assert found.shape == (200, 14)
    assert 0.1 < found.mean() < 0.7
    hits = (found == 1) & (other.targets == 1)
    assert hits.sum() / other.targets.sum() > found.mean()  # more often right than by chance


def test_the_same_seed_repeats_and_the_file_holds_everything(
    fitted: ChestXRayMultiLabel, films: Films, tmp_path: Path
) -> None:
    again = clone(fitted).fit(films.images, films.targets, groups=PATIENTS)
    np.testing.assert_array_equal(again.predict_proba(films.images), fitted.predict_proba(films.images))
    fitted.save(tmp_path / "chest.safetensors")
    loaded = ChestXRayMultiLabel.load(tmp_path / "chest.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(films.images), fitted.predict_proba(films.images))
    np.testing.assert_array_equal(loaded.predict(films.images), fitted.predict(films.images))
    assert loaded.classes_.tolist() == list(FINDINGS)


def test_no_patient_trains_and_calibrates(fitted: ChestXRayMultiLabel, films: Films) -> None:
    random = np.random.default_rng(0)
    held = fitted._references(films.targets, PATIENTS, random)
    trained = np.unique(fitted._batches(films.targets, PATIENTS, random))
    assert not np.isin(PATIENTS[held], PATIENTS[trained]).any()
    assert len(held) == pytest.approx(0.2 * 240, abs=3)


def test_unknown_labels_are_left_out(films: Films) -> None:
    targets = films.targets.copy()
    targets[:, 3] = -1
    targets[:50] = -1
    system = ChestXRayMultiLabel(FINDINGS, steps=2, batch_size=8).fit(films.images, targets)
    assert np.isfinite(system.predict_proba(films.images)).all()
    assert system.counts_[3] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "cross_entropy"},
        {"temperature": None, "power": 0.0},
        {"level": "image"},
        {"level": "disease"},
    ],
    ids=["cross-entropy", "not-weighted", "image", "disease"],
)
def test_ablations_run_and_are_saved(films: Films, tmp_path: Path, options: dict[str, Any]) -> None:
    system = ChestXRayMultiLabel(steps=2, batch_size=8, **options).fit(films.images[:60], films.targets[:60])
    system.save(tmp_path / "x.safetensors")
    loaded = ChestXRayMultiLabel.load(tmp_path / "x.safetensors")
    assert loaded.get_params() == system.get_params()
    assert loaded.classes_.tolist() == [str(i) for i in range(14)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["Mass"] * 14}, "as many different names as labels"),
        ({"temperature": 0.0}, "temperature must be a number above 0"),
        ({"power": -1.0}, "power must be a number of at least 0"),
        ({"level": "film"}, "level must be one of both, image, disease"),
        ({"loss": "bce"}, "loss must be one of dual, cross_entropy"),
        ({"held_out": 0.9}, "held_out must be a number from 0.05 to 0.5"),
        ({"batch_size": 1}, "batch_size must be at least 2"),
    ],
)
def test_mistakes_are_explained(films: Films, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ChestXRayMultiLabel(**options).fit(films.images, films.targets)


def test_two_patients_are_too_few(films: Films) -> None:
    with pytest.raises(UserError, match="at least three rows, of as many patients"):
        ChestXRayMultiLabel(steps=1).fit(films.images, films.targets, groups=np.arange(240) % 2)


def test_the_command_line_fits_answers_and_evaluates(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out, figure = tmp_path / "chest.safetensors", tmp_path / "out.csv", tmp_path / "out.png"
    quick = ["--options", "{steps: 2, batch_size: 8, size: 32}"]
    words = ["metric", "fit", "chest_multi_label", "--root", str(folder), "--out", str(model)]
    assert main([*words, *quick]) == 0
    film = folder / "images_001" / "images" / "00000003_001.png"
    assert main(["metric", "predict", str(model), str(film), "--out", str(out), "--figure", str(figure)]) == 0
    (row,) = csv.DictReader(out.open())
    assert list(row) == ["film", *FINDINGS, "found"]
    assert row["film"] == film.name
    assert figure.stat().st_size > 1000
    result = tmp_path / "result.json"
    words = ["metric", "evaluate", "chest_multi_label", "--root", str(folder), "--seeds", "2"]
    assert main([*words, "--out", str(result), "--figure", str(figure), *quick]) == 0
    rows = json.loads(result.read_text())["rows"]
    assert {row["role"] for row in rows} == {"system", "baseline", "ablation"}
    assert {row["protocol"] for row in rows} == {"new patients", "AUC of each finding"}
    capsys.readouterr()
    assert main(["metric", "predict", str(model), str(tmp_path / "absent.png"), "--out", str(out)]) == 2
    assert "there is no film" in capsys.readouterr().err


def test_the_simulator_runs_without_data(capsys: pytest.CaptureFixture[str]) -> None:
    options = "{steps: 2, batch_size: 8, films: 60}"
    assert main(["metric", "evaluate", "chest_multi_label", "--seeds", "1", "--options", options]) == 0
    assert "simulated: shows the mechanism, not the published figure" in capsys.readouterr().out
