"""The PVC detector: as an estimator of scikit-learn, on files, and from the command line."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import PVCDetector
from lwfm.metric.data import ecg
from lwfm.metric.systems.pvc_beats import _forms, _raw_neighbors, as_other_leads, varied
from tests.helpers.ecg_records import wfdb, write_record

if TYPE_CHECKING:
    from pathlib import Path

QUICK: dict[str, Any] = {"networks": 1, "steps": 12, "batch_size": 24, "references": 100}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records of each side of the split between patients."""
    folder: Path = tmp_path_factory.mktemp("records")
    for seed, name in enumerate(("101", "106", "100", "103")):
        write_record(folder, name, seconds=90, seed=seed)
    return folder


@pytest.fixture(scope="module")
def beats(records: Path) -> ecg.Beats:
    return ecg.join_beats(ecg.read_records(records))


@pytest.fixture(scope="module")
def fitted(beats: ecg.Beats) -> PVCDetector:
    return PVCDetector(**QUICK).fit(beats.rows, beats.is_pvc, groups=beats.records)


def test_wide_beats_are_told_from_narrow_ones(fitted: PVCDetector, beats: ecg.Beats) -> None:
    assert fitted.score(beats.rows, beats.is_pvc) > 0.97
    shares = fitted.predict_proba(beats.rows)
    np.testing.assert_allclose(shares.sum(1), 1)
    np.testing.assert_allclose(np.linalg.norm(fitted.transform(beats.rows[:5]), axis=1), 1, rtol=1e-5)


def test_the_same_seed_repeats_to_the_bit(fitted: PVCDetector, beats: ecg.Beats) -> None:
    torch.manual_seed(5)  # the global state must not matter
    state = torch.get_rng_state()
    again = clone(fitted).fit(beats.rows, beats.is_pvc, groups=beats.records)
    np.testing.assert_array_equal(again.transform(beats.rows), fitted.transform(beats.rows))
    assert torch.equal(torch.get_rng_state(), state)
    other = clone(fitted).set_params(seed=1).fit(beats.rows, beats.is_pvc, groups=beats.records)
    assert not np.array_equal(other.transform(beats.rows), fitted.transform(beats.rows))


def test_the_vote_of_all_has_every_beat(fitted: PVCDetector, beats: ecg.Beats) -> None:
    voting = clone(fitted).fit(beats.rows, beats.is_pvc, groups=beats.records)
    assert len(voting.decision_.references) == 100
    voting.vote_of_all(beats.rows, beats.is_pvc)
    np.testing.assert_array_equal(voting.decision_.references, voting.transform(beats.rows))
    assert voting.get_params() == fitted.get_params()  # a clone votes as this one was told to
    assert voting.score(beats.rows, beats.is_pvc) > 0.97
    voting.fit(beats.rows, beats.is_pvc, groups=beats.records)
    np.testing.assert_array_equal(voting.predict_proba(beats.rows), fitted.predict_proba(beats.rows))


def test_the_vote_of_all_is_saved(fitted: PVCDetector, beats: ecg.Beats, tmp_path: Path) -> None:
    voting = clone(fitted).fit(beats.rows, beats.is_pvc, groups=beats.records)
    voting.vote_of_all(beats.rows, beats.is_pvc).save(tmp_path / "pvc.safetensors")
    loaded = PVCDetector.load(tmp_path / "pvc.safetensors")
    shares = loaded.predict_proba(beats.rows)
    np.testing.assert_array_equal(shares, voting.predict_proba(beats.rows))
    assert set((5 * shares[:, 1]).round(6)) <= {0, 1, 2, 3, 4, 5}


def test_a_grid_search_over_patients_runs(beats: ecg.Beats) -> None:
    detector = PVCDetector(networks=1, steps=2, batch_size=16)
    search = GridSearchCV(detector, {"k": [1, 3]}, cv=GroupKFold(2), scoring="f1")
    search.fit(beats.rows, beats.is_pvc, groups=beats.records)
    assert search.best_params_["k"] in {1, 3}


def test_a_saved_detector_answers_as_before(fitted: PVCDetector, beats: ecg.Beats, tmp_path: Path) -> None:
    fitted.save(tmp_path / "pvc.safetensors")
    loaded = PVCDetector.load(tmp_path / "pvc.safetensors")
    assert loaded.get_params() == fitted.get_params()
    np.testing.assert_array_equal(loaded.predict_proba(beats.rows), fitted.predict_proba(beats.rows))


def test_networks_are_trained_apart_joined_and_saved(
    fitted: PVCDetector, beats: ecg.Beats, tmp_path: Path
) -> None:
    joined = clone(fitted).set_params(networks=2).fit(beats.rows, beats.is_pvc, groups=beats.records)
    both = joined.transform(beats.rows) * np.sqrt(2)
    np.testing.assert_allclose(both[:, :32], fitted.transform(beats.rows), atol=1e-6)
    assert not np.allclose(both[:, 32:], both[:, :32], atol=0.1)
    assert joined.score(beats.rows, beats.is_pvc) > 0.97
    joined.save(tmp_path / "pvc.safetensors")
    loaded = PVCDetector.load(tmp_path / "pvc.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(beats.rows), joined.predict_proba(beats.rows))


@pytest.mark.parametrize("networks", [1, 2])
def test_every_input_is_answered_by_both_losses_with_as_many_networks(
    beats: ecg.Beats, networks: int
) -> None:
    forms = _forms(beats, networks)
    trained = [
        (inputs.shape[1], each.get("networks", networks), each["loss"]) for _, _, inputs, each in forms
    ]
    expected = {(columns, 1) for columns in (515, 259, 256)} | {(515, networks)}
    losses = ("triplet", "cross_entropy")
    assert sorted(trained) == sorted((*form, loss) for form in expected for loss in losses)
    assert len({name for name, *_ in forms}) == len(forms)
    assert [role for _, role, _, _ in forms].count("system") == 1


def test_damaged_models_are_refused(fitted: PVCDetector, tmp_path: Path) -> None:
    path = tmp_path / "pvc.safetensors"
    with pytest.raises(UserError, match="there is no model"):
        PVCDetector.load(path)
    fitted.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable"):
        PVCDetector.load(path)


@pytest.mark.parametrize(
    ("rows", "labels", "options", "message"),
    [
        (np.zeros((4, 256)), np.zeros(3, bool), {}, "4 rows need as many labels"),
        (np.zeros((4, 256)), np.zeros(4, bool), {}, "at least two classes"),
        (np.zeros((4, 100)), np.arange(4) > 1, {}, r"beats must be rows \[N, 256\]"),
        (np.full((4, 256), np.nan), np.arange(4) > 1, {}, "NaN"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"loss": "contrastive"}, "loss must be one of triplet"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"seed": -1}, "seed must be"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"seed": "a"}, "seed must be"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"steps": 0}, "steps must be a whole number of at least 1"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"k": -1}, "k must be a whole number of at least 1"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"batch_size": 1}, "batch_size must be at least 2"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"learning_rate": np.nan}, "learning_rate must be a number"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"margin": "0.2"}, "margin must be a number of at least 0"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"share": 2}, "share must be a number from 0 to 1"),
        (np.zeros((4, 256)), np.arange(4) > 1, {"networks": 0}, "networks must be a whole number"),
        (np.zeros((4, 256)), np.arange(4), {}, "must have two classes, PVC and others, not 4"),
    ],
    ids=[
        "labels", "one-class", "length", "nan", "loss", "negative-seed", "text-seed", "steps", "k",
        "batch-size", "learning-rate", "margin", "share", "networks", "four-classes",
    ],
)  # fmt: skip
def test_wrong_input_is_refused(
    rows: np.ndarray, labels: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        PVCDetector(**{**QUICK, **options}).fit(rows, labels)


@pytest.mark.parametrize("form", ["rows", "shapes"])
def test_variation_keeps_shape_and_leaves_the_input(beats: ecg.Beats, form: str) -> None:
    rows = torch.as_tensor(getattr(beats, form)[:8])
    before = rows.clone()
    changed = varied(rows)
    assert changed.shape == rows.shape
    assert torch.equal(rows, before)
    similar = torch.cosine_similarity(changed[:, :256], rows[:, :256])
    assert not torch.equal(changed, rows)
    assert (similar if form == "shapes" else similar.abs()).median() > 0.3


def test_other_leads_show_a_beat_and_the_typical_one_alike() -> None:
    time = torch.arange(256.0)
    beat = torch.exp(-(((time - 100) / 8) ** 2) / 2)
    torch.manual_seed(0)
    changed = as_other_leads(beat.expand(200, 2, 256))
    assert changed.shape == (200, 2, 256)
    torch.testing.assert_close(changed[:, 0], changed[:, 1])
    upright = changed[:, 0, 90:110].mean(1) > 0
    assert 0.3 < upright.float().mean() < 0.7
    assert (changed[:, 0].abs().argmax(1) - 100).abs().max() <= 20  # the R peak stays near its place
    assert changed[:, 0].std(1).min() > 0.5 * beat.std()


def test_the_commands_evaluate_fit_and_predict(records: Path, tmp_path: Path) -> None:
    result, figure = tmp_path / "result.json", tmp_path / "result.png"
    options = ["--options", "{networks: 1, steps: 3, batch_size: 16}"]
    arguments = ["evaluate", "pvc_beats", "--root", str(records), "--seeds", "2", *options]
    assert main(["metric", *arguments, "--out", str(result), "--figure", str(figure)]) == 0
    content = json.loads(result.read_text())
    assert (content["system"], content["seeds"]) == ("pvc_beats", [0, 1])
    assert {row["role"] for row in content["rows"]} == {"system", "baseline", "ablation"}
    assert all(len(values) == 2 for row in content["rows"] for values in row["scores"].values())
    assert {each["metric"] for each in content["differences"]} >= {"F1", "sensitivity", "PPV"}
    assert figure.stat().st_size > 1000

    model, out = tmp_path / "pvc.safetensors", tmp_path / "answers" / "beats.csv"
    assert main(["metric", "fit", "pvc_beats", "--root", str(records), "--out", str(model), *options]) == 0
    strip = tmp_path / "strip.png"
    inputs = [str(records / "100"), str(records / "103.hea")]
    assert main(["metric", "predict", str(model), *inputs, "--out", str(out), "--figure", str(strip)]) == 0
    rows = list(csv.DictReader(out.open()))
    assert {row["record"] for row in rows} == {"100", "103"}
    written = wfdb.rdann(str(out.parent / "100"), "pvc")
    expected = [int(row["sample"]) for row in rows if row["record"] == "100"]
    assert written.sample.tolist() == expected
    assert strip.stat().st_size > 1000


def test_records_with_dots_and_spaces_are_answered(fitted: PVCDetector, tmp_path: Path) -> None:
    write_record(tmp_path, "100", seed=8)
    for suffix in ("hea", "atr"):
        (tmp_path / f"100.{suffix}").rename(tmp_path / f"night 1.5.{suffix}")
    fitted.save(tmp_path / "pvc.safetensors")
    out = tmp_path / "beats.csv"
    words = ["metric", "predict", str(tmp_path / "pvc.safetensors"), str(tmp_path / "night 1.5")]
    assert main([*words, "--out", str(out)]) == 0
    samples = [int(row["sample"]) for row in csv.DictReader(out.open())]
    written = wfdb.rdann(str(tmp_path / "night 1.5"), "pvc")
    assert written.sample.tolist() == samples
    assert samples == [
        sample
        for sample, symbol in zip(*_annotations(tmp_path / "night 1.5"), strict=True)
        if symbol in ecg.BEAT_SYMBOLS
    ]


def _annotations(record: Path) -> tuple[list[int], list[str]]:
    found = wfdb.rdann(str(record), "atr")
    return found.sample.tolist(), found.symbol


def test_two_records_of_one_name_are_refused(
    fitted: PVCDetector, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("first", "second"):
        write_record(tmp_path / folder, "100")
    fitted.save(tmp_path / "pvc.safetensors")
    inputs = [str(tmp_path / folder) for folder in ("first", "second")]
    out = tmp_path / "beats.csv"
    words = ["metric", "predict", str(tmp_path / "pvc.safetensors"), *inputs, "--out", str(out)]
    assert main(words) == 2
    assert "two inputs are named 100" in capsys.readouterr().err
    assert not out.exists()


def test_a_model_of_windows_alone_answers_no_records(
    records: Path, beats: ecg.Beats, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    detector = PVCDetector(networks=1, steps=2, batch_size=16).fit(beats.shapes, beats.is_pvc)
    detector.save(tmp_path / "pvc.safetensors")
    words = ["metric", "predict", str(tmp_path / "pvc.safetensors"), str(records / "100")]
    assert main([*words, "--out", str(tmp_path / "beats.csv")]) == 2
    assert "fitted on windows alone" in capsys.readouterr().err


def test_the_share_counts_in_the_vote_without_learning(beats: ecg.Beats) -> None:
    every, test = np.arange(len(beats.rows)), np.ones(len(beats.rows), dtype=bool)
    found = [_raw_neighbors(beats, every, test, 5, share)["sensitivity"] for share in (0.0, 0.5, 1.0)]
    assert found[0] >= found[1] > found[2] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "nothing", "--root", "."], "there is no system nothing: choose one of pvc_beats"),
        (["evaluate", "pvc_beats", "--root", "absent"], "there is no file or folder absent"),
        (["evaluate", "pvc_beats", "--root", ".", "--seeds", "0"], "seeds must be at least 1"),
        (["fit", "pvc_beats", "--root", ".", "--out", "x.pt"], "must have the suffix .safetensors"),
        (
            ["fit", "pvc_beats", "--root", ".", "--out", "x.safetensors", "--options", "{kk: 1}"],
            "no option kk",
        ),
        (
            ["fit", "pvc_beats", "--root", ".", "--out", "x.safetensors", "--options", "{root: x}"],
            "root is an argument of fit, not one of the options",
        ),
        (
            ["evaluate", "pvc_beats", "--root", ".", "--options", "{seeds: 2}"],
            "seeds is an argument of evaluate",
        ),
        (
            ["evaluate", "pvc_beats", "--root", ".", "--options", "{loss: triplet}"],
            "loss is set by evaluate itself",
        ),
        (
            ["evaluate", "pvc_beats", "--root", ".", "--options", "{steps: 0}"],
            "steps must be a whole number of at least 1, not 0",
        ),
        (["predict", "absent.safetensors", "x", "--out", "x.csv"], "there is no model"),
    ],
    ids=[
        "system",
        "root",
        "seeds",
        "suffix",
        "option",
        "option-root",
        "option-seeds",
        "option-loss",
        "steps",
        "model",
    ],
)
def test_mistakes_are_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["metric", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_list_names_every_system(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metric", "list"]) == 0
    assert "pvc_beats" in capsys.readouterr().out
