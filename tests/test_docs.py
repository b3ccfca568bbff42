"""The documentation's notebooks and Python examples run as they stand, its command lines parse."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from lwfm.cli.main import split_command
from lwfm.cli.parser import build_parser, join_configurations

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs").glob("*.ipynb"))
EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in sorted((ROOT / "docs").rglob("*.md"))
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


def command_lines(text: str) -> list[list[str]]:
    """Return the words of each command in the shell blocks of a page; quotes and backslashes join lines."""
    found: list[list[str]] = []
    for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
        pending = ""
        for line in block.splitlines():
            if line.endswith("\\"):
                pending += line.removesuffix("\\")
                continue
            pending += f"{line}\n"
            try:
                words = shlex.split(pending, comments=True)
            except ValueError:  # within quotes
                continue
            if words:
                found.append(words)
                pending = ""
    return [words for words in found if words[0] == "lwfm"]


COMMANDS = [
    pytest.param(words[1:], id=f"{page.stem}-{number}-{words[1]}")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    if page.stem != "ablation"  # its commands are generated
    for number, words in enumerate(command_lines(page.read_text()))
]


def read(path: Path) -> nbformat.NotebookNode:
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    notebook = read(path)
    shown = [output.output_type for output in outputs(notebook)]
    place = {"metadata": {"path": tmp_path}}
    NotebookClient(notebook, timeout=240, coalesce_streams=True, resources=place).execute()
    now = [output.output_type for output in outputs(notebook) if output.get("name") != "stderr"]
    assert now == shown  # what readers see is what the cells give


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_outputs_are_presentable(path: Path) -> None:
    stored = outputs(read(path))
    assert any("image/png" in output.get("data", {}) for output in stored)
    assert not [
        output for output in stored if output.output_type == "error" or output.get("name") == "stderr"
    ]


@pytest.mark.parametrize("code", EXAMPLES)
def test_python_examples_run(code: str) -> None:
    exec(compile(code, "docs", "exec"), {})  # noqa: S102 - our own text


@pytest.mark.parametrize("words", COMMANDS)
def test_command_lines_parse(words: list[str]) -> None:
    name, options = split_command(words)
    build_parser(name).parse_args(join_configurations(name, options))


def test_notebooks_examples_and_commands_were_found() -> None:
    assert NOTEBOOKS
    assert EXAMPLES
    assert COMMANDS
