"""ECG records in the WFDB format (.hea, .dat, annotations), and the beats in them.

Beats are windows of :data:`BEFORE` + :data:`AFTER` samples around the R peaks, at 360 samples a second, after
a band-pass filter from 0.5 to 40 Hz.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm._common.progress import progress
from lwfm._common.text import listed
from lwfm.errors import UserError
from lwfm.metric.data.archives import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

RATE = 360
"""Samples a second, to which records are resampled."""
RATES = 50, 100_000
"""The least and the most samples a second that are read."""
BEFORE, AFTER = 100, 156
"""Samples of a beat before and from its R peak."""
LENGTH = BEFORE + AFTER
BEAT_SYMBOLS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""Annotations of WFDB that mark beats."""
PVC = "V"
"""Symbol of a premature ventricular contraction."""
CONTEXT = 3
"""Values beside a beat: the logarithms of three ratios of RR intervals."""

DS1 = frozenset(
    ("101 106 108 109 112 114 115 116 118 119 122 124 201 203 205 207 208 209 215 220 223 230").split()  # noqa: SIM905
)
"""Training records of the inter-patient split of the MIT-BIH Arrhythmia Database [1]_.

.. [1] P. de Chazal, M. O'Dwyer, R. B. Reilly, "Automatic Classification of Heartbeats Using ECG Morphology
   and Heartbeat Interval Features", IEEE TBME 51(7), 2004.
"""
DS2 = frozenset(
    ("100 103 105 111 113 117 121 123 200 202 210 212 213 214 219 221 222 228 231 232 233 234").split()  # noqa: SIM905
)
"""Test records of the same split. Record 202 is of the same person as 201, which is in DS1."""

_EDGE_HZ = (0.5, 40.0)
_RHYTHM = 10
"""Beats before and after one whose RR intervals are its rhythm (their median)."""
_CLIP = 1.5
_LAG = 20
"""Samples by which the typical beat is shifted, at most, to match another one."""
_DENOMINATOR = 100_000


@dataclass(frozen=True, eq=False)
class Recording:
    """One lead of a record.

    Attributes
    ----------
    name : str
        Of the record.
    lead : str
        Of the signal.
    signal : ndarray
        [n] float32 mV at 360 samples a second, filtered.
    peaks : ndarray
        [B] int64 samples of the R peaks, at 360 samples a second.
    symbols : ndarray
        [B] annotations, one letter each; "" where the peaks were detected.
    rate : float
        Samples a second in the file.
    """

    name: str
    lead: str
    signal: npt.NDArray[np.float32]
    peaks: npt.NDArray[np.int64]
    symbols: npt.NDArray[np.str_]
    rate: float

    @property
    def file_samples(self) -> npt.NDArray[np.int64]:
        """The R peaks in samples of the file, [B]."""
        return np.round(self.peaks / float(_ratio(self.rate))).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Beats:
    """Beats of several records.

    Attributes
    ----------
    rows : ndarray
        [N, 515] float32: the windows [N, 256] in mV; the record's typical beat [256], shifted to match each,
        see :func:`typical_beats`; the logarithms of three ratios of RR intervals: before the beat to the
        local rhythm, after it to the local rhythm, after to before.
    symbols, records : ndarray
        [N] annotation and record of each beat.
    """

    rows: npt.NDArray[np.float32]
    symbols: npt.NDArray[np.str_]
    records: npt.NDArray[np.str_]

    @property
    def shapes(self) -> npt.NDArray[np.float32]:
        """The windows alone, [N, 256]."""
        return self.rows[:, :LENGTH]

    @property
    def scaled_shapes(self) -> npt.NDArray[np.float32]:
        """The windows with mean 0 and standard deviation 1 over all windows of their record, [N, 256]."""
        scaled = self.shapes.copy()
        for record in np.unique(self.records):
            rows = self.records == record
            scaled[rows] -= scaled[rows].mean()
            scaled[rows] /= max(scaled[rows].std(), 1e-6)
        return scaled

    @property
    def shapes_and_rr(self) -> npt.NDArray[np.float32]:
        """The windows and the ratios of RR intervals, [N, 259]."""
        return np.concatenate([self.shapes, self.rows[:, 2 * LENGTH :]], axis=1)

    @property
    def is_pvc(self) -> npt.NDArray[np.bool_]:
        """Whether each beat is annotated as premature ventricular contraction, [N]."""
        return np.asarray(self.symbols == PVC)


def beat_rows(recording: Recording) -> npt.NDArray[np.float32]:
    """Cut the beats [B, 515] of a recording, see :class:`Beats`; edges repeat the first or last sample."""
    windows = _windows(recording.signal, recording.peaks)
    typical = typical_beats(recording.signal, recording.peaks)
    return np.concatenate([windows, typical, rr_ratios(recording.peaks)], axis=1).astype(np.float32)


def typical_beats(signal: npt.NDArray[np.float32], peaks: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the typical beat [B, 256] of a signal, shifted to match each of its beats best.

    Annotators and detectors mark the R wave of one beat and the S wave of the next: a median of windows
    around such marks is a mixture, from which all of them differ. So the beat that correlates best with most
    others, each shifted by up to 20 samples, is taken first, and then twice the median of the beats at the
    places where it matches them.

    Parameters
    ----------
    signal : ndarray
        [n] float32.
    peaks : ndarray
        [B] int64.

    Examples
    --------
    >>> signal = np.zeros(3000, np.float32); signal[[500, 1000, 1500, 2000]] = 1
    >>> beats = typical_beats(signal, np.array([500, 1000, 1510, 2000]))
    >>> beats.argmax(1).tolist()
    [100, 100, 90, 100]
    """
    few, more = (peaks[:: len(peaks) // count + 1] for count in (600, 2000))
    candidates = _windows(signal, few[np.linspace(0, len(few) - 1, min(40, len(few))).astype(int)], _LAG)
    some = _windows(signal, few)
    typical = max(candidates, key=lambda beat: float(np.median(_matches(some, beat)[1])))
    some = _windows(signal, more)
    for _ in range(2):
        places = (more - _matches(some, typical)[0]).clip(0, len(signal) - 1)
        typical = np.median(_windows(signal, places, _LAG), axis=0)
    shifts, _ = _matches(_windows(signal, peaks), typical)
    shifted: npt.NDArray[np.float32] = np.lib.stride_tricks.sliding_window_view(typical, LENGTH)[
        shifts + _LAG
    ]
    return shifted


def _windows(
    signal: npt.NDArray[np.float32], peaks: npt.NDArray[np.int64], margin: int = 0
) -> npt.NDArray[np.float32]:
    """Cut [B, 256 + 2 * margin] around peaks; the first or last sample is repeated beyond the edges."""
    padded = np.pad(signal, (BEFORE + margin, AFTER + margin), mode="edge")
    cut: npt.NDArray[np.float32] = padded[peaks[:, None] + np.arange(LENGTH + 2 * margin)]
    return cut


def _matches(
    windows: npt.NDArray[np.float32], beat: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return how far each window [B, 256] is shifted against a beat [256 + 2 * 20], and their correlation."""
    shifted = np.lib.stride_tricks.sliding_window_view(beat, LENGTH)
    correlations = _unit(windows) @ _unit(shifted).T
    return correlations.argmax(1) - _LAG, correlations.max(1)


def _unit(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return rows with mean 0 and length 1; constant ones become 0."""
    centered = rows - rows.mean(1, keepdims=True)
    unit: npt.NDArray[np.float32] = centered / np.maximum(
        np.linalg.norm(centered, axis=1, keepdims=True), 1e-9
    )
    return unit


def rr_ratios(peaks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Compute the logarithms [B, 3] of ratios of RR intervals, at most 1.5 in size.

    Examples
    --------
    >>> rr_ratios(np.array([0, 100, 150, 300, 400, 500])).round(2).tolist()[1:3]
    [[0.0, -0.69, -0.69], [-0.69, 0.41, 1.1]]
    """
    from scipy.ndimage import median_filter

    if len(peaks) < 3:
        return np.zeros((len(peaks), CONTEXT))
    intervals = np.maximum(np.diff(peaks), 1).astype(np.float64)
    before, after = np.r_[intervals[0], intervals], np.r_[intervals, intervals[-1]]
    rhythm = median_filter(before, 2 * _RHYTHM + 1, mode="nearest")
    ratios = np.c_[np.log(before / rhythm), np.log(after / rhythm), np.log(after / before)]
    clipped: npt.NDArray[np.float64] = ratios.clip(-_CLIP, _CLIP)
    return clipped


def join_beats(recordings: Sequence[Recording]) -> Beats:
    """Join the beats of recordings, in their order."""
    return Beats(
        np.concatenate([beat_rows(each) for each in recordings]),
        np.concatenate([each.symbols for each in recordings]),
        np.concatenate([np.full(len(each.peaks), each.name) for each in recordings]),
    )


@contextmanager
def record_paths(root: Path) -> Iterator[list[Path]]:
    """Yield the paths, without suffix, of all records of a folder or zip, or of the one that is named.

    Raises
    ------
    UserError
        When there is none, or the zip is damaged.
    """
    single = root.with_suffix("") if root.suffix in {".hea", ".dat"} else root
    if single.with_name(f"{single.name}.hea").is_file():
        yield [single]
    elif root.is_dir():
        yield _checked_paths(root, root)
    elif root.is_file():
        with unpacked(root, other="a WFDB record", content="them") as folder:
            yield _checked_paths(folder, root)
    else:
        raise UserError(f"there is no WFDB record, folder or zip {root}")


def _checked_paths(folder: Path, root: Path) -> list[Path]:
    paths = sorted(path.with_suffix("") for path in folder.rglob("*.hea"))
    if not paths:
        raise UserError(f"{root} holds no WFDB record: there is no .hea file")
    return paths


def read_records(
    root: Path, *, lead: str = "MLII", annotator: str = "atr", annotated: bool = True
) -> list[Recording]:
    """Read one lead of all records of a folder or zip, with a progress bar.

    Parameters
    ----------
    root : Path
        A folder or zip of records, or one record.
    lead, annotator, annotated
        See :func:`read_record`.
    """
    with record_paths(root) as paths:
        shown = progress(paths, "reading", "record")
        return [read_record(path, lead=lead, annotator=annotator, annotated=annotated) for path in shown]


def read_record(
    path: Path, *, lead: str = "MLII", annotator: str = "atr", annotated: bool | None = None
) -> Recording:
    """Read one lead of a record and its beats.

    Parameters
    ----------
    path : Path
        Of the record, without suffix.
    lead : str
        Name of the lead in the header; of a record with one lead, that one under any name.
    annotator : str
        Suffix of the annotation file.
    annotated : bool, optional
        Whether beats are those of the annotation file (True), or found by neurokit2's detector of R peaks
        (False). None: annotated, if there is such a file.

    Raises
    ------
    UserError
        Naming the record and what is wrong with it: damaged or missing files, no such lead, no beats.
    """
    import wfdb  # the extra `ecg`

    name = str(path)
    try:
        header = wfdb.rdheader(name)
        channel = _channel(header.sig_name or [], lead)
        record = wfdb.rdrecord(name, channels=[channel])
        values = np.asarray(record.p_signal[:, 0], dtype=np.float64)
    except UserError as error:
        raise UserError(f"the record {name}: {error}") from error
    except Exception as error:  # wfdb raises anything on damaged files
        raise UserError(f"the record {name} cannot be read: {error}") from error
    rate = float(record.fs)
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(
            f"the record {name} has {rate:g} samples per second; {RATES[0]} to {RATES[1]} are read"
        )
    values = _without_gaps(values, name)
    signal = _filtered(_resampled(values, rate))
    use = path.with_name(f"{path.name}.{annotator}").is_file() if annotated is None else annotated
    if use:
        samples, symbols = _annotated_beats(name, annotator)
        peaks = np.round(samples * float(_ratio(rate))).astype(np.int64)
    else:
        try:
            peaks = detect_peaks(signal)
        except Exception as error:  # neurokit2 raises anything on signals that are too short
            raise UserError(f"R peaks cannot be found in the record {name}: {error}") from error
        symbols = np.full(len(peaks), "")
    inside = (peaks >= 0) & (peaks < len(signal))
    if not inside.any():
        raise UserError(f"the record {name} has no {'annotated' if use else 'detectable'} beat")
    return Recording(path.name, record.sig_name[0], signal, peaks[inside], symbols[inside], rate)


def _channel(leads: Sequence[str], lead: str) -> int:
    if len(leads) == 1:
        return 0
    if lead not in leads:
        raise UserError(f"it has no lead {lead}: choose one of {listed(leads, 15)}")
    return leads.index(lead)


def _annotated_beats(name: str, annotator: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.str_]]:
    import wfdb

    _check_notes(Path(f"{name}.{annotator}"))
    try:
        found = wfdb.rdann(name, annotator)
        symbols = np.asarray(found.symbol, dtype="U1")
        samples = np.asarray(found.sample, dtype=np.int64)
    except Exception as error:  # wfdb raises anything on damaged files
        raise UserError(f"the annotations {name}.{annotator} cannot be read: {error}") from error
    beats = np.isin(symbols, sorted(BEAT_SYMBOLS))
    return samples[beats], symbols[beats]


def _check_notes(path: Path) -> None:
    """Raise UserError for notes on the whole file that wfdb 4 would read without end."""
    try:
        notes = re.findall(rb"(?=(## .{0,40}))", path.read_bytes())
    except OSError as error:
        raise UserError(f"the annotations {path} cannot be read: {error}") from error
    known = [re.match(rb"## (time resolution: \d|annotation type def|end of def)", note) for note in notes]
    resolutions = [match for match in known if match is not None and match[1].startswith(b"time")]
    if None in known or len(resolutions) > 1:
        raise UserError(
            f"the annotations {path} are damaged: a note on the whole file is none that WFDB knows"
        )


def _without_gaps(values: npt.NDArray[np.float64], name: str) -> npt.NDArray[np.float64]:
    """Interpolate missing samples, which WFDB reads as NaN."""
    missing = np.isnan(values)
    if missing.all():
        raise UserError(f"the record {name} has no valid sample")
    if missing.any():
        values[missing] = np.interp(np.flatnonzero(missing), np.flatnonzero(~missing), values[~missing])
    return values


def _ratio(rate: float) -> Fraction:
    """Return the ratio of resampling, of the signal and of the beats' places alike.

    Its denominator is limited: the filter of the resampling has twenty values for each unit of it.
    """
    return (RATE / Fraction(rate).limit_denominator(1000)).limit_denominator(_DENOMINATOR)


def _resampled(values: npt.NDArray[np.float64], rate: float) -> npt.NDArray[np.float64]:
    from scipy.signal import resample_poly

    if rate == RATE:
        return values
    ratio = _ratio(rate)
    resampled: npt.NDArray[np.float64] = resample_poly(values, ratio.numerator, ratio.denominator)
    return resampled


def _filtered(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Remove the wander of the baseline and noise above the heart's frequencies, without a shift in time."""
    from scipy.signal import butter, sosfiltfilt

    sections = butter(2, _EDGE_HZ, "bandpass", fs=RATE, output="sos")
    filtered: npt.NDArray[np.float64] = sosfiltfilt(sections, values, padlen=min(RATE, len(values) - 1))
    return filtered.astype(np.float32)


def detect_peaks(signal: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Find the R peaks of a signal of 360 samples a second, by neurokit2 [1]_.

    References
    ----------
    .. [1] D. Makowski and others, "NeuroKit2: A Python toolbox for neurophysiological signal processing",
       Behavior Research Methods 53, 2021.
    """
    import neurokit2

    values = np.asarray(signal, dtype=np.float64)
    found = neurokit2.ecg_peaks(neurokit2.ecg_clean(values, sampling_rate=RATE), sampling_rate=RATE)
    return np.asarray(found[1]["ECG_R_Peaks"], dtype=np.int64)
