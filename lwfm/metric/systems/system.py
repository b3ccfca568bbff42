"""What the command line needs to know of a system."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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


def build(estimator: type[MetricEstimator], options: Mapping[str, Any]) -> Any:
    """Build an estimator with parameters by name; UserError for a name that it does not have.

    Examples
    --------
    >>> from lwfm.metric import PVCDetector
    >>> build(PVCDetector, {"k": 7}).k
    7
    """
    known = [name for name in inspect.signature(estimator).parameters if name != "self"]
    if unknown := [name for name in options if name not in known]:
        raise UserError(f"{estimator.system} has no option {unknown[0]}: {', '.join(known)}")
    return estimator(**options)
