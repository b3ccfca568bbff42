"""Logs of machines: series of several channels, in CSV and parquet files with a time column, and windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm._common.progress import progress
from lwfm._common.ranges import check_at_least, check_between, check_counts
from lwfm._common.text import listed
from lwfm.errors import UserError
from lwfm.metric.data.archives import files_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt
    import pandas

    Values = npt.NDArray[np.float32]
    Times = npt.NDArray[np.float64]
    Names = npt.NDArray[np.str_]

SUFFIXES = (".csv", ".csv.gz", ".parquet")
TIMES = ("datetime", "date/time", "timestamp", "time", "date")
"""Names of the time column, in lower case, in the order in which they are looked for."""
NORMAL = ""
"""Kind of a sample without fault."""
MIXED = "mixed"
"""Kind of a window that ends without fault, with faulty samples before."""
_FORMATS = ("%d %m %Y %H:%M", "%d.%m.%Y %H:%M", "%d/%m/%Y %H:%M", None)
_SPREAD = 1e-6


@dataclass(frozen=True, eq=False)
class Series:
    """Samples of one machine.

    Attributes
    ----------
    name : str
        Of the file, without suffix.
    channels : tuple of str
        C names.
    times : ndarray
        [T] float64 increasing seconds since 1970.
    values : ndarray
        [T, C] float32; NaN where a value is missing.
    kinds : ndarray
        [T] kind of the fault of each sample, "" for none.
    """

    name: str
    channels: tuple[str, ...]
    times: Times
    values: Values
    kinds: Names

    @property
    def step(self) -> float:
        """The seconds from a sample to the next, as most are."""
        return float(np.median(np.diff(self.times)))


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of several series, in order of time within each.

    Attributes
    ----------
    values : ndarray
        [N, C, W] float32.
    times : ndarray
        [N] seconds of the last sample.
    series : ndarray
        [N] name of the series.
    kinds : ndarray
        [N] kind of the fault at the last sample, "" for none; "mixed" where faulty samples precede it.
    events : ndarray
        [N] number of the fault at the last sample, over all series; -1 for none.
    onsets : ndarray
        [E] seconds at which each of these faults begins.
    hours : float
        From a window to the next.
    """

    values: Values
    times: Times
    series: Names
    kinds: Names
    events: npt.NDArray[np.int64]
    onsets: Times
    hours: float

    @property
    def normal(self) -> npt.NDArray[np.bool_]:
        """Which windows are free of faults, [N]."""
        return np.asarray(self.kinds == NORMAL)

    def __getitem__(self, chosen: npt.NDArray[Any]) -> Windows:
        """Return some of the windows, chosen by a mask or by indices."""
        return Windows(
            self.values[chosen], self.times[chosen], self.series[chosen], self.kinds[chosen],
            self.events[chosen], self.onsets, self.hours,
        )  # fmt: skip


def read_all(root: Path, **options: Any) -> list[Series]:
    """Read all series of a folder or zip, or one file, with a progress bar; see :func:`read_series`.

    Raises
    ------
    UserError
        Also where the files have different channels.
    """
    with files_of(root, SUFFIXES, what="series") as paths:
        found = [read_series(path, **options) for path in progress(paths, "reading", "file")]
    for each in found[1:]:
        if each.channels != found[0].channels:
            differing = sorted(set(each.channels) ^ set(found[0].channels)) or ["in another order"]
            raise UserError(
                f"{found[0].name} and {each.name} have different channels: {listed(differing, 5)}; "
                "name those to leave out by the option ignore"
            )
    return found


def read_series(
    path: Path,
    *,
    time: str | None = None,
    time_format: str | None = None,
    label: str | None = "anomaly",
    ignore: Sequence[str] = (),
    channels: Sequence[str] | None = None,
) -> Series:
    """Read a series from a .csv, .csv.gz (fields separated by commas, semicolons or tabs) or .parquet file.

    Parameters
    ----------
    path : Path
        The file.
    time, time_format : str, optional
        Column of the times, by default the first of :data:`TIMES` that exists; and its format, such as
        ``%d.%m.%Y %H:%M``, where it is not recognized.
    label : str, optional
        Column of faults, which need not exist: 0 or empty for none; other numbers are faults of the kind that
        the file's folder names, and text names the kind itself.
    ignore : sequence of str
        Columns that are not channels.
    channels : sequence of str, optional
        Those to read, in this order; by default all other columns.

    Raises
    ------
    UserError
        Naming the file and what is wrong with it: unreadable, no times or times that do not increase, missing
        channels, a channel of text or without any value.
    """
    table = _read_table(path)
    times = _read_times(table, path, time, time_format)
    column = _time_column(table, path, time)
    others = [name for name in table.columns if name not in {column, label, *ignore}]
    chosen = list(channels) if channels is not None else others
    if missing := [name for name in chosen if name not in table.columns]:
        raise UserError(f"{path} lacks the channels {listed(missing, 5)}; it has {listed(others, 12)}")
    if not chosen:
        raise UserError(f"{path} has no channel beside its times")
    values = np.stack([_numbers(table[name], path) for name in chosen], axis=1)
    kinds = _kinds(table[label], path.parent.name) if label in table.columns else np.full(len(times), NORMAL)
    return Series(path.name.split(".")[0], tuple(chosen), times, values, kinds)


def _read_table(path: Path) -> pandas.DataFrame:
    import pandas  # the extra `scada`

    try:
        if path.suffix.lower() == ".parquet":
            table = pandas.read_parquet(path)
            if not isinstance(table.index, pandas.RangeIndex):
                table = table.reset_index()
        else:
            table = pandas.read_csv(path, sep=None, engine="python", encoding="utf-8-sig")
    except Exception as error:  # pandas and pyarrow raise anything on damaged files
        raise UserError(f"{path} is not a readable table: {error}") from error
    table.columns = [str(name) for name in table.columns]
    if len(table) < 2:
        raise UserError(f"{path} has {len(table)} rows: a series needs more")
    return table


def _time_column(table: pandas.DataFrame, path: Path, time: str | None) -> str:
    if time is not None:
        if time not in table.columns:
            raise UserError(f"{path} has no column {time}; it has {listed(list(table.columns), 12)}")
        return time
    lower = {name.strip().lower(): name for name in table.columns}
    found: str | None = next((lower[name] for name in TIMES if name in lower), None)
    if found is None:
        raise UserError(
            f"{path} has no time column ({', '.join(TIMES)}): name it by the option time; "
            f"it has {listed(list(table.columns), 12)}"
        )
    return found


def _read_times(table: pandas.DataFrame, path: Path, time: str | None, given: str | None) -> Times:
    """Return the times in seconds; numbers are seconds, and texts are read in the first format that fits."""
    import pandas

    column = table[_time_column(table, path, time)]
    if column.dtype.kind in "iuf":
        times: Times = column.to_numpy(np.float64)
    else:
        parsed = None
        for form in (given,) if given else _FORMATS:
            try:
                parsed = pandas.to_datetime(column, format=form, utc=True)
            except (ValueError, TypeError, OverflowError):
                continue
            if parsed.is_monotonic_increasing:
                break
        if parsed is None:
            raise UserError(
                f"the times of {path}, such as {column.iloc[0]!r}, are in no known format: give the option "
                "time_format, such as '%d.%m.%Y %H:%M'"
            )
        times = ((parsed - pandas.Timestamp(0, tz="UTC")) / pandas.Timedelta(seconds=1)).to_numpy(np.float64)
    if not np.isfinite(times).all():
        raise UserError(f"{path} has rows without a time: row {int(np.argmin(np.isfinite(times))) + 1}")
    late = np.flatnonzero(np.diff(times) <= 0)
    if len(late):
        raise UserError(
            f"the times of {path} do not increase: row {int(late[0]) + 2} is not after the row before it; "
            "sort the rows, and remove repeated ones"
        )
    return times


def _numbers(column: Any, path: Path) -> Values:
    import pandas

    numbers: Values = pandas.to_numeric(column, errors="coerce").to_numpy(np.float32)
    text = np.isnan(numbers) & column.notna().to_numpy()
    if text.any():
        first = column.iloc[int(np.argmax(text))]
        raise UserError(
            f"the column {column.name} of {path} holds {first!r}, which is no number: leave the column "
            "out by the option ignore"
        )
    numbers[~np.isfinite(numbers)] = np.nan
    if np.isnan(numbers).all():
        raise UserError(f"the channel {column.name} of {path} has no value at all")
    return numbers


def _kinds(column: Any, folder: str) -> Names:
    import pandas

    numbers = pandas.to_numeric(column, errors="coerce")
    if (numbers.notna() | column.isna()).all():
        return np.where(numbers.fillna(0).to_numpy() != 0, folder or "fault", NORMAL).astype(np.str_)
    text = column.fillna("").astype(str).str.strip()
    return np.where(text.str.lower().isin(["", "0", "normal", "none"]), NORMAL, text).astype(np.str_)


def cut_windows(
    series: Sequence[Series], window: int, stride: int, *, gap: float = 3.0, healthy: int = 0
) -> Windows:
    """Cut series into windows that no gap in time and no missing value interrupts.

    Parameters
    ----------
    series : sequence of Series
        Of the same channels.
    window, stride : int
        W samples of a window, and samples from one to the next.
    gap : float
        Longest step within a window, in usual steps of the series.
    healthy : int
        Samples at the beginning of each series that are known to be free of faults, by whose mean and
        standard deviation its channels are scaled; windows begin after them. 0: values stay as they are.

    Raises
    ------
    UserError
        Where a series has no whole window, naming its longest stretch.
    """
    check_counts(window=window, stride=stride)
    check_at_least(2, window=window)
    check_between(1, float("inf"), gap=gap)
    check_between(0, float("inf"), healthy=healthy)
    parts, onsets = [], 0
    for each in series:
        parts.append(_cut(each, window, stride, gap, healthy, onsets))
        onsets += len(parts[-1].onsets)
    names = ("values", "times", "series", "kinds", "events", "onsets")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Windows(**joined, hours=parts[0].hours)


def _cut(series: Series, window: int, stride: int, gap: float, healthy: int, events_before: int) -> Windows:
    values = _scaled_by_beginning(series, healthy) if healthy else series.values
    usable = np.asarray(~np.isnan(values).any(axis=1))
    usable[:healthy] = False
    joined = np.r_[False, np.diff(series.times) <= gap * series.step] & usable & np.r_[False, usable[:-1]]
    position = np.arange(len(usable))
    since = position - np.maximum.accumulate(np.where(joined, 0, position))  # samples before, uninterrupted
    ends = np.flatnonzero(usable & (since >= window - 1))
    # One in `stride` of the series, and not of the stretches: the same grid of time for every channel set.
    ends = ends[(ends - (window - 1)) % stride == 0]
    if not len(ends):
        longest = int((since[usable] + 1).max(initial=0))
        raise UserError(
            f"{series.name} has no window of {window} samples without gap and missing value: its longest "
            f"stretch has {longest}; choose another window or gap, or ignore a channel that is often missing"
        )
    faulty = series.kinds != NORMAL
    begins = faulty & (np.concatenate([[NORMAL], series.kinds[:-1]]) != series.kinds)
    numbers = events_before + begins.cumsum() - 1
    rows = ends[:, None] + np.arange(1 - window, 1)
    kinds = series.kinds[ends].astype(object)
    kinds[~faulty[ends] & faulty[rows].any(1)] = MIXED
    return Windows(
        values[rows].transpose(0, 2, 1).copy(),
        series.times[ends],
        np.full(len(ends), series.name),
        kinds.astype(np.str_),
        np.where(faulty[ends], numbers[ends], -1),
        series.times[begins],
        stride * series.step / 3600,
    )


def _scaled_by_beginning(series: Series, healthy: int) -> Values:
    first = series.values[:healthy]
    if not np.isfinite(first).any(0).all() or len(first) < healthy:
        raise UserError(f"{series.name} has no {healthy} healthy samples of every channel at its beginning")
    spread = np.nanstd(first, axis=0)
    scaled: Values = (series.values - np.nanmean(first, axis=0)) / np.where(spread > _SPREAD, spread, 1)
    return scaled
