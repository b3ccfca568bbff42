"""Results of an evaluation: statistics of each method, and all that is needed to repeat it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from lwfm._common.records import build_record, parse_json
from lwfm._common.tables import text_table
from lwfm.data.image_sets import ClassSplit, Split  # noqa: TC001 - read when a file is checked
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


class EvaluatedModel(TypedDict):
    """The network of an evaluation: file and its SHA-256 (null for a network without training), options."""

    checkpoint: str | None
    sha256: str | None
    config: dict[str, Any]
    normalization: dict[str, list[float]] | None


class EvaluatedData(TypedDict):
    """The images of an evaluation."""

    name: str
    layout: str
    root: str | None
    split: Split
    fingerprint: str
    images: int
    classes: list[str]


class EvaluationOptions(TypedDict):
    """The options of an evaluation; ``sampling`` describes what is drawn with and without replacement."""

    ways: list[int]
    shots: list[int]
    queries: int
    episodes: int
    seed: int
    heads: dict[str, dict[str, Any]]
    batch_size: int | None
    accelerator: str
    engine: NotRequired[str]
    class_split: NotRequired[ClassSplit | None]
    crop: NotRequired[bool]
    unreadable: str
    overlap: NotRequired[str]
    maps_dtype: str | None
    sampling: str


@dataclass(frozen=True)
class _Common:
    """The entries of a result beside its methods."""

    model: EvaluatedModel
    data: EvaluatedData
    options: EvaluationOptions
    versions: dict[str, str]
    machine: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class EvaluationResult(_Common):
    """All methods side by side, with everything needed to repeat the evaluation.

    Attributes
    ----------
    model : EvaluatedModel
        ``checkpoint`` (path or null for a network without training), ``sha256`` of that file,
        ``config`` (see :class:`lwfm.model.ModelConfig`) and ``normalization``.
    data : EvaluatedData
        ``name``, ``layout``, ``root``, ``split``, ``fingerprint``, number of ``images``, ``classes``.
    options : EvaluationOptions
        ways, shots, queries, episodes, seed, batch_size, accelerator, engine, class_split, crop, unreadable,
        overlap, maps_dtype, and ``heads``, the options of the further heads; ``sampling`` describes what is
        drawn with and without replacement.
    versions : dict
        Of lwfm, torch, torchvision, timm, python.
    machine : dict
        ``device``, ``threads`` of each process, and ``processes``.
    seconds : float
        Wall time, encoding included.
    methods : tuple of MethodResult
        For every way, then shot, then method.
    """

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
            plain = dict(parse_json(text))
            methods = tuple(build_record(MethodResult, each) for each in plain["methods"])
            common = build_record(_Common, {name: plain[name] for name in plain if name != "methods"})
        except (ValueError, TypeError, KeyError) as error:
            names = ", ".join(one.name for one in fields(cls))
            raise UserError(f"not an evaluation result (JSON with {names}): {error}") from error
        for method in methods:
            _check(method, common.options["episodes"])
        return cls(**vars(common), methods=methods)

    @classmethod
    def read(cls, path: Path) -> EvaluationResult:
        """Read a file that `lwfm evaluate --out` wrote; UserError naming it for anything else."""
        try:
            return cls.from_json(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(f"cannot read the result {path}: {error.strerror or error}") from error
        except ValueError as error:  # UserError and UnicodeDecodeError
            raise UserError(f"{path}: {error}") from error

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


def _check(method: MethodResult, episodes: int) -> None:
    """Raise UserError for a method of other episodes, or with numbers that no evaluation has."""
    found = len(method.episode_accuracy)
    if found != episodes:
        raise UserError(
            f"not a whole evaluation result: {episodes} episodes, and lists episode_accuracy of {found} "
            "values"
        )
    accuracies = (method.accuracy, *method.episode_accuracy, *method.class_accuracy.values())
    counts = [count for row in method.confusion.values() for count in row.values()]
    if min(method.way, method.shot) < 1 or min(counts, default=0) < 0:
        raise UserError(
            f"not an evaluation result: {method.method} has a way or shot below 1, or a confusion below 0"
        )
    if not all(0 <= each <= 1 for each in accuracies):
        raise UserError(f"not an evaluation result: accuracies of {method.method} must lie in 0..1")


def percent(value: float, interval: float | None, sign: str = "") -> str:
    """Format as percent, ``12.34 ± 0.56``."""
    half_width = "" if interval is None else f" ± {100 * interval:.2f}"
    return f"{round(100 * value, 2) + 0.0:{sign}.2f}{half_width}"  # + 0.0: never a minus before 0.00
