"""What the command line needs to know of a system."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lwfm.metric.estimator import MetricEstimator
    from lwfm.metric.evaluation import MetricEvaluation


@dataclass(frozen=True)
class System:
    """One of the published systems.

    Attributes
    ----------
    name : str
        On the command line and in files.
    task, reads : str
        What it does, and the files it does it with.
    formula : str
        ``exact`` where it was read in the authors' code, ``reading`` where it was derived from an abstract.
    published : str
        What was published, and on what.
    estimator : type
        The class.
    evaluate : callable
        ``evaluate(root, seeds, **options)``.
    fit : callable
        ``fit(root, **options)``, the options being the parameters of the estimator and of its reader.
    predict : callable
        ``predict(estimator, inputs, out, figure, **options)`` writes files and returns lines about them.
    simulate : callable, optional
        ``simulate(seeds, **options)``, which evaluates on simulated data where the user has none; its result
        has ``simulated=True``. None where there is no simulator.
    """

    name: str
    task: str
    reads: str
    formula: str
    published: str
    estimator: type[MetricEstimator]
    evaluate: Callable[..., MetricEvaluation]
    fit: Callable[..., MetricEstimator]
    predict: Callable[..., str]
    simulate: Callable[..., MetricEvaluation] | None = None


def build(
    estimator: type[MetricEstimator],
    options: Mapping[str, Any],
    *,
    set_here: Iterable[str] = (),
    unused: Iterable[str] = (),
) -> Any:
    """Build an estimator with parameters by name, and check them.

    Parameters
    ----------
    estimator : type
        The class.
    options : mapping
        Its parameters.
    set_here, unused : iterable of str
        Parameters that an evaluation sets itself, and those that it does not use: they are refused.

    Raises
    ------
    UserError
        For a name that the class does not have, one that is refused, and a value out of its range.

    Examples
    --------
    >>> from lwfm.metric import PVCDetector
    >>> build(PVCDetector, {"k": 7}).k
    7
    """
    known = [name for name in inspect.signature(estimator).parameters if name != "self"]
    if unknown := [name for name in options if name not in known]:
        raise UserError(f"{estimator.system} has no option {unknown[0]}: {', '.join(known)}")
    for reason, names in (("set by evaluate itself", set_here), ("not used by evaluate", unused)):
        if refused := [name for name in names if name in options]:
            raise UserError(f"{refused[0]} is {reason}")
    built = estimator(**options)
    built._check_parameters()
    return built


def check_names_differ(names: Iterable[str]) -> None:
    """Raise UserError where two inputs have one name, by which their answers are written.

    Examples
    --------
    >>> check_names_differ(["100", "101"])
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"two inputs are named {name}: predict writes answers by name; run it for each")
        seen.add(name)
