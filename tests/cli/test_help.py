"""The help and its answers to mistyped options: those of the parsers, and without torch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from lwfm.cli import COMMANDS
from lwfm.cli.help import ARGUMENTS, check_options, help_parser, read_arguments
from lwfm.cli.parser import build_parser, describe_arguments
from lwfm.errors import UserError

WRITTEN_WITH = json.loads(ARGUMENTS.read_text(encoding="utf-8"))["jsonargparse"]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_help_is_that_of_the_parser(command: str) -> None:
    compared = tuple if version("jsonargparse") == WRITTEN_WITH else _without_types
    stored, expected = (
        {title: [compared(argument) for argument in group] for title, group in groups.items()}
        for groups in (read_arguments(command), describe_arguments(command))
    )
    assert stored == expected, "after a change of a signature or docstring: python tools/update_help.py"


def _without_types(argument: tuple[object, ...]) -> tuple[object, ...]:
    """Leave out what other versions of jsonargparse word otherwise."""
    return tuple(re.sub(r" \([^)]*\)$", "", each) if isinstance(each, str) else each for each in argument)


@pytest.mark.parametrize(
    "arguments",
    [[], ["--help"], ["--version"], ["train", "--help"], ["trian"], ["train", "--epoch", "3"], ["train"],
     ["classify"], ["bench"], ["presets", "paper", "--hlep"]],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)  # fmt: skip
def test_help_and_refusals_load_no_torch(arguments: list[str]) -> None:
    code = """if True:
        import sys
        from lwfm.cli import main
        try:
            main(sys.argv[1:])
        finally:
            slow = {"torch", "torchvision", "lightning", "timm", "jsonargparse", "numpy"} & set(sys.modules)
            print("slow:", sorted(slow))
    """
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stdout.endswith("slow: []\n"), done.stdout + done.stderr


@pytest.mark.parametrize("columns", [60, 100])
def test_the_help_is_as_wide_as_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = help_parser("evaluate").format_help().splitlines()
    text = [line for line in lines if line.startswith(" " * 24)]
    assert columns - 25 < max(map(len, text)) < columns


@pytest.mark.parametrize(
    "words",
    [
        ["--out", "x", "--model.layers", "[7]", "--model.layers+", "8", "--data=emoji"],
        ["--config", "with-out.yaml"],
        ["--out=x", "--model", "{layers: [7]}", "--optim.help"],
    ],
    ids=["options", "config", "groups"],
)
def test_options_that_exist_pass(words: list[str]) -> None:
    check_options("train", words)


def test_a_key_of_a_mapping_passes() -> None:
    check_options("evaluate", ["--heads.mine", "{top_k: 3}", "--", "--nothing"])


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("train", ["--epoch", "5"], "no option --epoch; did you mean --epochs?"),
        ("train", ["--out", "x", "--model.layer=3"], "did you mean --model.layers?"),
        ("train", ["--epochs", "5"], "needs --out"),
        ("classify", [], r"needs support, queries \[queries ...\]"),
    ],
    ids=["option", "option-of-a-group", "required-option", "arguments"],
)
def test_mistakes_are_named(command: str, words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.sub(r"([?])", r"\\\1", message)):
        check_options(command, words)


def test_every_option_of_the_parser_passes_the_check() -> None:
    for command in COMMANDS:
        words = [f"{name}=1" for name in build_parser(command)._option_string_actions if name[:2] == "--"]
        check_options(command, words)
