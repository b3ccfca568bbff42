"""The help of every command, and a check of its options, without loading what its function needs.

The signatures that define the options use types of modules that import torch, which takes seconds. So the
arguments of each command are kept in ``help.json``, written by ``python tools/update_help.py``; a test
compares them with the parsers.
"""

from __future__ import annotations

import argparse
import json
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from lwfm.cli.commands import COMMANDS
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

ARGUMENTS = Path(__file__).with_name("help.json")


class Argument(NamedTuple):
    """An argument as the help shows it: its option strings, of which a positional one has none."""

    names: list[str]
    invocation: str
    required: bool
    help: str


Groups: TypeAlias = dict[str, list[Argument]]
"""The arguments of a command, by the title of their group."""


def read_arguments(name: str) -> Groups:
    """Read the arguments of a command."""
    described: dict[str, Any] = json.loads(ARGUMENTS.read_text(encoding="utf-8"))["commands"]
    return {
        title: [Argument(**argument) for argument in arguments]
        for title, arguments in described[name].items()
    }


def help_parser(name: str) -> argparse.ArgumentParser:
    """Build a parser that prints the help of a command, as wide as the terminal.

    Examples
    --------
    >>> print(help_parser("compare").format_usage().rstrip())
    usage: lwfm compare [options] first second
    """
    groups = read_arguments(name)
    parser = argparse.ArgumentParser(
        prog=f"lwfm {name}", usage=usage(name, groups), description=COMMANDS[name].summary, add_help=False
    )
    for title, arguments in groups.items():
        group = parser.add_argument_group(title)
        for argument in arguments:
            text = argument.help.replace("%", "%%")
            group.add_argument("argument", metavar=argument.invocation, help=text)
    return parser


def usage(name: str, groups: Groups) -> str:
    """Return the usage of a command: options that are required, then positional arguments.

    Examples
    --------
    >>> usage("train", read_arguments("train"))
    'lwfm train [options] --out OUT'
    """
    required = [each for each in _all(groups) if each.required or not each.names]
    ordered = sorted(required, key=lambda argument: not argument.names)
    return " ".join(["lwfm", name, "[options]", *(argument.invocation for argument in ordered)])


def check_options(name: str, words: list[str]) -> None:
    """Refuse options that the command does not have, and the absence of those that it requires.

    Parameters
    ----------
    name : str
        A command.
    words : list of str
        What follows it.

    Raises
    ------
    UserError
        Naming the option, and the nearest one that exists.
    """
    groups = read_arguments(name)
    known = {option for argument in _all(groups) for option in argument.names}
    given = [word.partition("=")[0] for word in takewhile(lambda word: word != "--", words)]
    for option in given:
        if option.startswith("--") and not _is_covered(option.removesuffix("+"), known):
            near = get_close_matches(option, known, n=1)
            did_you_mean = f"; did you mean {near[0]}?" if near else ""
            raise UserError(f"lwfm {name} has no option {option}{did_you_mean}\n{_advice(name, groups)}")
    if {"--config", "--print_config"} & set(given):
        return
    required = [argument for argument in _all(groups) if argument.required]
    missing = [each.names[0] for each in required if each.names and not set(each.names) & set(given)]
    if not words:
        missing += [each.invocation for each in required if not each.names]
    if missing:
        raise UserError(f"lwfm {name} needs {', '.join(missing)}\n{_advice(name, groups)}")


def _is_covered(option: str, known: set[str]) -> bool:
    """Return whether an option exists, or is a key of one that holds a mapping (--heads.NAME)."""
    group, _, last = option.rpartition(".")
    keys = {each.rpartition(".")[2] for each in known if each.startswith(f"{group}.")} - {"help"}
    return option in known or (group in known and (last == "help" or not keys))


def _advice(name: str, groups: Groups) -> str:
    return f"usage: {usage(name, groups)}\nlwfm {name} --help explains every option."


def _all(groups: Groups) -> Iterator[Argument]:
    for arguments in groups.values():
        yield from arguments
