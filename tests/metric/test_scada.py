"""Logs of machines: what is read from tables, how windows are cut, and what is refused."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from lwfm.errors import UserError
from lwfm.metric.data import scada

if TYPE_CHECKING:
    from pathlib import Path

pandas = pytest.importorskip("pandas")


def table(rows: int = 60, **columns: Any) -> Any:
    """Return a table of one-minute samples of two channels and labels."""
    content = {
        "time": pandas.date_range("2024-01-20", periods=rows, freq="min"),
        "power": np.arange(rows, dtype=float),
        "wind": np.sin(np.arange(rows)),
        "anomaly": np.isin(np.arange(rows), [30, 31, 32]).astype(float),
    }
    return pandas.DataFrame({**content, **columns})


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("separator", [",", ";", "\t"], ids=["comma", "semicolon", "tab"])
def test_all_forms_hold_the_same_series(suffix: str, separator: str, tmp_path: Path) -> None:
    path = tmp_path / "pump" / f"unit1.{suffix}"
    path.parent.mkdir()
    if suffix == "parquet":
        table().to_parquet(path)
    else:
        table().to_csv(path, sep=separator, index=False)
    series = scada.read_series(path)
    assert (series.name, series.channels, series.step) == ("unit1", ("power", "wind"), 60)
    assert series.kinds[29:34].tolist() == ["", "pump", "pump", "pump", ""]
    np.testing.assert_array_equal(series.values[:, 0], np.arange(60))
    assert str(np.datetime64(int(series.times[0]), "s")) == "2024-01-20T00:00:00"


@pytest.mark.parametrize("form", ["%d %m %Y %H:%M", "%d.%m.%Y %H:%M", "%Y-%m-%d %H:%M:%S"])
def test_the_format_of_times_is_recognized(form: str, tmp_path: Path) -> None:
    times = pandas.date_range("2024-01-31 22:00", periods=9, freq="h").strftime(form)  # into February
    table(9, time=times).to_csv(tmp_path / "a.csv", index=False)
    series = scada.read_series(tmp_path / "a.csv")
    np.testing.assert_array_equal(np.diff(series.times), 3600)
    assert str(np.datetime64(int(series.times[-1]), "s")) == "2024-02-01T06:00:00"


def test_text_labels_name_the_kind(tmp_path: Path) -> None:
    labels = ["normal"] * 20 + ["leak"] * 10 + [""] * 30
    table(anomaly=labels).to_csv(tmp_path / "a.csv", index=False)
    assert np.unique(scada.read_series(tmp_path / "a.csv").kinds).tolist() == ["", "leak"]


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"time": "soon"}, {}, "are in no known format: give the option time_format"),
        ({"time": pandas.date_range("2024", periods=60, freq="-1min")}, {}, "do not increase: row 2"),
        ({"time": pandas.Timestamp("2024-01-01")}, {}, "do not increase"),
        ({"wind": "strong"}, {}, "column wind of .* holds 'strong', which is no number"),
        ({"wind": np.nan}, {}, "the channel wind of .* has no value at all"),
        ({}, {"channels": ["power", "pitch"]}, "lacks the channels pitch; it has power, wind"),
        ({}, {"time": "hour"}, "has no column hour; it has time, power"),
        ({}, {"ignore": ["power", "wind"]}, "has no channel beside its times"),
    ],
    ids=["format", "descending", "repeated", "text", "empty", "missing", "time", "nothing"],
)  # fmt: skip
def test_wrong_tables_are_refused(
    change: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    table(**change).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(UserError, match=message):
        scada.read_series(tmp_path / "a.csv", **options)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "a.zip"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff\x1f\x8b", b"only text"], ids=["empty", "binary", "text"])
def test_damaged_files_are_refused_with_their_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name):
        scada.read_all(tmp_path / name)


def test_a_folder_without_series_and_one_of_different_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no series"):
        scada.read_all(tmp_path)
    table().to_csv(tmp_path / "a.csv", index=False)
    table(pitch=1.0).to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(UserError, match="a and b have different channels: pitch"):
        scada.read_all(tmp_path)
    assert len(scada.read_all(tmp_path, ignore=["pitch"])) == 2


def test_a_zip_is_read_as_its_folder(tmp_path: Path) -> None:
    table().to_csv(tmp_path / "a.csv", index=False)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.csv", "valve/a.csv")
    (series,) = scada.read_all(tmp_path / "a.zip")
    assert set(series.kinds) == {"", "valve"}


def made(rows: int = 60) -> scada.Series:
    kinds = np.where(np.isin(np.arange(rows), [30, 31, 32]), "leak", "")
    values = np.stack([np.arange(rows), np.arange(rows) % 7], axis=1).astype(np.float32)
    return scada.Series("a", ("power", "wind"), 60 * np.arange(rows, dtype=np.float64), values, kinds)


def test_windows_know_their_end_kind_and_event() -> None:
    windows = scada.cut_windows([made(), made()], window=10, stride=1)
    assert windows.values.shape == (2 * 51, 2, 10)
    np.testing.assert_array_equal(windows.values[:51, 0, -1], np.arange(9, 60))
    np.testing.assert_array_equal(windows.times[:51], 60.0 * np.arange(9, 60))
    kinds = windows.kinds[:51].tolist()
    assert kinds == [""] * 21 + ["leak"] * 3 + ["mixed"] * 9 + [""] * 18
    assert np.unique(windows.events).tolist() == [-1, 0, 1]
    assert windows.onsets.tolist() == [1800, 1800]


def test_no_window_spans_a_gap_or_a_missing_value() -> None:
    series = made()
    series.times[20:] += 600
    series.values[40, 1] = np.nan
    windows = scada.cut_windows([series], window=10, stride=1)
    ends = windows.values[:, 0, -1].astype(int)
    assert ends.tolist() == [*range(9, 20), *range(29, 40), *range(50, 60)]
    wide = scada.cut_windows([series], window=10, stride=1, gap=12)
    assert len(wide.times) > len(windows.times)


def test_a_series_without_a_whole_window_is_refused() -> None:
    series = made()
    series.times[:] = 60.0 * np.arange(60) + 1000.0 * (np.arange(60) // 6)
    with pytest.raises(UserError, match=r"a has no window of 10 samples .* longest stretch has 6"):
        scada.cut_windows([series], window=10, stride=1)


def test_the_healthy_beginning_scales_and_is_left_out() -> None:
    windows = scada.cut_windows([made()], window=10, stride=1, healthy=20)
    assert windows.times[0] == 60.0 * 29
    expected = (29 - np.arange(20).mean()) / np.arange(20).std()
    assert windows.values[0, 0, -1] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(UserError, match="no 100 healthy samples"):
        scada.cut_windows([made()], window=10, stride=1, healthy=100)
