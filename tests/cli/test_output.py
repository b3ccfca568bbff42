"""What the command line prints where a terminal, a file or a disk cannot take it all."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from lwfm.cli import main
from lwfm.cli.commands import COMMANDS, Command
from lwfm.cli.parser import parse_options
from lwfm.errors import UserError, keeping

FULL = Path("/dev/full")


def answer(text: str, *, fail: bool = False) -> str:
    """Return a text, after failing to write it where ``fail`` says so.

    Parameters
    ----------
    text : str
        What is returned.
    fail : bool
        Whether writing fails.
    """
    with keeping(text):
        if fail:
            raise UserError("cannot write answers.csv")
    return text


@pytest.fixture(autouse=True)
def _answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a command of :func:`answer`, with the options of another one."""
    monkeypatch.setitem(COMMANDS, "info", Command("tests.cli.test_output:answer", "repeat a text"))
    monkeypatch.setattr(Command, "load", lambda _: answer)
    # lwfm.cli.main is the function; the module of that name is found only like this.
    monkeypatch.setattr(import_module("lwfm.cli.main"), "check_options", lambda *_: None)


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"5 \\xb1 1, \\u732b, \\udcff"),
        ("cp1252", b"5 \xb1 1, \\u732b, \\udcff"),
        ("utf-8", "5 ± 1, 猫, \\udcff".encode()),
    ],
)
def test_characters_that_cannot_be_shown_are_escaped(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: bytes
) -> None:
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding))
    assert main(["info", "5 ± 1, 猫, \udcff"]) == 0
    assert out.getvalue().split() == shown.split()
    assert main(["info", "5 ± 1, 猫, \udcff", "--fail", "true"]) == 2
    assert out.getvalue().split() == shown.split() * 2


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["info", "text"], ["info", "--help"], ["--help"]], ids=" ".join)
def test_a_full_disk_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    with FULL.open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        assert main(words) == 2
    assert capsys.readouterr().err == "lwfm: error: cannot print the result: No space left on device\n"


def test_a_result_is_printed_although_its_file_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "result", "--fail", "true"]) == 2
    assert capsys.readouterr() == ("result\n", "lwfm: error: cannot write answers.csv\n")


@dataclass(frozen=True)
class Nested:
    """Options in a group.

    Attributes
    ----------
    weights : str
        A file.
    """

    weights: str = "none"


def with_paths(out: Path, queries: list[Path], nested: Nested) -> None:
    """Take paths of every kind.

    Parameters
    ----------
    out : Path
        A path.
    queries : list of Path
        Some.
    nested : Nested
        A group.
    """


def test_paths_are_those_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Command, "load", lambda _: with_paths)
    words = ["~/run", "['~/a', b/~/c, \udcff]", "--nested.weights=~/best.safetensors"]
    home = Path.home()
    assert parse_options("info", words) == {
        "out": home / "run",
        "queries": [home / "a", Path("b/~/c"), Path("\udcff")],
        "nested": Nested(str(home / "best.safetensors")),
    }
