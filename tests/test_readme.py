"""What the README shows runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lwfm.cli import COMMANDS, main
from lwfm.cli.parser import build_parser, join_configurations
from lwfm.data import open_image

README = (Path(__file__).parent.parent / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMAND_LINES = re.findall(r"^lwfm (\w+) (.*?)(?:  +#.*)?$", README, re.MULTILINE)


@pytest.fixture
def place(tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder that README.md speaks of."""
    for source in sorted((tiny_images / "val").glob("*/*.png")):
        for_query = source.stem == "5"
        name = (
            f"unsorted/{source.parent.name}.jpg"
            if for_query
            else f"examples/{source.parent.name}/{source.stem}.jpg"
        )
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        open_image(source).save(tmp_path / name)
    for label, letter in enumerate("ab"):
        (tmp_path / f"unsorted/class-{label}.jpg").rename(tmp_path / f"unsorted/{letter}.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("code", PYTHON, ids=lambda code: re.findall(r"import (\w+)\n\n", code)[0])
def test_python_examples_run(code: str, place: Path) -> None:
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own text


def test_the_commands_that_classify_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [options for command, options in COMMAND_LINES if command == "classify"]
    assert len(commands) == 2
    for options in commands:
        assert main(["classify", *_split(options)]) == 0, capsys.readouterr().err
    assert {"answers.csv", "answers.json", "figures"} <= {path.name for path in place.iterdir()}
    assert len(list((place / "figures").iterdir())) == len(list((place / "unsorted").iterdir()))


@pytest.mark.parametrize(("command", "options"), COMMAND_LINES, ids=[name for name, _ in COMMAND_LINES])
def test_command_lines_parse(command: str, options: str) -> None:
    assert command in COMMANDS
    words = [word.strip("'") for word in _split(options)]
    build_parser(command).parse_args(join_configurations(command, words))


def _split(options: str) -> list[str]:
    return re.findall(r"'[^']*'|\S+", options)


def test_examples_were_found() -> None:
    assert len(PYTHON) == 3
    assert {name for name, _ in COMMAND_LINES} >= {"train", "evaluate", "match", "classify"}
