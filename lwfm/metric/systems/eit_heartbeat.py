"""The heart's part of chest impedance tomography, separated from breathing and its harmonics."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from pytorch_metric_learning.losses import ContrastiveLoss
from torch import Tensor, nn

from lwfm._common.devices import choose_device
from lwfm._common.ranges import check_at_least, check_between, check_counts, check_positive
from lwfm._common.tensor_files import tensors_under
from lwfm.errors import UserError
from lwfm.metric.data.eit import Recording, read_recordings
from lwfm.metric.encoders import ConvEncoder1d, SeparationUNet1d
from lwfm.metric.estimator import NeighborEstimator, check_lengths
from lwfm.metric.losses import FeatureMatchingLoss, LinearCrossEntropy
from lwfm.metric.module import (
    MetricModule,
    balanced_weights,
    embed,
    seeded,
    train,
    weighted_batches,
)
from lwfm.metric.systems.system import System, build

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lwfm._common.devices import Accelerator
    from lwfm.metric.decisions import Weights
    from lwfm.metric.evaluation import MetricEvaluation
    from lwfm.metric.module import Indices

    Frames = npt.NDArray[np.float64]

Loss = Literal["contrastive", "cross_entropy"]
_SEPARATOR = "separator."
_FASTEST = 3.5
"""Beats a second, at most."""
_REFERENCES = 2000
_LEAST = 1e-12


class Parts(NamedTuple):
    """Parts of a recording, [T, M] each, which sum to its changes around the mean."""

    heart: Frames
    breath: Frames


class EITHeartbeatSeparator(NeighborEstimator):
    """Separation of heart and breathing in impedance tomography, learned from windows with held breath.

    A Siamese encoder f is trained by the contrastive loss to tell the heart band of held breath from that of
    breathing, in which harmonics of breathing lie. A U-Net g then estimates these harmonics from the
    breathing band alone; what is left of the heart band, c, must have the features of held breath:
    ``matching |f(c) - f(b)|^2 + a1 |highpass v|^2 + a2 |lowpass c|^2 + a3 |c|^2``, v being the rest. All
    channels (voltages or pixels) share the networks. The formula is a *reading* of an abstract; that g sees
    the breathing band alone, and the term a3, by which breathing explains as much as it can, are of this
    package.

    Parameters
    ----------
    loss : {"contrastive", "cross_entropy"}
        Of the encoder; cross-entropy is a baseline.
    matching, a1, a2, a3 : float
        Weights of the terms.
    rate : float
        Frames a second.
    heart : float, optional
        Beats a second; by default the strongest line in the held breath.
    low, high : float
        Cutoffs of a2 and a1, and the beginning of the heart band (low), in units of `heart`.
    window : int
        W, frames of a window.
    dim : int
        Of the embedding.
    quiet : float
        Share of the windows, those with least breathing, that stand in for held breath where there is none.
    encoder_steps, steps, batch_size, learning_rate : int, int, int, float
        Of the training of f and g.
    seed : int
        Of weights and batches; runs on the CPU repeat exactly.
    accelerator : {"auto", "cpu", "gpu"}
        Where to compute.

    Examples
    --------
    >>> from lwfm.metric.simulation.thorax_eit import simulate_chest
    >>> chest = simulate_chest(0, seconds=20, held=8)
    >>> separator = EITHeartbeatSeparator(encoder_steps=2, steps=2)
    >>> separator.fit_recordings([chest.held], [chest.breathing]).separate(chest.breathing).heart.shape
    (260, 208)
    """

    system = "eit_heartbeat"

    def __init__(
        self,
        loss: Loss = "contrastive",
        matching: float = 0.2,
        a1: float = 0.1,
        a2: float = 1.0,
        a3: float = 1.0,
        rate: float = 13.0,
        heart: float | None = None,
        low: float = 0.6,
        high: float = 1.6,
        window: int = 64,
        dim: int = 32,
        quiet: float = 0.2,
        encoder_steps: int = 250,
        steps: int = 400,
        batch_size: int = 64,
        learning_rate: float = 2e-3,
        seed: int = 0,
        accelerator: Accelerator = "auto",
    ) -> None:
        self.loss, self.matching, self.a1, self.a2, self.a3 = loss, matching, a1, a2, a3
        self.rate, self.heart, self.low, self.high = rate, heart, low, high
        self.window, self.dim, self.quiet = window, dim, quiet
        self.encoder_steps, self.steps = encoder_steps, steps
        self.batch_size, self.learning_rate = batch_size, learning_rate
        self.seed, self.accelerator = seed, accelerator

    def _check_parameters(self) -> None:
        super()._check_parameters()
        if self.loss not in get_args(Loss):
            raise UserError(f"loss must be one of {', '.join(get_args(Loss))}, not {self.loss!r}")
        check_counts(window=self.window, dim=self.dim, encoder_steps=self.encoder_steps, steps=self.steps)
        check_counts(batch_size=self.batch_size)
        check_at_least(4, batch_size=self.batch_size)
        check_at_least(16, window=self.window)
        check_between(0, float("inf"), matching=self.matching, a1=self.a1, a2=self.a2, a3=self.a3)
        check_positive(rate=self.rate, low=self.low, high=self.high, learning_rate=self.learning_rate)
        check_between(0.01, 0.9, quiet=self.quiet)
        if self.heart is not None:
            check_between(0.3, 0.4 * self.rate, heart=self.heart)

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Train on windows of single channels.

        Parameters
        ----------
        X : array
            [N, 2, W]: heart band and breathing band of each window, see :func:`split_bands`.
        y : array
            [N] bool: whether the breath was held.
        groups : array, optional
            [N], such as the recording of each window, over which batches are balanced.
        """
        self._check_parameters()
        rows = torch.as_tensor(np.asarray(X, dtype=np.float32))
        if rows.ndim != 3 or rows.shape[1:] != (2, self.window):
            raise UserError(f"windows must be an array [N, 2, {self.window}], not {list(rows.shape)}")
        held = np.asarray(y)
        check_lengths(len(rows), labels=held)
        if not set(np.unique(held).tolist()) == {0, 1}:
            raise UserError(
                "labels must be true for held breath and false for breathing, and both are needed"
            )
        held = held.astype(bool)
        self.heart_ = self.heart or heart_rate(rows[held, 0].numpy().T, self.rate)
        return self._train(rows, held, groups)

    def _train(self, rows: Tensor, held: npt.NDArray[np.bool_], groups: Any) -> Self:
        """Train the encoder, and then the separator on the windows of breathing."""
        super().fit(rows, held, groups)
        with seeded(self.seed) as random:
            self.separator_ = SeparationUNet1d()
            breathing = np.flatnonzero(~held)
            batches = breathing[random.integers(0, len(breathing), (self.steps, self.batch_size))]
            module = MetricModule(self.separator_, self._separation_loss(), optimizer=self._optimizer())
            train(module, rows, torch.zeros(len(rows)), batches, choose_device(self.accelerator))
        self.encoder_.cpu()
        return self

    def _inputs(self, X: Any) -> Tensor:
        inputs = super()._inputs(X)
        return inputs[:, 0] if inputs.ndim == 3 else inputs

    def _optimizer(self) -> Any:
        return partial(torch.optim.AdamW, lr=self.learning_rate)

    def _separation_loss(self) -> nn.Module:
        held = self.decision_.references[self.decision_.codes == 1]
        cycles = self.heart_ / self.rate
        return FeatureMatchingLoss(
            self.encoder_, torch.as_tensor(held), low=self.low * cycles, high=self.high * cycles,
            matching=self.matching, a1=self.a1, a2=self.a2, a3=self.a3,
        )  # fmt: skip

    def _encoder(self, shape: tuple[int, ...]) -> nn.Module:
        return ConvEncoder1d(shape[0], dim=self.dim)

    def _module(self, encoder: nn.Module, classes: int) -> MetricModule:
        pairs = ContrastiveLoss(pos_margin=0, neg_margin=1)
        loss = pairs if self.loss == "contrastive" else LinearCrossEntropy(self.dim, classes)
        return MetricModule(encoder, loss, optimizer=self._optimizer(), augment=noisy)

    def _batches(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        return weighted_batches(balanced_weights(codes, groups), self.batch_size, self.encoder_steps, random)

    def _references(self, codes: Indices, groups: npt.NDArray[Any], random: np.random.Generator) -> Indices:
        count = min(_REFERENCES, len(codes))
        return random.choice(len(codes), count, replace=False, p=balanced_weights(codes, groups))

    def _vote(self) -> tuple[int, Weights]:
        return 5, "uniform"

    def fit_recordings(self, held: Sequence[Recording], breathing: Sequence[Recording]) -> Self:
        """Train on recordings; without held breath, on the quietest windows in its place.

        Raises
        ------
        UserError
            For recordings shorter than a window, and where neither held breath nor `heart` is given.
        """
        self._check_parameters()
        if not breathing:
            raise UserError("at least one recording of breathing is needed")
        if not held and self.heart is None:
            raise UserError(
                "without a recording of held breath give the heart rate: the option heart, in beats a second"
            )
        still = [_centered(each.frames) for each in held]
        self.heart_ = self.heart or heart_rate(np.concatenate(still), self.rate)
        rows, labels, groups = [], [], []
        for number, each in enumerate([*held, *breathing]):
            part, quiet = self._windows(each)
            rows.append(part)
            labels.append(np.full(len(part), True) if number < len(held) else quiet & (not held))
            groups.append(np.full(len(part), number))
        joined = torch.as_tensor(np.concatenate(rows))
        return self._train(joined, np.concatenate(labels), np.concatenate(groups))

    def _windows(self, recording: Recording) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Return windows [N, 2, W] of all channels, and which of them have least breathing [N]."""
        heart, breath, _ = self._bands(recording)
        starts = self._starts(len(heart), 8)
        rows = cut(heart, breath, starts, self.window)
        power = np.array([breath[start : start + self.window].std(0).mean() for start in starts])
        quiet = power <= np.quantile(power, self.quiet)
        return rows, np.repeat(quiet, heart.shape[1])

    def _bands(self, recording: Recording) -> tuple[Frames, Frames, Frames]:
        """Return heart and breathing bands [T, M] in units of their spread, and that of the heart [M]."""
        if len(recording.frames) < self.window:
            raise UserError(
                f"{recording.name} has {len(recording.frames)} frames, fewer than a window of {self.window}: "
                "choose a smaller window"
            )
        heart, breath = split_bands(recording.frames, self.rate, self.heart_, self.low)
        spread = heart.std(0) + _LEAST
        return heart / spread, breath / (breath.std(0) + _LEAST), spread

    def _starts(self, frames: int, parts: int) -> npt.NDArray[np.int64]:
        """Return the first frames of windows that overlap by all but one of some parts, to the last frame."""
        last = frames - self.window
        return np.unique(np.r_[np.arange(0, last, max(self.window // parts, 1)), last])

    def separate(self, recording: Recording) -> Parts:
        """Split a recording in the heart's part and breathing, [T, M] each."""
        self._check_fitted()
        heart, breath, spread = self._bands(recording)
        starts = self._starts(len(heart), 4)
        rows = torch.as_tensor(cut(heart, breath, starts, self.window))
        parts = embed(self.separator_, rows, device=choose_device(self.accelerator))
        kept = parts[:, 0].reshape(len(starts), heart.shape[1], self.window)
        weight = np.hanning(self.window + 2)[1:-1, None]
        found, total = np.zeros_like(heart), np.zeros((len(heart), 1))
        for start, part in zip(starts, kept, strict=True):
            found[start : start + self.window] += weight * part.T
            total[start : start + self.window] += weight
        found *= spread / total
        return Parts(found, _centered(recording.frames) - found)

    def _described(self) -> dict[str, Any]:
        return {"heart": self.heart_}

    def _tensors(self) -> dict[str, Tensor]:
        return {f"{_SEPARATOR}{name}": tensor for name, tensor in self.separator_.state_dict().items()}

    def _restore(self, description: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        self.heart_ = float(description["heart"])
        self.separator_ = SeparationUNet1d()
        self.separator_.load_state_dict(tensors_under(_SEPARATOR, tensors))
        self.separator_.eval()


def noisy(waveforms: Tensor) -> Tensor:
    """Return waveforms [B, W] with noise of up to a tenth of their standard deviation."""
    level = 0.1 * torch.rand(len(waveforms), 1, device=waveforms.device) * waveforms.std(1, keepdim=True)
    return waveforms + level * torch.randn_like(waveforms)


def _centered(frames: npt.NDArray[Any]) -> Frames:
    values = np.asarray(frames, dtype=np.float64)
    centered: Frames = values - values.mean(0)
    return centered


def heart_rate(signals: npt.NDArray[Any], rate: float, *, near: float | None = None) -> float:
    """Return the strongest frequency of signals [T, M], from 0.7 to 3.5 a second or within 25 % of `near`."""
    limits = (0.7, min(_FASTEST, 0.45 * rate)) if near is None else (0.75 * near, 1.25 * near)
    return strongest(signals, rate, *limits)


def strongest(signals: npt.NDArray[Any], rate: float, low: float, high: float) -> float:
    """Return the frequency between limits at which signals [T, M] have most power."""
    values = _centered(signals) * np.hanning(len(signals))[:, None]
    power = np.square(np.abs(np.fft.rfft(values, n=8 * len(values), axis=0))).sum(1)
    frequency = np.fft.rfftfreq(8 * len(values), 1 / rate)
    inside = (frequency >= low) & (frequency <= high)
    return float(frequency[inside][power[inside].argmax()])


def find_beats(trace: npt.NDArray[Any], rate: float, heart: float) -> npt.NDArray[np.int64]:
    """Return the frames of the beats, the highest points of a trace [T] within 0.6 of a beat's length."""
    from scipy.signal import find_peaks

    found: npt.NDArray[np.int64] = find_peaks(trace, distance=max(int(0.6 * rate / heart), 1))[0]
    return found


def beat_waves(beats: npt.NDArray[np.int64], frames: npt.NDArray[np.int64]) -> Frames:
    """Return four harmonics [T, 8] of the phase between beats, at frames [T].

    Examples
    --------
    >>> beat_waves(np.array([0, 4, 8]), np.array([0, 1, 2]))[:, 0].round(6).tolist()
    [0.0, 1.0, 0.0]
    """
    phase = 2 * np.pi * np.interp(frames, beats, np.arange(len(beats)))
    step = 2 * np.pi / max(float(np.diff(beats).mean()), 1e-12)
    phase = phase + step * (np.minimum(frames - beats[0], 0) + np.maximum(frames - beats[-1], 0))
    return np.stack([f(order * phase) for order in range(1, 5) for f in (np.sin, np.cos)], axis=1)


def split_bands(
    frames: npt.NDArray[Any], rate: float, heart: float, low: float = 0.6
) -> tuple[Frames, Frames]:
    """Filter frames [T, M] into the heart band, from `low` to 5 times the heart rate, and what is slower.

    Examples
    --------
    >>> time = np.arange(260)[:, None] / 13
    >>> fast, slow = split_bands(np.sin(2 * np.pi * 0.2 * time), 13.0, heart=1.1)
    >>> bool(fast.std() < 0.1 * slow.std())
    True
    """
    from scipy.signal import butter, sosfiltfilt

    values = _centered(frames)
    pad = min(3 * round(rate), len(values) - 1)
    upper = min(5 * heart, 0.45 * rate)
    fast = butter(3, [low * heart, upper], "bandpass", fs=rate, output="sos")
    slow = butter(3, low * heart, "lowpass", fs=rate, output="sos")
    return sosfiltfilt(fast, values, axis=0, padlen=pad), sosfiltfilt(slow, values, axis=0, padlen=pad)


def cut(heart: Frames, breath: Frames, starts: npt.NDArray[np.int64], window: int) -> npt.NDArray[np.float32]:
    """Cut windows [windows * M, 2, W] of all channels, in order of time."""
    places = starts[:, None] + np.arange(window)
    both = np.stack([heart[places], breath[places]], axis=1)  # [windows, 2, W, M]
    return both.transpose(0, 3, 1, 2).reshape(-1, 2, window).astype(np.float32)


def fit(
    root: Path, *, held: Sequence[str] = (), names: Sequence[str] = (), **options: Any
) -> EITHeartbeatSeparator:
    """Fit a separator on recordings.

    Parameters
    ----------
    root : Path
        File, folder or zip, see :func:`lwfm.metric.data.eit.read_recordings`.
    held : sequence of str
        Recordings with held breath; without any, the quietest windows stand in, and `heart` is needed.
    names : sequence of str
        Recordings of breathing; by default all others.
    **options
        Parameters of :class:`EITHeartbeatSeparator`.
    """
    separator: EITHeartbeatSeparator = build(EITHeartbeatSeparator, options)
    return separator.fit_recordings(*read_parts(root, separator.rate, held, names))


def read_parts(
    root: Path, rate: float, held: Sequence[str], names: Sequence[str]
) -> tuple[list[Recording], list[Recording]]:
    """Read the recordings with held breath, and those of breathing."""
    found = read_recordings(root, rate, names=[*held, *names] if names else ())
    if missing := [name for name in held if name not in {each.name for each in found}]:
        raise UserError(
            f"{root} has no recording {missing[0]}: there are {', '.join(each.name for each in found)}"
        )
    if len({each.frames.shape[1] for each in found}) > 1:
        raise UserError("the recordings have different numbers of channels: choose some by the option names")
    still = [each for each in found if each.name in held]
    return still, [each for each in found if each.name not in held]


def predict(
    separator: EITHeartbeatSeparator,
    inputs: Sequence[Path],
    out: Path,
    figure: Path | None,
    *,
    names: Sequence[str] = (),
) -> str:
    """Separate recordings; see :func:`lwfm.metric.systems.eit_answers.predict`."""
    from lwfm.metric.systems import eit_answers

    return eit_answers.predict(separator, inputs, out, figure, names=names)


def evaluate(root: Path, seeds: Sequence[int], **options: Any) -> MetricEvaluation:
    """Compare on recordings, see :func:`lwfm.metric.systems.eit_comparison.evaluate`."""
    from lwfm.metric.systems import eit_comparison

    return eit_comparison.evaluate(root, seeds, **options)


def simulate(seeds: Sequence[int], **options: Any) -> MetricEvaluation:
    """Compare on simulated chests, see :func:`lwfm.metric.systems.eit_comparison.simulate`."""
    from lwfm.metric.systems import eit_comparison

    return eit_comparison.simulate(seeds, **options)


SYSTEM = System(
    name="eit_heartbeat",
    task="separate the heart from breathing in impedance tomography of the chest",
    reads="EIDORS .mat, Viasys .get, .npy [frames, channels]: a file, a folder or a zip",
    formula="reading",
    published="a better separation than filters and component analyses, on recordings that are not public",
    estimator=EITHeartbeatSeparator,
    evaluate=evaluate,
    fit=fit,
    predict=predict,
    simulate=simulate,
)
