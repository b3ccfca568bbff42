"""The entry point of ``lwfm``: find the command, answer what needs no parser of options, run it."""

from __future__ import annotations

import argparse
import io
import itertools
import os
import sys
import warnings
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING

import lwfm
from lwfm._common.imports import collection_paused
from lwfm.cli.commands import COMMANDS
from lwfm.cli.help import check_options, help_parser
from lwfm.errors import UnsavedResultError, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXTRAS = {
    "usearch": "retrieval",
    "jinja2": "report",
    "sklearn": "report",
    "pytorch_metric_learning": "metric",
    "wfdb": "ecg",
    "neurokit2": "ecg",
    "anndata": "cells",
    "h5py": "cells",
    "pandas": "scada",
    "pyarrow": "scada",
    "pyeit": "eit",
    "scipy": "metric",
    "easyfsl": "adapters",
    "gradio": "app",
    "onnx": "fast",
    "onnxruntime": "fast",
    "onnxscript": "fast",
}
"""Optional packages and the extras that bring them; `train` brings all others."""

EPILOG = """examples:
  lwfm demo
  lwfm train --preset emoji --out runs/emoji
  lwfm evaluate --checkpoint runs/emoji/best.safetensors --queries 5
  lwfm experiment ablation --data '[emoji]'
  lwfm pretrain --preset resnet12-cub-pretrain --root FOLDER --out runs/cub-pretrained
  lwfm data inspect miniImageNet
  lwfm classify examples unsorted --out answers.csv --explain figures
  lwfm app --support examples
  lwfm export runs/emoji/best.safetensors --out model.onnx
  lwfm index images --out index.safetensors
  lwfm search index.safetensors one.jpg -k 10 --show similar.png
  lwfm report result.json
  lwfm match support.jpg query.jpg --checkpoint runs/emoji/best.safetensors --out match.png
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 done, 2 the user's mistake, 130 Ctrl-C.

    Without arguments they are those of the process, which is then taken to run nothing else.
    """
    own_process = arguments is None
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    _escape_what_cannot_be_shown()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return _run(arguments, own_process)
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
        _discard_output()
        return 141


def _escape_what_cannot_be_shown() -> None:
    """Write characters that the terminal or the file of the output cannot hold as escapes, and go on."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _printing() -> Iterator[None]:
    """Flush what the block printed; UserError where that cannot be written, as on a full disk."""
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_output()
        raise UserError(f"cannot print the result: {error.strerror or error}") from error


def _discard_output() -> None:
    """Send what is still to be printed nowhere: else Python complains about it when it ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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


def _run(arguments: list[str], own_process: bool) -> int:
    name, words = split_command(arguments)
    if name not in COMMANDS:
        with _printing():
            main_parser(name).parse_args(words or ["--help"])
        return 0
    if {"-h", "--help"} & set(words):
        with _printing():
            help_parser(name).print_help()
        return 0
    check_options(name, words)
    command = COMMANDS[name]
    with collection_paused(freeze=own_process):
        from lwfm.cli.parser import parse_options  # torch, and more, for the signatures: seconds

        options = parse_options(name, words)
        function = command.load()
    try:
        result = function(**options)
    except UnsavedResultError as error:
        with _printing():
            command.report(error.result)
        raise
    with _printing():
        command.report(result)
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
