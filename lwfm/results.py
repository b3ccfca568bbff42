"""What an evaluation found, as a file that tells how to repeat it and as a table."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NORMAL_975 = 1.959963984540054  # quantile of the normal distribution: two-sided 95 % intervals


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half width of its 95 % interval (normal approximation; None for a single value).

    Examples
    --------
    >>> mean, interval = mean_and_interval([0.0, 1.0, 0.0, 1.0])
    >>> round(mean, 3), round(interval, 3)
    (0.5, 0.566)
    """
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    return mean, _NORMAL_975 * math.sqrt(variance / count)


@dataclass(frozen=True)
class MethodResult:
    """One method's accuracy at one number of shots; accuracies are fractions in 0..1.

    Attributes
    ----------
    method : str
        Which of :data:`lwfm.comparison.METHODS`.
    shot : int
        Support pictures per class.
    accuracy, interval : float
        Mean over the episodes and half width of its 95 % interval; null for the interval of one episode.
    difference, difference_interval : float
        The same of the paired difference to the baseline on the same episodes.
    class_accuracy : dict of str to float
        For each class that was drawn, the fraction of its queries classified correctly.
    episode_accuracy : tuple of float
        Of every episode, in order.
    """

    method: str
    shot: int
    accuracy: float
    interval: float | None
    difference: float
    difference_interval: float | None
    class_accuracy: dict[str, float]
    episode_accuracy: tuple[float, ...]


@dataclass(frozen=True)
class EvaluationResult:
    """All methods side by side, with everything needed to repeat the evaluation.

    Attributes
    ----------
    model : dict
        ``checkpoint`` (path or null for a network without training), ``sha256`` of that file,
        ``config`` (see :class:`lwfm.model.ModelConfig`) and ``normalization``.
    data : dict
        ``name``, ``layout``, ``root``, ``split``, ``fingerprint``, number of ``pictures``, ``classes``.
    options : dict
        way, shots, queries, episodes, seed, batch_size, accelerator, unreadable.
    versions : dict
        Of lwfm, torch, torchvision, timm, python.
    machine : dict
        ``device`` and ``threads``.
    seconds : float
        Wall time, encoding included.
    methods : tuple of MethodResult
        Of every shot, then method.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    options: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    seconds: float
    methods: tuple[MethodResult, ...]

    def of(self, method: str, shot: int) -> MethodResult:
        """Find the result of one method at one number of shots; KeyError when it was not evaluated."""
        for result in self.methods:
            if (result.method, result.shot) == (method, shot):
                return result
        raise KeyError((method, shot))

    def to_json(self) -> str:
        """Serialise as strict JSON (no NaN), indented."""
        plain = asdict(self)
        for method in plain["methods"]:
            method["episode_accuracy"] = list(method["episode_accuracy"])
        return json.dumps(plain, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EvaluationResult:
        """Read what :meth:`to_json` wrote; UserError when it is anything else."""
        try:
            plain = json.loads(text)
            methods = tuple(
                MethodResult(**{**method, "episode_accuracy": tuple(method["episode_accuracy"])})
                for method in plain.pop("methods")
            )
            return cls(**plain, methods=methods)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            names = ", ".join(field.name for field in fields(cls))
            raise UserError(f"not an evaluation result (JSON with {names}): {error}") from error

    def table(self) -> str:
        """Render as plain text: a row for each shot and method, accuracies in percent."""
        options = self.options
        heading = (
            f"{self.data['name']} {self.data['split']}: {options['way']}-way, {options['queries']} queries a "
            f"class, {options['episodes']} episodes, seed {options['seed']}; % with 95 % intervals"
        )
        lines = [heading, f"{'shot':>4}  {'method':<20}{'accuracy':>15}  {'minus nearest class mean':>25}"]
        for result in self.methods:
            accuracy = _percent(result.accuracy, result.interval)
            difference = (
                ""
                if result.method == "nearest_class_mean"
                else _percent(result.difference, result.difference_interval, sign="+")
            )
            lines.append(f"{result.shot:>4}  {result.method:<20}{accuracy:>15}  {difference:>25}".rstrip())
        return "\n".join(lines)


def _percent(value: float, interval: float | None, sign: str = "") -> str:
    """Write as percent, ``12.34 ± 0.56``."""
    half_width = "" if interval is None else f" ± {100 * interval:.2f}"
    return f"{100 * value:{sign}.2f}{half_width}"
