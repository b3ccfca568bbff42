"""Faults of turbines and other machines in their logs: an autoencoder whose embedding sets faults apart."""

from __future__ import annotations

import csv
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor, nn

from lwfm._common.files import atomic_path
from lwfm._common.ranges import check_at_least, check_between, check_counts, check_positive
from lwfm.errors import UserError
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.data import scada
from lwfm.metric.decisions import AnomalyScore, alarm_threshold
from lwfm.metric.encoders import ConvAutoencoder1d
from lwfm.metric.estimator import MetricEstimator, check_lengths
from lwfm.metric.generation import WGANGP1d
from lwfm.metric.losses import JointLoss, LinearCrossEntropy, NormalTriplet
from lwfm.metric.module import MetricModule, balanced_weights, weighted_batches
from lwfm.metric.systems.system import System, build, check_names_differ

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lwfm._common.devices import Accelerator
    from lwfm.metric.evaluation import MetricEvaluation
    from lwfm.metric.module import Indices

    Mask = npt.NDArray[np.bool_]
    Values = npt.NDArray[np.float64]

Loss = Literal["triplet", "cross_entropy", "none"]
GENERATED = "generated"
_FAULTS_OF_A_BATCH = 0.25
WEEK = 168.0


class TurbineFaultDetector(MetricEstimator):
    """Faults in windows of a machine's log, by an autoencoder of normal windows and few known faults.

    The loss is the squared error of rebuilding normal windows plus `weight` times the triplet loss
    ``[D(a, p)^2 - D(a, n)^2 + m]+`` of embeddings, with normal anchors and positives and faulty negatives. A
    window's score is its error plus `balance` times the distance of its embedding to the center of normal
    ones, each in units of its mean over validation windows: the last part of every machine's normal windows,
    which are not trained on. Faults may be multiplied by a generative network (WGAN-GP). Without any fault it
    is an autoencoder. The formula is a *reading*: derived from the abstract.

    Parameters
    ----------
    loss : {"triplet", "cross_entropy", "none"}
        The loss of embeddings; cross-entropy is a baseline, none the autoencoder alone.
    weight, margin : float
        Of the triplet loss.
    balance : float
        Weight of the distance in the score.
    dim, noise : int, float
        Of :class:`~lwfm.metric.encoders.ConvAutoencoder1d`.
    generated, generator_steps : int
        Windows of faults to generate from those given, if these are at least two, and length of training of
        their :class:`~lwfm.metric.generation.WGANGP1d`.
    validation : float
        Share of the normal windows of each machine that sets center, units and threshold.
    quantile : float
        Of the validation scores: the threshold, until :meth:`calibrate` chooses one for a rate of alarms.
    window, stride : int
        Samples of a window and from one to the next, for files.
    gap, healthy : float, int
        See :func:`lwfm.metric.data.scada.cut_windows`, for files.
    steps, batch_size, learning_rate : int, int, float
        Length of training, windows of a step, largest learning rate.
    seed : int
        Of weights, batches, noise and generated faults; runs on the CPU repeat exactly.
    accelerator : {"auto", "cpu", "gpu"}
        Where to compute.

    Examples
    --------
    >>> random = np.random.default_rng(0)
    >>> windows = random.normal(size=(60, 2, 16)); windows[50:, 0] += 4
    >>> detector = TurbineFaultDetector(steps=30).fit(windows, np.arange(60) >= 50)
    >>> int(detector.decision_function(windows[[0, 59]]).argmax())
    1
    """

    system = "turbine_faults"

    def __init__(
        self,
        loss: Loss = "triplet",
        weight: float = 1.0,
        margin: float = 1.0,
        balance: float = 1.0,
        dim: int = 16,
        noise: float = 0.1,
        generated: int = 0,
        generator_steps: int = 100,
        validation: float = 0.2,
        quantile: float = 0.999,
        window: int = 36,
        stride: int = 6,
        gap: float = 3.0,
        healthy: int = 0,
        steps: int = 200,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        seed: int = 0,
        accelerator: Accelerator = "auto",
    ) -> None:
        self.loss, self.weight, self.margin, self.balance = loss, weight, margin, balance
        self.dim, self.noise = dim, noise
        self.generated, self.generator_steps = generated, generator_steps
        self.validation, self.quantile = validation, quantile
        self.window, self.stride, self.gap, self.healthy = window, stride, gap, healthy
        self.steps, self.batch_size, self.learning_rate = steps, batch_size, learning_rate
        self.seed, self.accelerator = seed, accelerator

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.loss not in get_args(Loss):
            raise UserError(f"loss must be one of {', '.join(get_args(Loss))}, not {self.loss!r}")
        check_counts(generator_steps=self.generator_steps)
        check_counts(dim=self.dim, steps=self.steps, batch_size=self.batch_size, stride=self.stride)
        check_counts(window=self.window)
        for name in ("generated", "healthy"):
            if getattr(self, name) != 0:
                check_counts(**{name: getattr(self, name)})
        check_at_least(8, window=self.window)
        check_at_least(4, batch_size=self.batch_size)
        check_between(0, float("inf"), weight=self.weight, margin=self.margin, balance=self.balance)
        check_between(0, float("inf"), noise=self.noise)
        check_between(1, float("inf"), gap=self.gap)
        check_between(0.01, 0.9, validation=self.validation)
        check_between(0, 1, quantile=self.quantile)
        check_positive(learning_rate=self.learning_rate)

    def fit(self, X: Any, y: Any = None, groups: Any = None) -> Self:
        """Train on windows [N, C, W], in order of time within each machine.

        Parameters
        ----------
        X : array
            [N, C, W] windows.
        y : array, optional
            [N] bool: which are faulty; by default none.
        groups : array, optional
            [N] machine of each window.

        Raises
        ------
        UserError
            For arrays that do not fit each other, and fewer than ten normal windows, before any work.
        """
        self._check_parameters()
        inputs = self._inputs(X)
        faulty = np.zeros(len(inputs), dtype=bool) if y is None else np.asarray(y)
        machines = np.zeros(len(inputs), dtype=np.int64) if groups is None else np.asarray(groups)
        check_lengths(len(inputs), labels=faulty, groups=machines)
        if not set(np.unique(faulty).tolist()) <= {0, 1}:
            raise UserError("labels must be true for faulty and false for normal windows")
        faulty = faulty.astype(bool)
        if (~faulty).sum() < 10:
            raise UserError(f"at least ten normal windows are needed, not {int((~faulty).sum())}")
        trained = ~faulty & ~held_out(~faulty, machines, self.validation)
        normal = inputs[torch.as_tensor(trained)]
        self.center_, self.scale_ = normal.mean((0, 2)), normal.std((0, 2)).clamp(min=1e-6)
        self.precision_ = self._precision(normal)
        if self.generated and faulty.sum() > 1:
            made = self._generate(inputs[torch.as_tensor(faulty)])
            inputs = torch.cat([inputs, made])
            faulty = np.r_[faulty, np.ones(len(made), dtype=bool)]
            machines = np.r_[machines.astype(str), np.full(len(made), GENERATED)]
        super().fit(inputs, faulty, machines)
        self.source_: dict[str, Any] = {}
        scores = self.decision_.scores(self.decision_.references)
        self.threshold_ = float(np.quantile(scores, self.quantile))
        return self

    def _precision(self, normal: Tensor) -> Tensor:
        """Return the inverse [C, C] of the covariance of scaled samples, to estimate channels from others."""
        samples = (normal.transpose(1, 2) - self.center_) / self.scale_
        covariance = torch.cov(samples.flatten(0, 1).T.double()).reshape(2 * (len(self.center_),))
        inverse: Tensor = torch.linalg.inv(covariance + 1e-3 * torch.eye(len(covariance)))
        return inverse.float()

    def _inputs(self, X: Any) -> Tensor:
        inputs = super()._inputs(X)
        if inputs.ndim != 3 or inputs.shape[2] < 8:
            shape = ["N", *inputs.shape[1:]]
            raise UserError(f"windows must be an array [N, channels, 8 samples or more], not {shape}")
        return inputs

    def _generate(self, faults: Tensor) -> Tensor:
        network = WGANGP1d(self.generator_steps, seed=self.seed, accelerator=self.accelerator)
        return network.fit(faults).sample(self.generated)

    def _coded(self, labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Indices]:
        return np.array([False, True]), labels.astype(np.int64)

    def _encoder(self, shape: tuple[int, ...]) -> nn.Module:
        encoder = ConvAutoencoder1d(*shape, dim=self.dim, noise=self.noise)
        if hasattr(self, "center_"):  # a loaded one comes with the weights
            encoder.center.copy_(self.center_)
            encoder.scale.copy_(self.scale_)
        return encoder

    def _module(self, encoder: nn.Module, classes: int) -> MetricModule:
        losses: dict[str, nn.Module] = {
            "triplet": NormalTriplet(self.margin),
            "cross_entropy": LinearCrossEntropy(self.dim, classes),
            "none": NormalTriplet(self.margin),
        }
        weight = 0.0 if self.loss == "none" else self.weight
        return MetricModule(
            encoder,
            JointLoss(self.dim, losses[self.loss], weight=weight),
            optimizer=partial(torch.optim.AdamW, lr=self.learning_rate),
            schedule=partial(
                torch.optim.lr_scheduler.OneCycleLR, max_lr=self.learning_rate, total_steps=self.steps
            ),
        )

    def _batches(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        normal = codes == 0
        weights = (normal & ~held_out(normal, groups, self.validation)).astype(np.float64)
        weights /= weights.sum()
        if not normal.all() and self.loss != "none":
            faults = np.zeros(len(codes))
            faults[~normal] = balanced_weights(codes[~normal], groups[~normal])
            weights = (1 - _FAULTS_OF_A_BATCH) * weights + _FAULTS_OF_A_BATCH * faults
        return weighted_batches(weights, self.batch_size, self.steps, random)

    def _references(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        """Choose the validation windows: what is trained on is rebuilt better than what comes."""
        del random
        return np.flatnonzero(held_out(codes == 0, groups, self.validation))

    def _decide_by(self, references: npt.NDArray[np.float32], codes: Indices) -> None:
        del codes
        self.decision_ = AnomalyScore(self.dim, self.balance if self.loss != "none" else 0.0).fit(references)

    def decision_function(self, X: Any) -> Values:
        """Return the scores [N]: large for what is unlike normal windows."""
        scores: Values = self.decision_.scores(self.transform(X))
        return scores

    def predict(self, X: Any) -> Mask:
        """Return whether each window [N] is faulty: its score exceeds `threshold_`."""
        return np.asarray(self.decision_function(X) > self.threshold_)

    def predict_proba(self, X: Any) -> Values:
        """Return [N, 2]: ``score / (score + threshold)`` for faulty, which orders windows as scores do."""
        scores = self.decision_function(X)
        share = scores / (scores + self.threshold_)
        return np.stack([1 - share, share], axis=1)

    def contributions(self, X: Any) -> Values:
        """Return how much each channel [N, C] adds to the score.

        The score falls by so much when the channel is replaced by what the other channels, sample by sample,
        let expect of it (linear regression on normal windows). The errors of channels alone would mislead: a
        fault of one channel distorts the embedding, from which all channels are rebuilt.
        """
        inputs = self._inputs(X)
        scores = self.decision_function(inputs)
        center, scale = (self.encoder_.get_buffer(name)[:, None] for name in ("center", "scale"))
        scaled = (inputs - center) / scale
        fallen = []
        for channel in range(inputs.shape[1]):
            weights = -self.precision_[channel] / self.precision_[channel, channel]
            weights[channel] = 0
            replaced = scaled.clone()
            replaced[:, channel] = torch.einsum("c,ncw->nw", weights, scaled)
            fallen.append(scores - self.decision_function(replaced * scale + center))
        return np.stack(fallen, axis=1)

    @property
    def hold(self) -> float:
        """Hours within which unusual windows belong to one alarm: those of a window."""
        return float(self.source_["hours"]) * self.window / self.stride

    def calibrate(self, windows: scada.Windows, per_week: float = 1.0) -> Self:
        """Choose the threshold that normal windows would have exceeded in so many alarms a week.

        Parameters
        ----------
        windows : Windows
            Normal ones that were not trained on.
        per_week : float
            Alarms a week, at most. Where the windows last too short to show such a rate, their largest score
            is the threshold.
        """
        self.source_["hours"] = windows.hours
        scores = self.decision_function(windows.values)
        self.threshold_ = rate_threshold(windows, scores, per_week, self.hold)
        return self

    def _described(self) -> dict[str, Any]:
        return {"threshold": self.threshold_, "source": self.source_}

    def _tensors(self) -> dict[str, Tensor]:
        return {"precision": self.precision_}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.precision_ = tensors["precision"]
        self.threshold_, self.source_ = float(description["threshold"]), dict(description["source"])


def held_out(normal: Mask, groups: npt.NDArray[Any], share: float) -> Mask:
    """Return which rows [N] are the last share of the normal rows of their group: at least one of each."""
    held = np.zeros(len(normal), dtype=bool)
    for group in np.unique(groups[normal]):
        rows = np.flatnonzero(normal & (groups == group))
        held[rows[len(rows) - max(round(share * len(rows)), 1) :]] = len(rows) > 1
    return held


def rate_threshold(windows: scada.Windows, scores: Values, per_week: float, hold: float) -> float:
    """Return the threshold for a rate of alarms a week in normal windows; `hold` is in hours."""
    check_positive(per_week=per_week)
    parts = [
        (windows.times[windows.series == name], scores[windows.series == name])
        for name in np.unique(windows.series)
    ]
    allowed = per_week * len(scores) * windows.hours / WEEK
    return alarm_threshold(parts, max(allowed, 0.5), 3600 * hold)


def fit(
    root: Path,
    *,
    per_week: float = 1.0,
    time: str | None = None,
    time_format: str | None = None,
    label: str | None = "anomaly",
    ignore: Sequence[str] = ("changepoint",),
    **options: Any,
) -> TurbineFaultDetector:
    """Fit a detector on series, whose faults, if any are labeled, are learned.

    Parameters
    ----------
    root : Path
        Folder or zip of .csv, .csv.gz and .parquet files, or one of them.
    per_week : float
        Alarms a week in normal operation that the threshold allows.
    time, time_format, label, ignore
        See :func:`lwfm.metric.data.scada.read_series`.
    **options
        Parameters of :class:`TurbineFaultDetector`.
    """
    detector: TurbineFaultDetector = build(TurbineFaultDetector, options)
    check_positive(per_week=per_week)
    reader: dict[str, Any] = {"time": time, "time_format": time_format}
    series = scada.read_all(root, label=label, ignore=ignore, **reader)
    windows = scada.cut_windows(
        series, detector.window, detector.stride, gap=detector.gap, healthy=detector.healthy
    )
    windows = windows[windows.kinds != scada.MIXED]
    detector.fit(windows.values, ~windows.normal, windows.series)
    detector.source_ = {"channels": list(series[0].channels), "reader": reader}
    held = held_out(windows.normal, windows.series, detector.validation)
    return detector.calibrate(windows[held], per_week)


def predict(detector: TurbineFaultDetector, inputs: Sequence[Path], out: Path, figure: Path | None) -> str:
    """Score the windows of series; write a CSV of them, beside it one of the alarms, and draw both over time.

    Parameters
    ----------
    detector : TurbineFaultDetector
        Fitted on files.
    inputs : sequence of Path
        Series of the same channels, other columns are ignored.
    out : Path
        CSV file: series, time (UTC), score, alarm, and what each channel adds to the score. The alarms
        (series, begin, end, largest score, channels) are in ``<out>-alarms.csv``.
    figure : Path, optional
        Scores and the most deviating channels of the first input.
    """
    from lwfm.metric.systems.turbine_alarms import Answer

    if figure is not None:
        check_figure_suffix(figure)
    if "channels" not in detector.source_:
        raise UserError("the model was fitted on arrays: fit it on files, lwfm metric fit turbine_faults")
    check_names_differ(path.name.split(".")[0] for path in inputs)
    reader = detector.source_["reader"]
    found = []
    for path in inputs:
        series = scada.read_series(path, label=None, channels=detector.source_["channels"], **reader)
        found.append(Answer(detector, series))
    listed = out.with_name(f"{out.stem}-alarms.csv")
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["series", "time", "score", "alarm", *detector.source_["channels"]])
        for each in found:
            table.writerows(each.rows())
    with atomic_path(listed) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["series", "begin", "end", "largest score", "channels"])
        for each in found:
            table.writerows(each.alarm_rows())
    lines = [f"{each.name}: {len(each.scores)} windows, {len(each.alarms)} alarms" for each in found]
    if figure is not None:
        save_figure(found[0].figure(), figure)
        lines.append(f"scores of {found[0].name} over time: {figure}")
    return "\n".join([*lines, f"alarms: {listed}", f"every window: {out}"])


def evaluate(root: Path, seeds: Sequence[int], **options: Any) -> MetricEvaluation:
    """Compare with the baselines, see :func:`lwfm.metric.systems.turbine_comparison.evaluate`."""
    from lwfm.metric.systems import turbine_comparison

    return turbine_comparison.evaluate(root, seeds, **options)


def simulate(seeds: Sequence[int], **options: Any) -> MetricEvaluation:
    """Compare on simulated turbines, see :func:`lwfm.metric.systems.turbine_comparison.simulate`."""
    from lwfm.metric.systems import turbine_comparison

    return turbine_comparison.simulate(seeds, **options)


SYSTEM = System(
    name="turbine_faults",
    task="find faults of turbines and other machines in their logs, from few known faults",
    reads="series with a time column (.csv, .csv.gz, .parquet): a folder, a zip or one file",
    formula="reading",
    published="better detection of few faults than an autoencoder alone, on logs that are not public",
    estimator=TurbineFaultDetector,
    evaluate=evaluate,
    fit=fit,
    predict=predict,
    simulate=simulate,
)
