"""Findings without training films: as an estimator, on files, and from the command line."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sklearn.base import clone

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import ChestXRayZeroShot
from lwfm.metric.data.xray import FINDINGS, Films
from lwfm.metric.scores import label_aurocs, zero_shot_scores
from lwfm.metric.simulation.chest_xray import simulated_vectors
from lwfm.metric.systems.chest_zero_shot import COMMON, _kinds
from tests.helpers.chest_films import many_findings, write_nih

if TYPE_CHECKING:
    from pathlib import Path

QUICK: dict[str, Any] = {"steps": 60, "batch_size": 32}
UNSEEN = ("Edema", "Mass")
VECTORS = dict(zip(FINDINGS, simulated_vectors(), strict=True))


@pytest.fixture(scope="module")
def films() -> Films:
    return many_findings(240)


@pytest.fixture(scope="module")
def fitted(films: Films) -> ChestXRayZeroShot:
    system = ChestXRayZeroShot(FINDINGS, VECTORS, UNSEEN, **QUICK)
    return system.fit(films.images, films.targets, groups=np.arange(240) // 2)


@pytest.fixture(scope="module")
def folder(films: Films, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nih(tmp_path_factory.mktemp("nih"), many_findings(120))


def test_seen_and_unseen_findings_are_ranked(fitted: ChestXRayZeroShot, films: Films) -> None:
    other = many_findings(200, seed=1)
    probabilities = fitted.predict_proba(other.images)
    assert probabilities.shape == (200, 14)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    scores = zero_shot_scores(other.targets > 0, probabilities, fitted.is_unseen)
    assert scores["seen AUROC"] > 0.55
    assert fitted.score(other.images, other.targets) > 0.55
    assert set(np.unique(fitted.predict(other.images))) == {0, 1}
    assert fitted.classes_[fitted.is_unseen].tolist() == ["Mass", "Edema"]


def test_unseen_findings_do_not_reach_training(fitted: ChestXRayZeroShot, films: Films) -> None:
    shuffled = films.targets.copy()
    columns = [FINDINGS.index(name) for name in UNSEEN]
    with_unseen = (shuffled[:, columns] == 1).any(1)
    shuffled[np.ix_(with_unseen, range(14))] = 0  # other findings of films that are left out
    shuffled[with_unseen, columns[0]] = 1
    again = clone(fitted).fit(films.images, shuffled, groups=np.arange(240) // 2)
    np.testing.assert_array_equal(again.transform(films.images), fitted.transform(films.images))


def test_the_same_seed_repeats_and_the_file_holds_everything(
    fitted: ChestXRayZeroShot, films: Films, tmp_path: Path
) -> None:
    torch.manual_seed(5)  # the global state must not matter
    again = clone(fitted).fit(films.images, films.targets, groups=np.arange(240) // 2)
    np.testing.assert_array_equal(again.predict_proba(films.images), fitted.predict_proba(films.images))
    again.add(["Fracture"], {"Fracture": simulated_vectors()[3] + 1}).save(tmp_path / "x.safetensors")
    loaded = ChestXRayZeroShot.load(tmp_path / "x.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(films.images), again.predict_proba(films.images))
    assert loaded.classes_.tolist() == [*FINDINGS, "Fracture"]
    assert loaded.is_unseen.sum() == 3
    assert loaded.predict(films.images).shape == (240, 15)


def test_added_labels_leave_the_others(fitted: ChestXRayZeroShot, films: Films) -> None:
    more = clone(fitted).fit(films.images, films.targets, groups=np.arange(240) // 2)
    more.add(["Copy"], {"Copy": VECTORS["Hernia"]})
    values = more.decision_function(films.images[:9])
    np.testing.assert_array_equal(values[:, :14], fitted.decision_function(films.images[:9]))
    np.testing.assert_allclose(values[:, 14], values[:, 13], atol=1e-5)
    with pytest.raises(UserError, match="there is a label Mass already"):
        more.add(["Mass"], VECTORS)
    with pytest.raises(UserError, match="vectors have 3 values, fitted were 64"):
        more.add(["New"], {"New": np.ones(3)})


def test_films_without_finding_alone_give_no_nan(films: Films) -> None:
    targets = films.targets.copy()
    targets[20:] = 0
    system = ChestXRayZeroShot(FINDINGS, VECTORS, steps=4, batch_size=8, held_out=0.5)
    probabilities = system.fit(films.images, targets).predict_proba(films.images)
    assert np.isfinite(probabilities).all()
    assert np.isnan(label_aurocs(np.zeros((3, 2), bool), np.zeros((3, 2)))).all()


@pytest.mark.parametrize("loss", ["ranking", "cross_entropy"])
def test_baselines_run(films: Films, loss: Any) -> None:
    system = ChestXRayZeroShot(FINDINGS, VECTORS, UNSEEN, loss, steps=2, batch_size=8)
    assert np.isfinite(system.fit(films.images, films.targets).decision_function(films.images)).all()


def test_a_model_of_timm_is_a_trunk(films: Films) -> None:
    system = ChestXRayZeroShot(FINDINGS, VECTORS, trunk="resnet10t", steps=1, batch_size=4)
    assert system.fit(films.images[:20], films.targets[:20]).transform(films.images[:2]).shape == (2, 14)


@pytest.mark.parametrize(
    ("options", "targets", "message"),
    [
        ({"labels": None}, None, "give the names of the labels and their vectors"),
        ({"labels": FINDINGS[:5]}, None, "targets have 14 columns: give as many different names"),
        ({"unseen": ["Fracture"]}, None, "unseen: there is no label Fracture"),
        ({"unseen": "Edema"}, None, "unseen must be a list of labels, not the text 'Edema'"),
        ({"unseen": FINDINGS[:13]}, None, "at least two labels must be seen"),
        ({"gamma": -1.0}, None, "gamma must be a number of at least 0"),
        ({"margin": 3.0}, None, "margin must be a number from 0 to 2"),
        ({"common": -1.0}, None, "common must be a number of at least 0"),
        ({"balanced": 1}, None, "balanced must be true or false"),
        ({"loss": "triplet"}, None, "loss must be one of focused, ranking"),
        ({"trunk": "nonet"}, None, "trunk must be small or the name of a model of timm, not 'nonet'"),
        ({"vectors": {"Mass": [1.0]}}, None, "no vector for Atelectasis"),
        ({}, np.zeros((240, 14)), "no row has a label"),
        ({}, np.zeros(240), r"240 rows need targets \[240, C\] of at least two labels"),
        ({}, np.full((240, 14), 2), "targets must be 0 or 1 for each label, or -1"),
        ({}, np.full((240, 14), "a"), "targets must be 0 or 1"),
    ],
)
def test_mistakes_are_explained(films: Films, options: dict[str, Any], targets: Any, message: str) -> None:
    known = {"labels": FINDINGS, "vectors": VECTORS, **QUICK}
    with pytest.raises(UserError, match=message):
        ChestXRayZeroShot(**{**known, **options}).fit(
            films.images, films.targets if targets is None else targets
        )


def test_color_images_are_refused(films: Films) -> None:
    with pytest.raises(UserError, match=r"images must be gray, an array \[N, 1, H, W\]"):
        ChestXRayZeroShot(FINDINGS, VECTORS).fit(np.zeros((240, 3, 32, 32)), films.targets)


def test_the_command_line_fits_and_answers(folder: Path, tmp_path: Path) -> None:
    model, out, figure = tmp_path / "chest.safetensors", tmp_path / "out.csv", tmp_path / "out.png"
    options = "{steps: 4, batch_size: 8, size: 32, unseen: [Edema]}"
    words = ["metric", "fit", "chest_zero_shot", "--root", str(folder), "--out", str(model)]
    assert main([*words, "--options", options]) == 0
    np.save(tmp_path / "new.npy", simulated_vectors()[:1] + 1)
    (tmp_path / "new.txt").write_text("Fracture\n")
    words = ["metric", "predict", str(model), str(folder / "images_001"), "--out", str(out)]
    further = ["--figure", str(figure), "--options", f"{{labels: [Fracture], vectors: {tmp_path}/new.npy}}"]
    assert main([*words, *further]) == 0
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 120
    assert list(rows[0]) == ["film", *FINDINGS, "Fracture", "found"]
    assert figure.stat().st_size > 1000
    assert main([*words, "--options", "{labels: [Fracture]}"]) == 2


def test_the_command_line_evaluates_real_and_simulated_films(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figure = tmp_path / "result.json", tmp_path / "result.png"
    words = ["metric", "evaluate", "chest_zero_shot", "--seeds", "1", "--out", str(out)]
    options = "{steps: 2, batch_size: 8, size: 32, unseen: [Edema, Mass]}"
    assert main([*words, "--root", str(folder), "--options", options]) == 0
    real = json.loads(out.read_text())
    assert {row["role"] for row in real["rows"]} == {"system", "baseline", "ablation"}
    assert "F1@3" in real["rows"][0]["scores"]
    assert "simulated" not in capsys.readouterr().out
    assert main([*words, "--figure", str(figure), "--options", "{steps: 2, batch_size: 8, films: 60}"]) == 0
    assert "simulated: shows the mechanism, not the published figure" in capsys.readouterr().out
    assert "simulated" in json.loads(out.read_text())["simulated"]


def test_rows_choose_the_common_axis_unless_it_is_given() -> None:
    assert all(kind.grid.get("common") == COMMON for kind in _kinds(None) if "common" not in kind.options)
    assert [kind.name for kind in _kinds(None) if "common" not in kind.grid] == [
        "no common axis",
        "vectors not centered, no common axis",
    ]
    assert not any("common" in kind.grid for kind in _kinds(0.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{common: -1}", "common must be a number of at least 0"),
        ("{loss: ranking}", "loss is set by evaluate itself"),
        ("{vectors: absent.npy}", "there is no file absent.npy"),
        ("{films: 0}", "films must be a whole number"),
        ("{unseen: [Rib]}", "unseen: there is no label Rib"),
        ("{table: absent.csv}", "there is no table of findings absent.csv"),
    ],
)
def test_mistakes_of_options_are_explained(
    options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["metric", "evaluate", "chest_zero_shot", "--options", options]) == 2
    assert message in capsys.readouterr().err
