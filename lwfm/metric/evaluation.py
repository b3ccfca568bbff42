"""Result of an evaluation: the system beside its baselines and ablations, with paired differences."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from matplotlib.figure import Figure

from lwfm._common.tables import text_table
from lwfm.metric.scores import paired_difference

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from lwfm.metric.scores import Scores

Role = Literal["system", "baseline", "ablation"]
SIMULATED = "simulated: shows the mechanism, not the published figure"


@dataclass(frozen=True)
class Row:
    """Scores of one way to answer.

    Attributes
    ----------
    protocol : str
        How training and test data were separated.
    name : str
        What answered.
    role : {"system", "baseline", "ablation"}
        In the comparison.
    scores : dict of str to list of float
        One value for each seed: fractions, but for scores whose name ends in a unit, such as "delay (h)".
    """

    protocol: str
    name: str
    role: Role
    scores: dict[str, list[float]]

    @classmethod
    def over_seeds(cls, protocol: str, name: str, role: Role, scores: Sequence[Scores]) -> Row:
        """Join the scores of several seeds."""
        return cls(protocol, name, role, {metric: [each[metric] for each in scores] for metric in scores[0]})


@dataclass(frozen=True)
class MetricEvaluation:
    """Rows of one system on one set of data.

    Attributes
    ----------
    system : str
        Its name.
    data : str
        The data, in words.
    seeds : tuple of int
        Of training, and of the random parts of protocols.
    rows : tuple of Row
        Each protocol has one row of the role "system".
    primary : str
        The score that decides, shown in the figure.
    published : str
        What was published, and on what.
    simulated : bool
        Whether the data are simulated; every output says so.
    """

    system: str
    data: str
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    primary: str
    published: str
    simulated: bool = False

    @property
    def protocols(self) -> list[str]:
        """The protocols, in order."""
        return list(dict.fromkeys(row.protocol for row in self.rows))

    def differences(self) -> list[dict[str, Any]]:
        """Return system minus every other row of its protocol: mean and 95 % interval for each score."""
        found = []
        for protocol in self.protocols:
            rows = [row for row in self.rows if row.protocol == protocol]
            system = next(row for row in rows if row.role == "system")
            found += [
                {
                    "protocol": protocol,
                    "first": system.name,
                    "second": row.name,
                    "metric": metric,
                    **paired_difference(system.scores[metric], row.scores[metric]),
                }
                for row in rows
                if row is not system
                for metric in system.scores
                if metric in row.scores
            ]
        return found

    def __str__(self) -> str:
        differences = {
            (each["protocol"], each["second"]): each
            for each in self.differences()
            if each["metric"] == self.primary
        }
        parts = [
            f"{self.system} on {self.data}, {len(self.seeds)} seeds; means in per cent, or in a named unit"
        ]
        if self.simulated:
            parts.append(SIMULATED)
        for protocol in self.protocols:
            rows = [row for row in self.rows if row.protocol == protocol]
            metrics = list(dict.fromkeys(metric for row in rows for metric in row.scores))
            titles = ("", "role", *metrics, f"system's {self.primary} minus this")
            cells = [
                (
                    row.name,
                    row.role,
                    *(_mean(metric, row.scores.get(metric)) for metric in metrics),
                    _difference(self.primary, differences.get((protocol, row.name))),
                )
                for row in rows
            ]
            parts.append(f"{protocol}\n{text_table('<<' + '>' * (len(metrics) + 1), titles, cells)}")
        parts.append(f"published: {self.published}")
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """Serialize as strict JSON, indented."""
        content = {
            "system": self.system,
            "data": self.data,
            "seeds": list(self.seeds),
            "rows": [asdict(row) for row in self.rows],
            "differences": self.differences(),
            "primary": self.primary,
            "published": self.published,
            "simulated": SIMULATED if self.simulated else None,
        }
        return json.dumps(content, indent=1, allow_nan=False) + "\n"

    def figure(self) -> Figure:
        """Draw the primary score of every row, seed by seed, one panel for each protocol that has it."""
        scored = {row.protocol for row in self.rows if self.primary in row.scores}
        protocols = [name for name in self.protocols if name in scored]
        most = max(sum(row.protocol == name for row in self.rows) for name in protocols)
        figure = Figure(figsize=(8.6, len(protocols) * (0.8 + 0.32 * most)), layout="constrained")
        colors = {"system": "tab:blue", "baseline": "tab:gray", "ablation": "tab:orange"}
        panels = figure.subplots(len(protocols), 1, squeeze=False)[:, 0]
        for axes, protocol in zip(panels, protocols, strict=True):
            rows = [row for row in self.rows if row.protocol == protocol and self.primary in row.scores]
            for place, row in enumerate(reversed(rows)):
                values = _factor(self.primary) * np.asarray(row.scores[self.primary])
                axes.barh(place, values.mean(), color=colors[row.role], alpha=0.4)
                axes.plot(values, np.full(len(values), place), "o", color=colors[row.role], markersize=3)
            axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)], fontsize=8)
            axes.set_title(protocol, fontsize=9)
            axes.set_xlabel(self.primary if _has_unit(self.primary) else f"{self.primary} (%)", fontsize=8)
            axes.grid(axis="x", alpha=0.3)
        if self.simulated:
            figure.suptitle(SIMULATED, fontsize=9)
        return figure


def _has_unit(metric: str) -> bool:
    return metric.endswith(")")


def _factor(metric: str) -> float:
    """Return what a score is multiplied by to be shown: fractions are shown in per cent."""
    return 1 if _has_unit(metric) else 100


def _mean(metric: str, values: Sequence[float] | None) -> str:
    return "" if values is None else f"{_factor(metric) * float(np.mean(values)):.2f}"


def _difference(metric: str, difference: dict[str, Any] | None) -> str:
    if difference is None:
        return ""
    mean, low, high = (difference[name] for name in ("mean", "low", "high"))
    factor = _factor(metric)
    limits = "" if low is None else f" [{factor * low:+.2f}, {factor * high:+.2f}]"
    return f"{factor * mean:+.2f}{limits}"
