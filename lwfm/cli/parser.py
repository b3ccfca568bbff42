"""The parser of a command's options, built from the signature and docstring of its function."""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from lwfm.cli.commands import COMMANDS
from lwfm.cli.help import Argument
from lwfm.presets import preset_path

if TYPE_CHECKING:
    from lwfm.cli.commands import Command
    from lwfm.cli.help import Groups

_HIDDEN = {0xDC00 + byte: 0x10FF00 + byte for byte in range(0x80, 0x100)}
"""Private code points for bytes of file names that are not UTF-8: YAML refuses those that Python has."""
_SHOWN = {hidden: shown for shown, hidden in _HIDDEN.items()}
CONFIG_HELP = "YAML file that sets any of the options; those of the command line override it."
PRESET_HELP = {
    "pretrain": "Configuration that the package brings, by name: lwfm presets lists them.",
    "train": "Configuration that the package brings, by name: lwfm presets lists them.",
    "evaluate": "Network (model) of a configuration that the package brings: lwfm presets lists them.",
}


def parse_options(name: str, words: list[str]) -> dict[str, Any]:
    """Parse the words after a command into the arguments of its function."""
    parser = build_parser(name)
    values = parser.parse_args([word.translate(_HIDDEN) for word in join_configurations(name, words)])
    options: dict[str, Any] = parser.instantiate(values).as_dict()
    for configuration in ("config", "preset"):
        options.pop(configuration, None)
    expanded: dict[str, Any] = _restore_paths(options)
    return expanded


def _restore_paths(value: Any) -> Any:
    """Replace a leading ``~/`` and hidden bytes in paths.

    No shell expands ``~/`` in ``--out=~/run``, in quotes and in YAML.

    Examples
    --------
    >>> _restore_paths(["~/x", "~y", 3]) == [str(Path.home() / "x"), "~y", 3]
    True
    """
    if isinstance(value, (str, Path)):
        text = str(value).translate(_SHOWN)
        return type(value)(Path(text).expanduser() if text.startswith("~/") else text)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_restore_paths, value))
    if isinstance(value, dict):
        return {name: _restore_paths(each) for name, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        changed = {each.name: _restore_paths(getattr(value, each.name)) for each in fields(value)}
        return replace(value, **changed)
    return value


def build_parser(name: str) -> ArgumentParser:
    """Build the parser of a command from the signature and the docstring of its function."""
    command = COMMANDS[name]
    parser = ArgumentParser(prog=f"lwfm {name}", description=command.summary)
    if command.named_only:
        parser.add_argument("--config", action="config", help=CONFIG_HELP)
        parser.add_argument("--preset", type=str, help=PRESET_HELP[name])
    last = command.last_argument
    skipped: set[str | int] = {last.name} if last else set()
    parser.add_function_arguments(command.load(), as_positional=not command.named_only, skip=skipped)
    if last:
        parser._action_groups[-1].add_argument(last.name, nargs=last.nargs, type=last.type, help=last.help)
    _relax(parser, command)
    return parser


def join_configurations(name: str, words: list[str]) -> list[str]:
    """Turn ``--preset`` into ``--config``, and move both before the options, which override them."""
    if not COMMANDS[name].named_only:
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


def describe_arguments(name: str) -> Groups:
    """Return the arguments of a command as its parser would show them; see :mod:`lwfm.cli.help`."""
    described: Groups = {}

    class Recorder(DefaultHelpFormatter):
        """Keeps what it is told to format."""

        def start_section(self, heading: str | None) -> None:
            self.title = heading or ""
            super().start_section(heading)

        def add_argument(self, action: argparse.Action) -> None:
            if action.help != argparse.SUPPRESS:
                invocation = self._format_action_invocation(action)
                if not action.option_strings:
                    invocation = self._format_args(action, self._get_default_metavar_for_positional(action))
                text = self._expand_help(action).replace("<class 'Path'>", "Path")
                text = re.sub(r"type: Literal\[[^]]*\], ", "", text)  # the invocation lists the choices
                described.setdefault(self.title, []).append(
                    Argument(list(action.option_strings), invocation, action.required, text)
                )
            super().add_argument(action)

    parser = build_parser(name)
    parser.formatter_class = Recorder
    parser.format_help()
    return described
