"""What the README shows runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lwfm.cli import COMMANDS, build_parser

README = (Path(__file__).parent.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMAND_LINES = re.findall(r"^lwfm (\w+) (.*?)(?:  +#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: re.findall(r"lwfm\.\w+", code)[0])
def test_python_examples_run(code: str) -> None:
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own text


@pytest.mark.parametrize(("command", "options"), COMMAND_LINES, ids=[name for name, _ in COMMAND_LINES])
def test_command_lines_parse(command: str, options: str) -> None:
    assert command in COMMANDS
    build_parser(only=command).parse_args([command, *(word.strip("'") for word in _split(options))])


def _split(options: str) -> list[str]:
    return re.findall(r"'[^']*'|\S+", options)


def test_examples_were_found() -> None:
    assert len(PYTHON) == 2
    assert {name for name, _ in COMMAND_LINES} == {"train", "evaluate", "match"}
