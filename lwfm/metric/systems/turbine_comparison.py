"""Comparison of the turbine fault detector with autoencoders, isolation forest and local outlier factor."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import LocalOutlierFactor

from lwfm._common.progress import progress
from lwfm._common.ranges import check_counts, check_positive
from lwfm.errors import UserError
from lwfm.metric.data import scada
from lwfm.metric.decisions import find_alarms
from lwfm.metric.evaluation import MetricEvaluation, Row
from lwfm.metric.scores import Scores, average_precision
from lwfm.metric.simulation import drifts
from lwfm.metric.simulation.turbine import simulate_turbines
from lwfm.metric.systems import turbine_faults
from lwfm.metric.systems.system import build
from lwfm.metric.systems.turbine_faults import WEEK, TurbineFaultDetector, held_out, rate_threshold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lwfm.metric.evaluation import Role

    Values = npt.NDArray[np.float64]

SHOTS = (5, 20, 100)
"""Windows of faults that are known."""
GENERATED = 200
SEEN, UNSEEN = ("cooling", "friction", "pitch"), ("yaw", "sensor")
SEEN_DRIFTS, UNSEEN_DRIFTS = drifts.KINDS[:2], drifts.KINDS[2:]
_TESTED = 0.4
"""Share of a series, or of the series with faults, that is tested."""


@dataclass(frozen=True, eq=False)
class Split:
    """Data of one seed.

    Attributes
    ----------
    normal, faults, test : Windows
        To train on and to set the threshold by; among which the known faults are drawn; to test.
    unseen : tuple of str
        Kinds of faults in `test` that are not in `faults`.
    """

    normal: scada.Windows
    faults: scada.Windows
    test: scada.Windows
    unseen: tuple[str, ...]


def simulate(
    seeds: Sequence[int], *, per_week: float = 1.0, days: int = 60, **options: Any
) -> MetricEvaluation:
    """Compare on simulated turbines: 4 healthy ones, 3 with known and 6 with tested faults, 4 each.

    Parameters
    ----------
    seeds : sequence of int
        Of the simulator, of training and of the choice of known faults.
    per_week : float
        Alarms a week in normal operation that all thresholds allow.
    days : int
        Of each turbine, at least 41.
    **options
        Parameters of :class:`TurbineFaultDetector`, but for `loss`, `generated` and `seed`.
    """
    template = _template(options)
    check_counts(days=days)
    if days < 41:
        raise UserError(f"four faults of six days need at least 41 days, not {days}")

    def split(seed: int) -> Split:
        healthy = simulate_turbines(4, days, 3 * seed, prefix="H")
        known = simulate_turbines(3, days, 3 * seed + 1, faults=4, kinds=SEEN, prefix="K")
        tested = simulate_turbines(6, days, 3 * seed + 2, faults=4, kinds=(*SEEN, *UNSEEN))
        known_windows = _cut(known, template)
        return Split(
            _cut(healthy, template), known_windows[known_windows.events >= 0], _cut(tested, template), UNSEEN
        )

    rows = _compare(split, template, seeds, per_week)
    data = f"13 turbines of {days} days, 24 tested faults"
    return MetricEvaluation(
        "turbine_faults",
        data,
        tuple(seeds),
        tuple(rows),
        "AUPRC",
        turbine_faults.SYSTEM.published,
        simulated=True,
    )


def evaluate(
    root: Path,
    seeds: Sequence[int],
    *,
    per_week: float = 1.0,
    unseen: Sequence[str] = (),
    time: str | None = None,
    time_format: str | None = None,
    label: str | None = "anomaly",
    ignore: Sequence[str] = ("changepoint",),
    **options: Any,
) -> MetricEvaluation:
    """Compare on recorded series: labeled ones, or ones into which drifts are injected.

    With labeled faults in several files, 40 % of these files, drawn for each seed, are tested, and all with
    faults of `unseen` kinds. Without labels, the last 40 % of each series is tested; faults of two kinds
    are injected into both parts, of two further kinds into the tested one.

    Parameters
    ----------
    root : Path
        Folder or zip of .csv, .csv.gz and .parquet files, or one of them.
    seeds : sequence of int
        Of the split or the injected faults, of training and of the choice of known faults.
    per_week : float
        Alarms a week in normal operation that all thresholds allow.
    unseen : sequence of str
        Kinds of labeled faults that are only tested.
    time, time_format, label, ignore
        See :func:`lwfm.metric.data.scada.read_series`.
    **options
        Parameters of :class:`TurbineFaultDetector`, but for `loss`, `generated` and `seed`.
    """
    template = _template(options)
    check_positive(per_week=per_week)
    series = scada.read_all(root, time=time, time_format=time_format, label=label, ignore=ignore)
    if any((each.kinds != scada.NORMAL).any() for each in series):
        split: Callable[[int], Split] = LabeledSplits(series, template, tuple(unseen))
        data = f"{root.name}: {len(series)} series with labeled faults"
    else:
        split = InjectedSplits(series, template)
        data = f"{root.name}: {len(series)} series, injected faults"
    rows = _compare(split, template, seeds, per_week)
    return MetricEvaluation(
        "turbine_faults", data, tuple(seeds), tuple(rows), "AUPRC", turbine_faults.SYSTEM.published
    )


def _template(options: dict[str, Any]) -> TurbineFaultDetector:
    template: TurbineFaultDetector = build(
        TurbineFaultDetector, options, set_here=("loss", "generated", "seed"), unused=("quantile",)
    )
    return template


def _cut(series: Sequence[scada.Series], template: TurbineFaultDetector) -> scada.Windows:
    windows = scada.cut_windows(
        series, template.window, template.stride, gap=template.gap, healthy=template.healthy
    )
    return windows[windows.kinds != scada.MIXED]


class LabeledSplits:
    """Files with labeled faults, divided anew for each seed.

    Parameters
    ----------
    series : sequence of Series
        At least two with faults of a kind that is not unseen.
    template : TurbineFaultDetector
        How windows are cut.
    unseen : tuple of str
        Kinds that are only tested.
    """

    def __init__(
        self, series: Sequence[scada.Series], template: TurbineFaultDetector, unseen: tuple[str, ...]
    ) -> None:
        self.windows, self.unseen = _cut(_numbered(series), template), unseen
        kinds = {name: set(np.unique(each.kinds)) - {scada.NORMAL} for name, each in _by_name(series)}
        every = set().union(*kinds.values())
        if missing := [kind for kind in unseen if kind not in every]:
            raise UserError(
                f"no fault is of the unseen kind {missing[0]}: there are {', '.join(sorted(every))}"
            )
        self.always = [name for name, found in kinds.items() if found & set(unseen)]
        self.divided = {
            name: min(found) for name, found in kinds.items() if found and name not in self.always
        }
        if len(self.divided) < 2:
            raise UserError("at least two files with known kinds of faults are needed, to learn and to test")

    def __call__(self, seed: int) -> Split:
        """Return the data of a seed: of each kind 40 % of the files are tested, at least one."""
        random = np.random.default_rng(seed)
        tested = list(self.always)
        for kind in sorted(set(self.divided.values())):
            files = [name for name, of in self.divided.items() if of == kind]
            tested += random.permutation(files)[: max(round(_TESTED * len(files)), 1)].tolist()
        test = np.isin(self.windows.series, tested)
        learned = self.windows[~test]
        return Split(learned[learned.normal], learned[learned.events >= 0], self.windows[test], self.unseen)


def _by_name(series: Sequence[scada.Series]) -> list[tuple[str, scada.Series]]:
    return [(each.name, each) for each in _numbered(series)]


def _numbered(series: Sequence[scada.Series]) -> list[scada.Series]:
    """Return the series under names that differ, as files of several folders may not."""
    return [replace(each, name=f"{number}: {each.name}") for number, each in enumerate(series)]


class InjectedSplits:
    """Series without labels, whose last part gets injected faults and is tested.

    Parameters
    ----------
    series : sequence of Series
        Taken for healthy.
    template : TurbineFaultDetector
        How windows are cut.
    """

    def __init__(self, series: Sequence[scada.Series], template: TurbineFaultDetector) -> None:
        self.parts = []
        for each in _numbered(series):
            cut = round((1 - _TESTED) * len(each.times))
            self.parts.append((_piece(each, slice(cut)), _piece(each, slice(cut, None))))
        self.template, self.length = template, 8 * template.window

    def __call__(self, seed: int) -> Split:
        """Return the data of a seed."""
        learned, faults, tested = [], [], []
        for number, (first, last) in enumerate(self.parts):
            of_part = 1000 * seed + 2 * number
            counts = [max(min(len(part.times) // (6 * self.length), 16), 1) for part in (first, last)]
            learned.append(first)
            faults.append(drifts.inject_drifts(first, SEEN_DRIFTS, counts[0], self.length, of_part))
            tested.append(drifts.inject_drifts(last, drifts.KINDS, counts[1], self.length, of_part + 1))
        pool = _cut(faults, self.template)
        normal, test = _cut(learned, self.template), _cut(tested, self.template)
        return Split(normal, pool[pool.events >= 0], test, UNSEEN_DRIFTS)


def _piece(series: scada.Series, part: slice) -> scada.Series:
    return replace(series, times=series.times[part], values=series.values[part], kinds=series.kinds[part])


def _compare(
    split: Callable[[int], Split], template: TurbineFaultDetector, seeds: Sequence[int], per_week: float
) -> list[Row]:
    """Score all rows, each number of known faults a protocol of its own."""
    found: dict[tuple[str, str, Role], list[Scores]] = {}
    names = [f"{shots} windows of known faults" for shots in SHOTS]
    for seed in progress(seeds, "seeds", "seed"):
        data = split(seed)
        contest = Contest(data, template, seed, per_week)
        for shots, protocol in zip(SHOTS, names, strict=True):
            known = contest.draw(shots)
            for name, role, scores in contest.learned(known):
                found.setdefault((protocol, name, role), []).append(scores)
        for name, scores in contest.unaware():
            for protocol in names:
                found.setdefault((protocol, name, "baseline"), []).append(scores)
    ordered = sorted(found, key=lambda key: names.index(key[0]))
    return [Row.over_seeds(*key, found[key]) for key in ordered]


class Contest:
    """All detectors on the data of one seed, with thresholds for the same rate of alarms.

    Parameters
    ----------
    data : Split
        The data.
    template : TurbineFaultDetector
        Its parameters.
    seed : int
        Of training and of the known faults.
    per_week : float
        Alarms a week that the validation windows may have.
    """

    def __init__(self, data: Split, template: TurbineFaultDetector, seed: int, per_week: float) -> None:
        self.data, self.seed, self.per_week = data, seed, per_week
        self.options = {**template.get_params(), "seed": seed}
        self.hold = data.normal.hours * template.window / template.stride
        self.held = held_out(data.normal.normal, data.normal.series, template.validation)
        self.validation = data.normal[self.held]

    def draw(self, shots: int) -> scada.Windows:
        """Draw windows of known faults; all, where there are fewer."""
        rows = np.random.default_rng(self.seed).permutation(len(self.data.faults.values))
        return self.data.faults[rows[:shots]]

    def fit(self, known: scada.Windows, **options: Any) -> TurbineFaultDetector:
        """Fit a detector on all normal windows and the known faults."""
        normal = self.data.normal
        values = np.concatenate([normal.values, known.values])
        labels = np.repeat([False, True], [len(normal.values), len(known.values)])
        groups = np.concatenate([normal.series, known.series])
        return TurbineFaultDetector(**{**self.options, **options}).fit(values, labels, groups)

    def learned(self, known: scada.Windows) -> list[tuple[str, Role, Scores]]:
        """Score what learns from known faults."""
        kinds: list[tuple[str, Role, dict[str, Any]]] = [
            ("autoencoder + triplet", "system", {}),
            ("with generated faults", "ablation", {"generated": GENERATED}),
        ]
        rows = []
        for name, role, options in kinds:
            detector = self.fit(known, **options)
            rows.append((name, role, self.scores(detector.decision_function)))
        entropy = self.fit(known, loss="cross_entropy")
        dim = entropy.dim
        trained = entropy.transform(np.concatenate([self.data.normal.values[~self.held], known.values]))[
            :, :dim
        ]
        labels = np.arange(len(trained)) >= (~self.held).sum()
        line = LogisticRegression(class_weight="balanced", max_iter=1000).fit(trained, labels)
        rows.append(
            (
                "autoencoder + cross-entropy, logistic regression",
                "baseline",
                self.scores(lambda values: line.decision_function(entropy.transform(values)[:, :dim])),
            )
        )
        return rows

    def unaware(self) -> list[tuple[str, Scores]]:
        """Score what learns from normal windows alone."""
        none = self.draw(0)
        alone = self.fit(none, loss="none")
        rows = [("autoencoder alone", self.scores(alone.decision_function))]
        rows.append(("autoencoder + distance to the center", self._with_distance(alone)))
        values = self.data.normal.values[~self.held]
        center, scale = values.mean((0, 2)), values.std((0, 2)).clip(1e-6)

        def flat(windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
            scaled = (windows - center[:, None]) / scale[:, None]
            rows: npt.NDArray[np.float32] = scaled.reshape(len(windows), -1)
            return rows

        forest = IsolationForest(n_estimators=200, random_state=self.seed).fit(flat(values))
        factor = LocalOutlierFactor(20, novelty=True).fit(flat(values))
        rows.append(("isolation forest", self.scores(lambda each: -forest.score_samples(flat(each)))))
        rows.append(("local outlier factor", self.scores(lambda each: -factor.score_samples(flat(each)))))
        if find_spec("pyod"):
            rows.append(("autoencoder of PyOD", self.scores(self._pyod(flat(values), flat))))
        return rows

    def _with_distance(self, alone: TurbineFaultDetector) -> Scores:
        alone.decision_.balance = alone.balance
        return self.scores(alone.decision_function)

    def _pyod(self, values: npt.NDArray[np.float32], flat: Callable[..., Any]) -> Callable[..., Values]:
        from pyod.models.auto_encoder import AutoEncoder

        model = AutoEncoder(epoch_num=10, batch_size=64, random_state=self.seed, verbose=0, device="cpu")
        model.fit(values)
        return lambda each: np.asarray(model.decision_function(flat(each)), dtype=np.float64)

    def scores(self, score: Callable[[npt.NDArray[np.float32]], Values]) -> Scores:
        """Score a detector by its scores of windows [N, C, W]."""
        usual = score(self.validation.values)
        threshold = rate_threshold(self.validation, usual, self.per_week, self.hold)
        return alarm_scores(
            self.data.test, score(self.data.test.values), threshold, self.hold, self.data.unseen
        )


def alarm_scores(
    test: scada.Windows, scores: Values, threshold: float, hold: float, unseen: Sequence[str]
) -> Scores:
    """Compute AUPRC, detection, delay and false alarms of scores of windows.

    Parameters
    ----------
    test : Windows
        N windows.
    scores : ndarray
        [N].
    threshold : float
        Of the alarms.
    hold : float
        Hours within which unusual windows belong to one alarm.
    unseen : sequence of str
        Kinds of faults that are scored apart.

    Returns
    -------
    dict
        ``delay`` is the mean time from the beginning of a fault to its first unusual window, in hours, or in
        minutes where windows follow each other within six; a fault that is not found counts with its whole
        length. ``found`` is the share of faults that are found.
    """
    result: Scores = {}
    unit, seconds = ("h", 3600) if test.hours > 0.1 else ("min", 60)
    rare = np.isin(test.kinds, list(unseen))
    parts = [("", ~rare)] + ([(", unseen kinds", rare)] if rare.any() else [])
    for title, kinds in parts:
        chosen = test.normal | (kinds & ~test.normal)
        result[f"AUPRC{title}"] = average_precision(~test.normal[chosen], scores[chosen])
    for title, kinds in parts:
        delays, found = [], []
        for event in np.unique(test.events[kinds & (test.events >= 0)]):
            rows = np.flatnonzero(test.events == event)
            unusual = rows[scores[rows] > threshold]
            found.append(len(unusual) > 0)
            end = test.times[unusual[0]] if len(unusual) else test.times[rows[-1]]
            delays.append((end - test.onsets[event]) / seconds)
        result[f"found{title}"] = float(np.mean(found))
        result[f"delay{title} ({unit})"] = float(np.mean(delays))
    normal = test[test.normal]
    alarms = sum(
        len(find_alarms(normal.times[rows], scores[test.normal][rows], threshold, 3600 * hold))
        for rows in (normal.series == name for name in np.unique(normal.series))
    )
    result["false alarms (a week)"] = alarms * WEEK / (len(normal.times) * test.hours)
    return result
