"""Answers of the turbine fault detector on one series: scores over time, alarms, and their channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from lwfm.metric.data import scada
from lwfm.metric.decisions import find_alarms

if TYPE_CHECKING:
    from lwfm.metric.systems.turbine_faults import TurbineFaultDetector

_NAMED = 3
"""Channels that the list of alarms names."""


class Answer:
    """What a detector finds in one series.

    Parameters
    ----------
    detector : TurbineFaultDetector
        Fitted on files.
    series : Series
        Of its channels.
    """

    def __init__(self, detector: TurbineFaultDetector, series: scada.Series) -> None:
        windows = scada.cut_windows(
            [series], detector.window, detector.stride, gap=detector.gap, healthy=detector.healthy
        )
        self.name, self.series, self.threshold = series.name, series, detector.threshold_
        self.times = windows.times
        self.scores = detector.decision_function(windows.values)
        self.parts = detector.contributions(windows.values)
        self.alarms = find_alarms(self.times, self.scores, self.threshold, 3600 * detector.hold)

    def rows(self) -> list[list[Any]]:
        """Return a row of the table for each window."""
        unusual = self.scores > self.threshold
        return [
            [self.name, _utc(time), f"{score:.4f}", int(alarm), *(f"{part:.3f}" for part in parts)]
            for time, score, alarm, parts in zip(self.times, self.scores, unusual, self.parts, strict=True)
        ]

    def alarm_rows(self) -> list[list[Any]]:
        """Return a row for each alarm, with the channels that add most to its score."""
        rows = []
        for first, last in self.alarms:
            mean = self.parts[first : last + 1].mean(0)
            named = [
                f"{self.series.channels[channel]} ({mean[channel]:.1f})"
                for channel in np.argsort(-mean)[:_NAMED]
            ]
            largest = self.scores[first : last + 1].max()
            rows.append(
                [
                    self.name,
                    _utc(self.times[first]),
                    _utc(self.times[last]),
                    f"{largest:.4f}",
                    "; ".join(named),
                ]
            )
        return rows

    def figure(self) -> Figure:
        """Draw the scores, the channels that deviate most in the alarms, and the alarms."""
        shown = [self.parts[first : last + 1].mean(0) for first, last in self.alarms] or [self.parts.mean(0)]
        channels = np.argsort(-np.mean(shown, axis=0))[:_NAMED]
        figure = Figure(figsize=(10, 2 + 1.4 * len(channels)), layout="constrained")
        score, *others = figure.subplots(1 + len(channels), 1, sharex=True)
        score.semilogy(self.times.astype("datetime64[s]"), self.scores, linewidth=0.7, color="black")
        score.axhline(self.threshold, color="tab:red", linewidth=0.8)
        score.set_ylabel("score", fontsize=8)
        score.set_title(f"{self.name}: {len(self.alarms)} alarms (red)", fontsize=9)
        times = self.series.times.astype("datetime64[s]")
        for axes, channel in zip(others, channels, strict=True):
            axes.plot(times, self.series.values[:, channel], linewidth=0.5, color="tab:blue")
            axes.set_ylabel(self.series.channels[channel], fontsize=7, parse_math=False)
        for axes in (score, *others):
            axes.tick_params(labelsize=7)
            axes.margins(x=0)
            for first, last in self.alarms:
                begin, end = self.times[[first, last]].astype("datetime64[s]")
                axes.axvspan(begin, end, color="tab:red", alpha=0.2)
        return figure


def _utc(time: float) -> str:
    return str(np.datetime64(round(time), "s"))
