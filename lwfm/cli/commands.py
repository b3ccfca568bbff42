"""The command line ``lwfm``; :data:`COMMANDS` lists what it does.

Each command is a typed Python function; its options, their types and defaults, and the help text come
from its signature and docstring.
"""

from __future__ import annotations

import os
import sys
import warnings
from argparse import RawDescriptionHelpFormatter
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lwfm
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jsonargparse import ArgumentParser

    from lwfm.evaluation.results import EvaluationResult
    from lwfm.training import TrainingSummary


class Command(NamedTuple):
    """A command: the function that does it, its line of help, and how its result is reported."""

    function: str
    summary: str
    report: Callable[[Any], None] = print
    several: tuple[str, str] | None = None
    """The last positional parameter, if it takes one or more paths, and its help."""
    short: tuple[str, ...] = ()
    """Parameters of one letter that are also options with one dash."""
    bare: tuple[tuple[str, str], ...] = ()
    """Options whose value may be left out, and the value that this means."""


def _report_training(summary: TrainingSummary) -> None:
    nearest = f" (nearest class mean {100 * summary.val_nearest_class_mean:.1f} %)"
    _report_run(summary, measured=nearest, following=f"lwfm evaluate --checkpoint {summary.best}")


def _report_pretraining(summary: TrainingSummary) -> None:
    following = f"lwfm train --model.weights {summary.best}, with the same model.backbone and layers"
    _report_run(summary, measured=" by nearest class mean", following=following)


def _report_run(summary: TrainingSummary, *, measured: str, following: str) -> None:
    from lwfm.figures import curves_figure, save_figure
    from lwfm.training.trainer import is_first_process

    if not is_first_process():
        return
    curves = summary.best.parent / "curves.png"
    save_figure(curves_figure(summary.logs.parent), curves)  # of all starts
    print(
        f"trained {summary.steps} steps, {summary.epochs} epochs, in {summary.seconds:.0f} s\n"
        f"best epoch {summary.best_epoch}: accuracy {100 * summary.val_accuracy:.1f} % on unseen validation "
        f"classes{measured}\n"
        f"model   {summary.best}\nlogs    {summary.logs}\ncurves  {curves}\n"
        f"next:   {following}"
    )


def _report_evaluation(result: EvaluationResult) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(result)


GROUPS = {"bench": "time the assignment solver or the head on this machine"}
"""Names that commands of two words begin with, and their lines of help."""

COMMANDS: dict[str, Command] = {
    "pretrain": Command(
        "lwfm.training.pretraining:pretrain",
        "pretrain a network from scratch, by ordinary classification, for lwfm train",
        _report_pretraining,
    ),
    "train": Command("lwfm.training.training:train", "train LWFM-SPM on a data set", _report_training),
    "evaluate": Command(
        "lwfm.evaluation.evaluation:evaluate",
        "measure few-shot accuracy on unseen classes",
        _report_evaluation,
    ),
    "experiment": Command(
        "lwfm.experiments.run:experiment",
        "train and evaluate every row of a table; goes on where it stopped",
    ),
    "compare": Command(
        "lwfm.evaluation.comparison:compare",
        "test whether two results on the same episodes differ",
    ),
    "data": Command(
        "lwfm.data.inspection:inspect_data",
        "say which data set a folder holds and what is wrong with it: lwfm data inspect ROOT",
    ),
    "classify": Command(
        "lwfm.classifier.command:classify",
        "name the class of your own images from a few examples of each class",
        several=("queries", "Images to classify, and folders of such images. (required)"),
    ),
    "import": Command(
        "lwfm.model.import_published:import_checkpoint",
        "turn a checkpoint of the published code into a model file",
    ),
    "index": Command(
        "lwfm.retrieval.index:build_index", "index the images of a folder, to search among them"
    ),
    "search": Command(
        "lwfm.retrieval.search:search_index",
        "find the indexed images that are most similar to one",
        short=("k",),
        bare=(("show", "similar.png"),),
    ),
    "report": Command("lwfm.report.page:report", "show a result of evaluate as one HTML page, with images"),
    "match": Command("lwfm.figures.matches:match", "draw how two images match, position by position"),
    "bench assignment": Command(
        "lwfm.bench.command:bench_assignment", "time the assignment solver beside others"
    ),
    "bench matching": Command(
        "lwfm.bench.command:bench_matching", "time the head beside its own matrix products"
    ),
    "info": Command("lwfm.cli.info:info", "show version, build, threads: what to put into a bug report"),
}

_NAMED_OPTIONS = ("pretrain", "train", "evaluate")
"""Commands of many options: all have names, and can stand in a file."""

EXTRAS = {"usearch": "retrieval", "jinja2": "report", "sklearn": "report"}
"""Optional packages and the extras that bring them; `train` brings all others."""

EPILOG = """examples:
  lwfm train --config configs/emoji.yaml --out runs/emoji
  lwfm evaluate --checkpoint runs/emoji/best.safetensors --queries 5
  lwfm experiment configs/ablation.yaml --data '[emoji]'
  lwfm pretrain --config configs/resnet12-cub-pretrain.yaml --root FOLDER --out runs/cub-pretrained
  lwfm data inspect miniImageNet
  lwfm classify examples unsorted --out answers.csv --explain figures
  lwfm index images --out index.safetensors
  lwfm search index.safetensors one.jpg -k 10 --show similar.png
  lwfm report result.json
  lwfm match support.jpg query.jpg --checkpoint runs/emoji/best.safetensors --out match.png
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 done, 2 the user's mistake, 130 Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _run(arguments)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "lwfm":
            raise
        package = error.name.split(".")[0]
        extra = EXTRAS.get(package, "train")
        return _fail(f"the package {package} is missing; install it: pip install 'lwfm[{extra}]'")
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt as error:
        print(f"\nlwfm: {str(error) or 'stopped'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object, **__: object
) -> None:  # the signature is that of warnings.showwarning
    """Show our own warnings as a sentence; those of libraries for their developers not at all."""
    if issubclass(category, UserWarning):
        del filename, lineno
        print(f"lwfm: warning: {message}", file=sys.stderr)


def _fail(message: str) -> int:
    print(f"lwfm: error: {message}", file=sys.stderr)
    return 2


def _run(arguments: list[str]) -> int:
    words = [word for word in arguments if not word.startswith("-")]
    chosen = next((name for name in COMMANDS if words[: len(name.split())] == name.split()), None)
    parser = build_parser(only=chosen)
    values = parser.parse_args(arguments)
    if values.command is None:
        parser.print_help()
        return 0
    name, values = values.command, parser.instantiate(values)[values.command]
    if name in GROUPS:
        name, values = f"{name} {values.command}", values[values.command]
    options = values.as_dict()
    options.pop("config", None)
    command = COMMANDS[name]
    command.report(_load(command)(**options))
    return 0


def build_parser(only: str | None = None) -> ArgumentParser:
    """Build the parser; with ``only``, just that command gets its options (loading them all takes seconds).

    Parameters
    ----------
    only : str, optional
        Name of a command; None fills in none of them.
    """
    from jsonargparse import ArgumentParser, DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
        """Keeps the line breaks of the examples."""

    parser = ArgumentParser(
        prog="lwfm",
        description="Few-shot image classification by semantic-pixel matching (LWFM-SPM).",
        epilog=EPILOG,
        formatter_class=Formatter,
        version=f"lwfm {lwfm.__version__}",
    )
    commands = parser.add_subcommands(required=False, dest="command")
    within: dict[str, Any] = {"": commands}
    for name, command in COMMANDS.items():
        subparser = ArgumentParser(description=command.summary)
        if only == name:
            if name in _NAMED_OPTIONS:
                subparser.add_argument(
                    "--config", action="config", help="YAML file that sets any of the options"
                )
            several, explanation = command.several or ("", "")
            by_place = name not in _NAMED_OPTIONS
            skipped: set[str | int] = {several} if several else set()
            subparser.add_function_arguments(_load(command), as_positional=by_place, skip=skipped)
            if several:
                subparser.add_argument(several, nargs="+", type=Path, help=explanation)
            _relax(subparser, command)
        group, _, last = name.rpartition(" ")
        if group not in within:
            group_parser = ArgumentParser(description=GROUPS[group])
            commands.add_subcommand(group, group_parser, help=GROUPS[group])
            within[group] = group_parser.add_subcommands(dest="command")
        within[group].add_subcommand(last, subparser, help=command.summary)
    return parser


def _relax(parser: ArgumentParser, command: Command) -> None:
    """Let options of one letter have one dash, and some options stand without a value."""
    options = parser._option_string_actions  # the only way to change an option that a signature made
    for letter in command.short:
        action = options[f"--{letter}"]
        action.option_strings = [f"-{letter}", *action.option_strings]
        options[f"-{letter}"] = action
    for name, value in command.bare:
        action = options[f"--{name}"]
        action.nargs, action.const = "?", value


def _load(command: Command) -> Callable[..., Any]:
    module, name = command.function.split(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
