"""README.md: its examples print what it shows, its links lead to files; test_docs.py parses its commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lwfm.cli import main
from lwfm.data import open_image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)\n# ([^\n]*\n)```", README, re.DOTALL)  # code, and what it prints
CLASSIFY = re.findall(r"`lwfm (classify [^`]*)`", README)


@pytest.mark.parametrize(
    ("code", "printed"), EXAMPLES, ids=["operator", "solver", "classifier"][: len(EXAMPLES)]
)
def test_examples_print_what_is_shown(code: str, printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own text
    assert capsys.readouterr().out == printed


@pytest.fixture
def place(tiny_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `examples/CLASS/NUMBER.jpg` and `unsorted/CLASS.jpg`, as working directory."""
    for source in sorted((tiny_images / "val").glob("*/*.png")):
        label, number = source.parent.name, source.stem
        target = tmp_path / (f"unsorted/{label}.jpg" if number == "5" else f"examples/{label}/{number}.jpg")
        target.parent.mkdir(parents=True, exist_ok=True)
        open_image(source).save(target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_that_classifies_runs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (command,) = CLASSIFY
    assert main(command.split()) == 0, capsys.readouterr().err
    assert {"answers.csv", "figures"} <= {path.name for path in place.iterdir()}
    assert len(list((place / "figures").iterdir())) == len(list((place / "unsorted").iterdir()))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", README))))
def test_links_lead_to_files(target: str) -> None:
    assert target.startswith("https://arxiv.org/") or (ROOT / target).is_file()


def test_it_is_short_and_nothing_was_overlooked() -> None:
    assert len(README.splitlines()) <= 125
    assert len(EXAMPLES) == README.count("```python") == 3
