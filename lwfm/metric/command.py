"""The commands ``lwfm metric list``, ``evaluate``, ``fit`` and ``predict``."""

from __future__ import annotations

from inspect import signature
from pathlib import Path  # noqa: TC003 - the command line reads the types
from typing import TYPE_CHECKING, Any

from lwfm._common.files import atomic_path
from lwfm._common.ranges import check_at_least
from lwfm._common.tables import text_table
from lwfm.errors import UserError, keeping
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.estimator import saved_system
from lwfm.metric.systems import NAMES, find_system

if TYPE_CHECKING:
    from lwfm.metric.evaluation import MetricEvaluation


def list_systems() -> str:
    """List the systems: name, task, the files they read, and how sure their formula is.

    Returns
    -------
    str
        A table.
    """
    systems = [find_system(name) for name in NAMES]
    rows = [(each.name, each.task, each.reads, each.formula) for each in systems]
    return text_table("<<<<", ("system", "task", "data it reads", "formula"), rows)


def evaluate_system(
    system: str,
    *,
    root: Path | None = None,
    seeds: int = 5,
    options: dict[str, Any] | None = None,
    out: Path | None = None,
    figure: Path | None = None,
) -> MetricEvaluation:
    """Measure a system beside its baselines and ablations, over several seeds.

    Parameters
    ----------
    system : str
        Its name: lwfm metric list shows them.
    root : Path, optional
        The data: a file or folder of the kind that the list shows. Without it a system that has a simulator
        is measured on simulated data, which shows the mechanism, not the published figure.
    seeds : int
        Number of seeds; they are 0, 1, ...
    options : dict, optional
        Parameters of the system and of its reader, such as '{k: 7, steps: 500}'.
    out : Path, optional
        JSON file of all scores and differences.
    figure : Path, optional
        Figure (png, pdf, svg, ...) of the score that decides.

    Returns
    -------
    MetricEvaluation
        Prints as tables.

    Raises
    ------
    UserError
        For an unknown system, data that cannot be read, a system without simulator and root, wrong options,
        and files that cannot be written.
    """
    check_at_least(1, seeds=seeds)
    if figure is not None:
        check_figure_suffix(figure)
    found = find_system(system)
    given = _checked(options, "evaluate", ("root", "seeds"))
    if root is not None:
        _check_exists(root)
        result = found.evaluate(root, range(seeds), **given)
    elif found.simulate is not None:
        result = found.simulate(range(seeds), **given)
    else:
        raise UserError(f"{system} has no simulator: give its data, --root, which are {found.reads}")
    with keeping(result):
        if out is not None:
            with atomic_path(out) as temporary:
                temporary.write_text(result.to_json(), encoding="utf-8")
        if figure is not None:
            save_figure(result.figure(), figure)
    return result


def fit_system(system: str, *, root: Path, out: Path, options: dict[str, Any] | None = None) -> str:
    """Fit a system on labeled data and write it as one file.

    Parameters
    ----------
    system : str
        Its name: lwfm metric list shows them.
    root : Path
        The labeled data: a file or folder of the kind that the list shows.
    out : Path
        The model, a .safetensors file. An existing file is replaced.
    options : dict, optional
        Parameters of the system and of its reader, such as '{k: 7, lead: V5}'.

    Returns
    -------
    str
        A line about the model, for the user.

    Raises
    ------
    UserError
        For an unknown system, data that cannot be read, wrong options, and a file that cannot be written.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"the model {out} must have the suffix .safetensors")
    _check_exists(root)
    estimator = find_system(system).fit(root, **_checked(options, "fit", ("root",)))
    estimator.save(out)
    return f"{system} fitted on {root} in {out}\nnext: lwfm metric predict {out} INPUT --out answers.csv"


def predict_with(
    model: Path,
    inputs: list[Path],
    *,
    out: Path,
    figure: Path | None = None,
    options: dict[str, Any] | None = None,
) -> str:
    """Apply a fitted system to data without labels.

    Parameters
    ----------
    model : Path
        File that `lwfm metric fit` wrote.
    inputs : list of Path
        The data.
    out : Path
        CSV file of the answers; further files of a system lie beside it.
    figure : Path, optional
        Figure (png, pdf, svg, ...) of the answers.
    options : dict, optional
        Of the reader, such as '{orthologues: genes.csv}' for cell_types.

    Returns
    -------
    str
        Lines about the files that were written, for the user.

    Raises
    ------
    UserError
        For a missing or damaged model, data that cannot be read, and files that cannot be written.
    """
    if figure is not None:
        check_figure_suffix(figure)
    system = find_system(saved_system(model))
    given = _checked(options, "predict")
    known = list(signature(system.predict).parameters)[4:]
    if unknown := [name for name in given if name not in known]:
        raise UserError(
            f"predict of {system.name} has no option {unknown[0]}: {', '.join(known) or 'it has none'}"
        )
    return system.predict(system.estimator.load(model), inputs, out, figure, **given)


def _checked(options: dict[str, Any] | None, command: str, arguments: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the options; UserError for names that are no text, or those of arguments of the command."""
    for name in options or {}:
        if not isinstance(name, str):
            raise UserError(f"the names of options must be text, not {name!r}")
        if name in arguments:
            raise UserError(f"{name} is an argument of {command}, not one of the options")
    return options or {}


def _check_exists(root: Path) -> None:
    if not root.exists() and not root.with_name(f"{root.name}.hea").is_file():
        raise UserError(f"there is no file or folder {root}")
