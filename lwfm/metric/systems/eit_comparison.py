"""Comparison of the heartbeat separator with filters, component analyses and averages over beats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.decomposition import PCA, FastICA

from lwfm._common.progress import progress
from lwfm._common.ranges import check_positive
from lwfm.metric.evaluation import MetricEvaluation, Row
from lwfm.metric.simulation.thorax_eit import simulate_chest
from lwfm.metric.systems import eit_heartbeat
from lwfm.metric.systems.eit_heartbeat import (
    EITHeartbeatSeparator,
    beat_waves,
    find_beats,
    heart_rate,
    read_parts,
    split_bands,
    strongest,
)
from lwfm.metric.systems.system import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lwfm.metric.data.eit import Recording
    from lwfm.metric.evaluation import Role
    from lwfm.metric.scores import Scores

    Frames = npt.NDArray[np.float64]

_COMPONENTS = 5
"""Of 5 and 15, on chests that are not evaluated."""
_HALF_WIDTH = 0.06
"""Half the bandwidth, in cycles a second, of a line of heart or breathing."""
_VARIANTS: list[tuple[str, Role, dict[str, Any]]] = [
    ("contrastive encoder, feature matching", "system", {}),
    ("no feature matching: breathing explains what it can", "ablation", {"matching": 0.0}),
    ("no limits and power: a1 = a2 = a3 = 0", "ablation", {"a1": 0.0, "a2": 0.0, "a3": 0.0}),
    ("encoder by cross-entropy", "baseline", {"loss": "cross_entropy"}),
]
_SET_HERE = ("loss", "matching", "a1", "a2", "a3", "seed")


def simulate(seeds: Sequence[int], *, seconds: float = 90, **options: Any) -> MetricEvaluation:
    """Compare on simulated chests, whose true part of the heart is known; each seed is another person.

    Parameters
    ----------
    seeds : sequence of int
        Of the persons and of training.
    seconds : float
        Length of breathing.
    **options
        Parameters of :class:`EITHeartbeatSeparator`, but for `loss`, those of the terms, and `seed`.
    """
    template = _template(options)
    check_positive(seconds=seconds)
    found: dict[tuple[str, Role], list[Scores]] = {}
    for seed in progress(seeds, "seeds", "seed"):
        chest = simulate_chest(seed, seconds=seconds, rate=template.rate)
        edge = template.window // 2  # where filters have less to go by
        for name, role, heart in _answers([chest.held], [chest.breathing], template, seed):
            scores = truth_scores(heart[0][edge:-edge], chest.heart[edge:-edge])
            found.setdefault((name, role), []).append(scores)
    rows = [Row.over_seeds("simulated chests", *key, scores) for key, scores in found.items()]
    data = f"simulated chests, 20 s of held breath and {seconds:g} s of breathing"
    published = eit_heartbeat.SYSTEM.published
    return MetricEvaluation(
        "eit_heartbeat", data, tuple(seeds), tuple(rows), "correlation", published, simulated=True
    )


def evaluate(
    root: Path, seeds: Sequence[int], *, held: Sequence[str] = (), names: Sequence[str] = (), **options: Any
) -> MetricEvaluation:
    """Compare on recordings, without truth: by the power of the heart over that of breathing.

    Parameters
    ----------
    root, held, names
        See :func:`lwfm.metric.systems.eit_heartbeat.fit`.
    seeds : sequence of int
        Of training.
    **options
        Parameters of :class:`EITHeartbeatSeparator`, but for `loss`, those of the terms, and `seed`.
    """
    template = _template(options)
    still, breathing = read_parts(root, template.rate, held, names)
    found: dict[tuple[str, Role], list[Scores]] = {}
    for seed in progress(seeds, "seeds", "seed"):
        for name, role, hearts in _answers(still, breathing, template, seed):
            each = [
                power_ratio(heart, recording.frames, template.rate, template.heart)
                for heart, recording in zip(hearts, breathing, strict=True)
            ]
            scores = {"heart to breath (dB)": float(np.mean(each))}
            found.setdefault((name, role), []).append(scores)
    rows = [Row.over_seeds("recordings, no truth", *key, scores) for key, scores in found.items()]
    data = f"{root.name}: {len(still)} recordings of held breath, {len(breathing)} of breathing"
    published = eit_heartbeat.SYSTEM.published
    return MetricEvaluation(
        "eit_heartbeat", data, tuple(seeds), tuple(rows), "heart to breath (dB)", published
    )


def _template(options: dict[str, Any]) -> EITHeartbeatSeparator:
    template: EITHeartbeatSeparator = build(EITHeartbeatSeparator, options, set_here=_SET_HERE)
    return template


def _answers(
    held: Sequence[Recording], breathing: Sequence[Recording], template: EITHeartbeatSeparator, seed: int
) -> Iterator[tuple[str, Role, list[Frames]]]:
    """Yield the name and role of each way to separate, and the part of the heart of each recording."""
    for name, role, options in _VARIANTS:
        separator = EITHeartbeatSeparator(**{**template.get_params(), **options, "seed": seed})
        separator.fit_recordings(held, breathing)
        yield name, role, [separator.separate(each).heart for each in breathing]
    count = min(_COMPONENTS, *(min(each.frames.shape) for each in breathing))
    others: dict[str, Callable[[Recording, float], Frames]] = {
        "band-pass": lambda each, heart: split_bands(each.frames, template.rate, heart, template.low)[0],
        "principal components": lambda each, heart: by_components(
            PCA(count, random_state=0), each, heart, template.low
        ),
        "independent components": lambda each, heart: by_components(
            FastICA(count, random_state=0, max_iter=500, tol=1e-3), each, heart, template.low
        ),
        "average over beats": lambda each, heart: by_beats(each, heart, template.low),
    }
    for name, separate in others.items():
        yield name, "baseline", [separate(each, separator.heart_) for each in breathing]


def by_components(method: Any, recording: Recording, heart: float, low: float) -> Frames:
    """Keep the components of the heart band with most of their power at the heart rate and its multiples."""
    fast, _ = split_bands(recording.frames, recording.rate, heart, low)
    sources = method.fit_transform(fast)
    share = share_at_heart(sources, recording.rate, heart)
    kept: Frames = method.inverse_transform(sources * (share > min(0.5, share.max() - 1e-9)))
    return kept


def share_at_heart(sources: Frames, rate: float, heart: float) -> Frames:
    """Return the share of the power [K] of sources [T, K] within 10 % of one to three times the heart rate.

    Examples
    --------
    >>> time = np.arange(260)[:, None] / 13
    >>> share_at_heart(np.sin(2 * np.pi * np.array([1.1, 0.8]) * time), 13.0, 1.1).round(1).tolist()
    [1.0, 0.0]
    """
    values = (sources - sources.mean(0)) * np.hanning(len(sources))[:, None]
    power = np.square(np.abs(np.fft.rfft(values, n=8 * len(values), axis=0)))
    order = np.fft.rfftfreq(8 * len(values), 1 / rate) / heart
    inside = (order > 0.5) & (order < 3.5)
    near = inside & (np.abs(order - order.round()) < 0.1 * order.round())
    return np.asarray(power[near].sum(0) / power[inside].sum(0).clip(1e-300))


def by_beats(recording: Recording, heart: float, low: float) -> Frames:
    """Average each channel over the beats, the peaks of the principal component that is most of the heart.

    The average is a Fourier series of four harmonics of the phase between peaks, fitted by least squares.
    """
    fast, _ = split_bands(recording.frames, recording.rate, heart, low)
    sources = PCA(min(_COMPONENTS, *fast.shape), random_state=0).fit_transform(fast)
    trace = sources[:, share_at_heart(sources, recording.rate, heart).argmax()]
    beats = find_beats(trace * (np.sign((trace**3).mean()) or 1), recording.rate, heart)
    if len(beats) < 3:
        return fast
    waves = beat_waves(beats, np.arange(len(fast)))
    fitted: Frames = waves @ np.linalg.lstsq(waves, fast, rcond=None)[0]
    return fitted


def truth_scores(found: npt.NDArray[Any], truth: npt.NDArray[Any]) -> Scores:
    """Compute relative error and correlation of parts [T, M] without their means.

    Examples
    --------
    >>> wave = np.sin(np.arange(40.0))[:, None]
    >>> {name: round(value, 6) for name, value in truth_scores(0.5 * wave + 3, wave).items()}
    {'correlation': 1.0, 'relative error': 0.5}
    """
    found, truth = found - found.mean(0), truth - truth.mean(0)
    sizes = float(np.linalg.norm(found)), float(np.linalg.norm(truth))
    return {
        "correlation": float((found * truth).sum()) / max(sizes[0] * sizes[1], 1e-300),
        "relative error": float(np.linalg.norm(found - truth)) / sizes[1],
    }


def power_ratio(
    part: npt.NDArray[Any], frames: npt.NDArray[Any], rate: float, heart: float | None = None
) -> float:
    """Compute the power of a part [T, M] at the heart rate over that at harmonics of breathing, in decibels.

    Rates are the strongest lines of the frames. Bandwidths are equal: the mean power within 0.06 cycles a
    second of the rate of the heart and twice that, against harmonics of breathing between half and 2.5 times
    the heart rate that lie at least twice as far from those.
    """
    breath = strongest(frames, rate, 0.08, 0.7)
    fast, _ = split_bands(frames, rate, heart or 1.2)
    beat = heart_rate(fast, rate, near=heart)
    values = (part - part.mean(0)) * np.hanning(len(part))[:, None]
    power = np.square(np.abs(np.fft.rfft(values, n=4 * len(values), axis=0))).sum(1)
    frequency = np.fft.rfftfreq(4 * len(values), 1 / rate)
    lines = np.array([beat, 2 * beat])
    harmonics = breath * np.arange(2, 60)
    harmonics = harmonics[(harmonics > 0.5 * beat) & (harmonics < 2.5 * beat)]
    apart = np.abs(harmonics[:, None] - lines).min(1) > 2 * _HALF_WIDTH
    harmonics = harmonics[apart] if apart.any() else np.array([1.5 * beat])

    def level(centers: npt.NDArray[Any]) -> float:
        near = np.abs(frequency[:, None] - centers).min(1) <= _HALF_WIDTH
        return float(power[near].mean())

    return float(10 * np.log10(max(level(lines), 1e-300) / max(level(harmonics), 1e-300)))
