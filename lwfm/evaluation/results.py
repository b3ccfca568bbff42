"""Results of an evaluation: statistics of each method, and all that is needed to repeat it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lwfm._common.tables import text_table
from lwfm.errors import UserError


@dataclass(frozen=True)
class MethodResult:
    """One method's accuracy at one number of ways and shots; accuracies are fractions in 0..1.

    Attributes
    ----------
    method : str
        Which of :data:`lwfm.evaluation.episodes.METHODS`, or the name of a further head.
    way, shot : int
        Classes, and support images of each.
    accuracy, interval : float
        Mean over the episodes and half width of its 95 % interval; null for the interval of one episode.
    difference, difference_interval : float
        The same of the paired difference to the baseline on the same episodes.
    class_accuracy : dict of str to float
        For each class that was drawn, the fraction of its queries classified correctly.
    episode_accuracy : tuple of float
        Of every episode, in order.
    bootstrap, difference_bootstrap : tuple of float
        Limits of the 95 % bootstrap intervals of the accuracy and of the difference; null for one episode.
    confusion : dict of str to dict of str to int
        ``confusion[true][answer]``: number of queries of one class that were classified as another; no zeros.
    """

    method: str
    way: int
    shot: int
    accuracy: float
    interval: float | None
    difference: float
    difference_interval: float | None
    class_accuracy: dict[str, float]
    episode_accuracy: tuple[float, ...]
    bootstrap: tuple[float, float] | None = None
    difference_bootstrap: tuple[float, float] | None = None
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> MethodResult:
        """Build from JSON values, where tuples are lists."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class EvaluationResult:
    """All methods side by side, with everything needed to repeat the evaluation.

    Attributes
    ----------
    model : dict
        ``checkpoint`` (path or null for a network without training), ``sha256`` of that file,
        ``config`` (see :class:`lwfm.model.ModelConfig`) and ``normalization``.
    data : dict
        ``name``, ``layout``, ``root``, ``split``, ``fingerprint``, number of ``images``, ``classes``.
    options : dict
        ways, shots, queries, episodes, seed, batch_size, accelerator, class_split, crop, unreadable, overlap,
        maps_dtype, and ``heads``, the options of the further heads; ``sampling`` describes what is drawn
        with and without replacement.
    versions : dict
        Of lwfm, torch, torchvision, timm, python.
    machine : dict
        ``device``, ``threads`` of each process, and ``processes``.
    seconds : float
        Wall time, encoding included.
    methods : tuple of MethodResult
        For every way, then shot, then method.
    """

    model: dict[str, Any]
    data: dict[str, Any]
    options: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, Any]
    seconds: float
    methods: tuple[MethodResult, ...]

    def of(self, method: str, shot: int, way: int | None = None) -> MethodResult:
        """Return the result of one method at one number of shots and ways (None: where there is only one).

        KeyError when it was not evaluated.
        """
        way = self.options["ways"][0] if way is None and len(self.options["ways"]) == 1 else way
        for result in self.methods:
            if (result.method, result.shot, result.way) == (method, shot, way):
                return result
        raise KeyError((method, shot, way))

    def to_json(self) -> str:
        """Serialize as strict JSON (no NaN), indented."""
        return json.dumps(asdict(self), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EvaluationResult:
        """Read what :meth:`to_json` wrote; UserError for anything else."""
        try:
            plain = json.loads(text)
            options = plain["options"]
            way = options.pop("way", None)  # of files from before there were several
            options.setdefault("ways", [way])
            methods = tuple(MethodResult.from_dict({"way": way, **each}) for each in plain.pop("methods"))
            result = cls(**plain, methods=methods)
            counts = {len(method.episode_accuracy) for method in methods} | {options["episodes"]}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            names = ", ".join(one.name for one in fields(cls))
            raise UserError(f"not an evaluation result (JSON with {names}): {error}") from error
        if len(counts) > 1:
            raise UserError(
                f"not a whole evaluation result: {options['episodes']} episodes, and lists episode_accuracy "
                f"of {', '.join(str(count) for count in sorted(counts - {options['episodes']}))} values"
            )
        return result

    def __str__(self) -> str:
        options = self.options
        ways = " and ".join(f"{way}-way" for way in options["ways"])
        heading = (
            f"{self.data['name']} {self.data['split']}: {ways}, {options['queries']} queries a "
            f"class, {options['episodes']} episodes, seed {options['seed']}; % with 95 % intervals"
        )
        rows = []
        for result in self.methods:
            difference = percent(result.difference, result.difference_interval, sign="+")
            rows.append(
                (
                    str(result.way),
                    str(result.shot),
                    result.method,
                    percent(result.accuracy, result.interval),
                    "" if result.method == "nearest_class_mean" else difference,
                )
            )
        titles = ("way", "shot", "method", "accuracy", "minus nearest class mean")
        return f"{heading}\n{text_table('>><>>', titles, rows)}"


def percent(value: float, interval: float | None, sign: str = "") -> str:
    """Format as percent, ``12.34 ± 0.56``."""
    half_width = "" if interval is None else f" ± {100 * interval:.2f}"
    return f"{round(100 * value, 2) + 0.0:{sign}.2f}{half_width}"  # + 0.0: never a minus before 0.00
