"""The command line ``lwfm``; :data:`COMMANDS` lists what it does.

Each command is a typed Python function; its options, their types and defaults, and the help text come
from its signature and docstring.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import warnings
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lwfm
from lwfm.errors import UserError
from lwfm.presets import preset_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jsonargparse import ArgumentParser

    from lwfm.evaluation.results import EvaluationResult
    from lwfm.training import TrainingSummary


class Positional(NamedTuple):
    """A positional argument that takes any number of values: nargs is ? or +, as in argparse."""

    name: str
    nargs: str
    type: Callable[[str], Any]
    help: str


class Command(NamedTuple):
    """A command: the function that does it, its line of help, and how its result is reported."""

    function: str
    summary: str
    report: Callable[[Any], None] = print
    last_argument: Positional | None = None
    """The last positional argument, where its number of values is not one."""
    short_options: tuple[str, ...] = ()
    """Parameters of one letter that are also options with one dash."""
    optional_values: tuple[tuple[str, str], ...] = ()
    """Options whose value may be omitted, and the value that is taken then."""


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
        "train and evaluate every row of a table; resumes",
    ),
    "compare": Command(
        "lwfm.evaluation.comparison:compare",
        "test whether two results on the same episodes differ",
    ),
    "data": Command(
        "lwfm.data.inspection:inspect_data",
        "show which data set a folder holds and what is wrong with it",
    ),
    "classify": Command(
        "lwfm.classifier.command:classify",
        "name the class of your own images from a few examples of each class",
        last_argument=Positional(
            "queries", "+", Path, "Images to classify, and folders of such images. (required)"
        ),
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
        short_options=("k",),
        optional_values=(("show", "similar.png"),),
    ),
    "report": Command("lwfm.report.page:report", "show a result of evaluate as one HTML page, with images"),
    "match": Command("lwfm.figures.matches:match", "draw how two images match, position by position"),
    "presets": Command(
        "lwfm.cli.presets:presets",
        "list the configurations that the package brings, or print one",
        last_argument=Positional("name", "?", str, "The preset to print; by default all are listed."),
    ),
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

CONFIG_HELP = "YAML file that sets any of the options; those of the command line override it."
PRESET_HELP = {
    "pretrain": "Configuration that the package brings, by name: lwfm presets lists them.",
    "train": "Configuration that the package brings, by name: lwfm presets lists them.",
    "evaluate": "Network (model) of a configuration that the package brings: lwfm presets lists them.",
}

EXTRAS = {"usearch": "retrieval", "jinja2": "report", "sklearn": "report"}
"""Optional packages and the extras that bring them; `train` brings all others."""

EPILOG = """examples:
  lwfm train --preset emoji --out runs/emoji
  lwfm evaluate --checkpoint runs/emoji/best.safetensors --queries 5
  lwfm experiment ablation --data '[emoji]'
  lwfm pretrain --preset resnet12-cub-pretrain --root FOLDER --out runs/cub-pretrained
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
    name, words = split_command(arguments)
    if name not in COMMANDS:
        main_parser(name).parse_args(words or ["--help"])
        return 0
    parser = build_parser(name)
    values = parser.parse_args(join_configurations(name, words))
    options = parser.instantiate(values).as_dict()
    for configuration in ("config", "preset"):
        options.pop(configuration, None)
    command = COMMANDS[name]
    command.report(_load(command)(**options))
    return 0


def split_command(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the name of the command, of one or two words or the first word of several, and what follows.

    Examples
    --------
    >>> split_command(["bench", "matching", "--threads", "2"]), split_command(["bench"]), split_command([])
    (('bench matching', ['--threads', '2']), ('bench', []), ('', []))
    """
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), arguments[:2]))
    for count in range(len(words), 0, -1):
        if (name := " ".join(words[:count])) in COMMANDS:
            return name, arguments[count:]
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    if not words or (words[0] in groups and len(words) == 1):
        return " ".join(words), arguments[len(words) :]
    name = " ".join(words) if words[0] in groups else words[0]
    near = get_close_matches(name, [*COMMANDS, *groups], n=1)
    did_you_mean = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"there is no command {name}{did_you_mean}\nCommands: {', '.join(COMMANDS)}")


def main_parser(group: str = "") -> argparse.ArgumentParser:
    """Build the parser of ``--help`` and ``--version`` before a command, or after the first of two words."""
    listed = {name: command.summary for name, command in COMMANDS.items() if name.startswith(group)}
    width = max(map(len, listed))
    commands = "\n".join(f"  {name:<{width}}  {summary}" for name, summary in listed.items())
    parser = argparse.ArgumentParser(
        prog=f"lwfm {group}".rstrip(),
        usage=f"lwfm {group or '[-h] [--version]'} COMMAND ...",
        description=f"Few-shot image classification by semantic-pixel matching (LWFM-SPM).\n\n"
        f"commands (lwfm COMMAND --help shows the options of one):\n{commands}",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lwfm {lwfm.__version__}")
    return parser


def build_parser(name: str) -> ArgumentParser:
    """Build the parser of a command from the signature and the docstring of its function."""
    from jsonargparse import ArgumentParser

    command = COMMANDS[name]
    parser = ArgumentParser(prog=f"lwfm {name}", description=command.summary)
    if name in _NAMED_OPTIONS:
        parser.add_argument("--config", action="config", help=CONFIG_HELP)
        parser.add_argument("--preset", type=str, help=PRESET_HELP[name])
    last = command.last_argument
    skipped: set[str | int] = {last.name} if last else set()
    parser.add_function_arguments(_load(command), as_positional=name not in _NAMED_OPTIONS, skip=skipped)
    if last:
        parser.add_argument(last.name, nargs=last.nargs, type=last.type, help=last.help)
    _relax(parser, command)
    return parser


def join_configurations(name: str, words: list[str]) -> list[str]:
    """Turn ``--preset`` into ``--config``, and move both before the options, which override them."""
    if name not in _NAMED_OPTIONS:
        return words
    parser = argparse.ArgumentParser(prog=f"lwfm {name}", add_help=False, allow_abbrev=False)
    for option in ("--preset", "--config"):
        parser.add_argument(option, action="append", default=[])
    files, options = parser.parse_known_args(words)
    presets = [_read_preset(name, preset) for preset in files.preset]
    return [*(f"--config={each}" for each in [*presets, *files.config]), *options]


def _read_preset(command: str, name: str) -> str:
    """Return what ``--config`` takes: the file of a preset; for evaluate, its section `model` alone."""
    if command != "evaluate":
        return str(preset_path(name, command))
    import yaml

    options = yaml.safe_load(preset_path(name, "train").read_text(encoding="utf-8"))
    return json.dumps({"model": options["model"]} if "model" in options else {})


def _relax(parser: ArgumentParser, command: Command) -> None:
    """Let options of one letter have one dash, and some options stand without a value."""
    options = parser._option_string_actions  # the only way to change an option that a signature made
    for letter in command.short_options:
        action = options[f"--{letter}"]
        action.option_strings = [f"-{letter}", *action.option_strings]
        options[f"-{letter}"] = action
    for name, value in command.optional_values:
        action = options[f"--{name}"]
        action.nargs, action.const = "?", value


def _load(command: Command) -> Callable[..., Any]:
    module, name = command.function.split(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function
