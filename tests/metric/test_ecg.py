"""Reading WFDB records, and the beats cut out of them."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest

from lwfm.errors import UserError
from lwfm.metric.data import ecg
from tests.helpers.ecg_records import write_record

if TYPE_CHECKING:
    from pathlib import Path


def test_the_lead_is_found_by_name_and_beats_are_those_annotated(tmp_path: Path) -> None:
    pvc = write_record(tmp_path, "100")
    recording = ecg.read_record(tmp_path / "100")
    assert recording.lead == "MLII"
    assert set(recording.symbols.tolist()) == {"N", "V"}  # the rhythm annotation is no beat
    np.testing.assert_array_equal(recording.peaks[recording.symbols == "V"], pvc)
    other = ecg.read_record(tmp_path / "100", lead="V5")
    np.testing.assert_allclose(other.signal, -recording.signal, atol=2e-3)


def test_the_r_peak_is_at_its_place_in_the_window(tmp_path: Path) -> None:
    write_record(tmp_path, "100")
    beats = ecg.join_beats(ecg.read_records(tmp_path))
    assert beats.rows.shape == (len(beats.symbols), 2 * 256 + 3)
    assert beats.rows.dtype == np.float32
    assert set(beats.shapes[beats.symbols == "N", 60:140].argmax(1).tolist()) <= {39, 40, 41}
    assert beats.records.tolist() == ["100"] * len(beats.rows)


def test_scaled_shapes_do_not_depend_on_the_gain_of_a_record() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 2 * 256 + 3)).astype(np.float32)
    records = np.array(["100", "101"] * 3)
    scaled = ecg.Beats(rows, np.full(6, "N"), records).scaled_shapes
    gain = np.where(records == "101", 5, 1)[:, None].astype(np.float32)
    np.testing.assert_allclose(
        ecg.Beats(rows * gain + 2, np.full(6, "N"), records).scaled_shapes, scaled, atol=1e-5
    )
    assert not np.allclose(scaled.std(1), 1, atol=1e-3)  # beats of a record keep their sizes


def test_the_typical_beat_is_shifted_to_marks_on_other_waves() -> None:
    """Half of the beats are marked 15 samples late, on the S wave: a median of windows would be a mixture."""
    time = np.arange(20_000)
    places = np.arange(500, 19_000, 300)
    signal = np.zeros(20_000, np.float32)
    for place in places:
        signal += np.exp(-(((time - place) / 4) ** 2)) - 0.8 * np.exp(-(((time - place - 15) / 5) ** 2))
    late = np.arange(len(places)) % 2 == 1
    peaks = places + 15 * late
    rows = ecg.beat_rows(ecg.Recording("", "", signal, peaks, np.full(len(peaks), "N"), 360))
    np.testing.assert_allclose(rows[:, 256:512], rows[:, :256], atol=1e-3)
    assert set(rows[late, 256:512].argmax(1)) == {85}


def test_the_typical_beat_is_that_of_most_beats() -> None:
    random = np.random.default_rng(0)
    signal, places = random.normal(0, 0.01, 20_000).astype(np.float32), np.arange(500, 19_000, 300)
    wide = np.arange(len(places)) % 3 == 2
    for place, width in zip(places, np.where(wide, 20, 4), strict=True):
        signal += np.exp(-(((np.arange(20_000) - place) / width) ** 2)).astype(np.float32)
    typical = ecg.typical_beats(signal, places)
    narrow = np.exp(-(((np.arange(256) - 100) / 4) ** 2))
    np.testing.assert_allclose(typical[~wide], np.tile(narrow, ((~wide).sum(), 1)), atol=0.05)


@pytest.mark.parametrize("peaks", [[0], [0, 999], [500, 501, 502]], ids=str)
def test_few_beats_at_the_edges_have_a_typical_one(peaks: list[int]) -> None:
    signal = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    for values in (signal, np.zeros_like(signal)):
        typical = ecg.typical_beats(values, np.array(peaks))
        assert typical.shape == (len(peaks), 256)
        assert np.isfinite(typical).all()


@pytest.mark.parametrize("rate", [128, 250, 500])
def test_other_rates_are_resampled(tmp_path: Path, rate: int) -> None:
    write_record(tmp_path, "100", rate=rate)
    recording = ecg.read_record(tmp_path / "100")
    assert len(recording.signal) == 60 * 360
    windows = ecg.beat_rows(recording)[recording.symbols == "N", 60:140]
    assert np.abs(windows.argmax(1) - 40).max() <= 3


@pytest.mark.parametrize("rate", [128, 127.9931, 1000 / 3, 359.99, 999.37], ids=str)
def test_signal_and_beats_keep_together_over_a_day(rate: float) -> None:
    """Both are resampled by one ratio, which is within a sample of the rate's after 24 hours."""
    day = round(24 * 3600 * rate)
    assert abs(day * float(ecg._ratio(rate)) - day * ecg.RATE / rate) < 1
    peaks = np.arange(0, day, 997)
    found = np.round(peaks * float(ecg._ratio(rate))).astype(np.int64)
    nothing = np.zeros(0, dtype=np.float32)
    recording = ecg.Recording("", "", nothing, found, np.full(len(found), "N"), rate)
    assert np.abs(recording.file_samples - peaks).max() <= max(1, rate / ecg.RATE / 2)


def test_resampled_beats_are_where_they_were() -> None:
    signal = np.zeros(30_000)
    signal[29_500] = 1
    resampled = ecg._resampled(signal, 127.9931)
    assert abs(int(resampled.argmax()) - round(29_500 * float(ecg._ratio(127.9931)))) <= 1


def test_peaks_are_detected_without_annotations(tmp_path: Path) -> None:
    write_record(tmp_path / "with", "100")
    write_record(tmp_path / "without", "100", annotated=False)
    annotated = ecg.read_record(tmp_path / "with" / "100")
    detected = ecg.read_record(tmp_path / "without" / "100")
    nearest = np.abs(annotated.peaks[:, None] - detected.peaks).min(1)
    assert (nearest <= 15).mean() > 0.95
    assert set(detected.symbols.tolist()) == {""}


def test_a_zip_reads_as_its_folder_does(tmp_path: Path) -> None:
    write_record(tmp_path / "records", "100")
    write_record(tmp_path / "records", "101", seed=1)
    with zipfile.ZipFile(tmp_path / "records.zip", "w") as archive:
        for file in (tmp_path / "records").iterdir():
            archive.write(file, f"mitdb/{file.name}")
    zipped = ecg.join_beats(ecg.read_records(tmp_path / "records.zip"))
    np.testing.assert_array_equal(zipped.rows, ecg.join_beats(ecg.read_records(tmp_path / "records")).rows)


def test_missing_samples_are_interpolated() -> None:
    values = ecg._without_gaps(np.array([np.nan, 1.0, np.nan, 3.0]), "100")
    assert values.tolist() == [1.0, 1.0, 2.0, 3.0]


def test_the_split_is_between_patients() -> None:
    assert len(ecg.DS1) == len(ecg.DS2) == 22
    assert not ecg.DS1 & ecg.DS2
    assert "201" in ecg.DS1
    assert "202" in ecg.DS2  # the same person, as documented there


def damage(path: Path, kind: str) -> Path:
    """Damage the record 100 in a folder; return what to read."""
    if kind == "no data":
        (path / "100.dat").unlink()
    elif kind == "short data":
        (path / "100.dat").write_bytes(b"\0" * 11)
    elif kind == "header":
        (path / "100.hea").write_bytes(b"\xff\xfe garbage")
    elif kind == "no annotations":
        (path / "100.atr").unlink()
    elif kind == "no header":
        (path / "100.hea").unlink()
    elif kind == "zip":
        (path / "records.zip").write_bytes(b"PK\3\4 no zip")
        return path / "records.zip"
    elif kind == "absent":
        return path / "nothing"
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no data", r"record .*100 cannot be read"),
        ("short data", r"record .*100 cannot be read"),
        ("header", r"record .*100 cannot be read"),
        ("no annotations", r"annotations .*100\.atr cannot be read"),
        ("no header", r"holds no WFDB record: there is no \.hea file"),
        ("zip", r"records\.zip is neither a WFDB record nor a readable zip"),
        ("absent", r"there is no WFDB record, folder or zip"),
    ],
)
def test_damaged_records_are_refused_with_name_and_reason(tmp_path: Path, kind: str, message: str) -> None:
    write_record(tmp_path, "100")
    with pytest.raises(UserError, match=message):
        ecg.read_records(damage(tmp_path, kind))


@pytest.mark.parametrize(
    "notes",
    [["## time resolution: 360", "## time resolution: 360"], ["## nonsense"]],
    ids=["two-resolutions", "unknown"],
)
def test_notes_that_wfdb_reads_without_end_are_refused(tmp_path: Path, notes: list[str]) -> None:
    write_record(tmp_path, "100")
    wfdb = pytest.importorskip("wfdb")
    samples, symbols = [*[0] * len(notes), 400, 800], [*['"'] * len(notes), "N", "V"]
    wfdb.wrann("100", "atr", np.array(samples), symbols, aux_note=[*notes, "", ""], write_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"100\.atr are damaged"):
        ecg.read_records(tmp_path)


@pytest.mark.parametrize("rate", ["0.001", "999999999"])
def test_impossible_rates_are_refused(tmp_path: Path, rate: str) -> None:
    write_record(tmp_path, "100")
    header = tmp_path / "100.hea"
    first, rest = header.read_text().split("\n", 1)
    name, signals, _, *samples = first.split()
    header.write_text("\n".join([" ".join([name, signals, rate, *samples]), rest]))
    with pytest.raises(UserError, match=r"samples per second; 50 to 100000 are read"):
        ecg.read_records(tmp_path)


def test_a_missing_lead_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    write_record(tmp_path, "100")
    with pytest.raises(UserError, match="no lead V1: choose one of V5, MLII"):
        ecg.read_record(tmp_path / "100", lead="V1")


def test_a_record_too_short_for_detection_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, "100", seconds=2, annotated=False)
    data = (tmp_path / "100.dat").read_bytes()
    (tmp_path / "100.dat").write_bytes(data[: 4 * 50])
    header = (tmp_path / "100.hea").read_text().replace(" 720", " 50", 1)
    (tmp_path / "100.hea").write_text(header)
    with pytest.raises(UserError, match=r"R peaks cannot be found in the record .*100"):
        ecg.read_record(tmp_path / "100")
