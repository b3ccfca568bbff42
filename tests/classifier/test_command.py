"""`lwfm classify`: answers, files, error messages."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from lwfm import FewShotClassifier
from lwfm.classifier.command import explanation_title
from lwfm.classifier.decision import Decision
from lwfm.cli import main
from lwfm.model import LWFM, ModelConfig, save_model

if TYPE_CHECKING:
    from torch import Tensor


class Place(NamedTuple):
    """A user's folder: examples of three classes, images to classify, a network."""

    examples: Path
    unsorted: Path
    model: Path


@pytest.fixture
def place(tiny_images: Path, tmp_path: Path) -> Place:
    for label in ("class-0", "class-1", "class-2"):
        (tmp_path / "examples" / label).mkdir(parents=True)
        (tmp_path / "unsorted").mkdir(exist_ok=True)
        for number in range(6):
            source = tiny_images / "val" / label / f"{number}.png"
            name = f"examples/{label}/{number}.png" if number < 4 else f"unsorted/{label} {number}.png"
            shutil.copy(source, tmp_path / name)
    config = ModelConfig(backbone="conv4", image_size=24, feature_size=1, embedding=False)
    torch.manual_seed(0)
    save_model(LWFM(config), tmp_path / "model.safetensors")
    return Place(tmp_path / "examples", tmp_path / "unsorted", tmp_path / "model.safetensors")


def run(place: Place, *arguments: object) -> int:
    words = ["classify", place.examples, place.unsorted, "--model", place.model, *arguments]
    return main([str(word) for word in words])


def test_the_table_agrees_with_the_classifier(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place) == 0
    lines = capsys.readouterr().out.splitlines()
    examples = sorted(place.examples.glob("*/*.png"))
    classifier = FewShotClassifier(place.model).fit(examples, [path.parent.name for path in examples])
    images = sorted(place.unsorted.iterdir())
    assert len(lines) == 1 + len(images) + 1
    for line, image, decision in zip(lines[1:-1], images, classifier.decide(images), strict=True):
        example = decision.support_name.removeprefix(f"{place.examples}/")
        assert line.startswith(str(image))
        assert line.removeprefix(str(image)).split()[0] == decision.label
        assert f"{100 * decision.probability:.0f} %" in line
        assert line.endswith(example)
    assert "12 examples" in lines[-1]
    assert "conv4 (random weights)" in lines[-1]
    assert "calibrated on 12 held-out examples" in lines[-1]


def test_long_names_fit_into_the_figure() -> None:
    label = "a rather long name of a class, as folders of a shop have them "
    decision = Decision(label * 2, label * 2, 0.51, label, 0.49, 0, f"examples/{label * 2}.jpg")
    figure = Figure(figsize=(9, 4.8))
    title = figure.suptitle(
        explanation_title(Path("IMG_20261125_184523_" * 6 + ".jpg"), decision), fontsize=11, parse_math=False
    )
    FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
    box = title.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


def test_csv_json_and_figures(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--out", tmp_path / "a.csv", "--explain", tmp_path / "figures") == 0
    assert run(place, "--out", tmp_path / "a.json") == 0
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    answers = json.loads((tmp_path / "a.json").read_text())["answers"]
    assert [{name: str(value) for name, value in answer.items()} for answer in answers] == rows
    assert [row["image"] for row in rows] == [str(path) for path in sorted(place.unsorted.iterdir())]
    for row in answers:
        assert row["label"] == row["best"] != row["runner_up"]
        assert 1 >= row["probability"] >= row["runner_up_probability"] >= 0
        assert f"/{row['best']}/" in row["most_similar"]
    figures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert figures[0] == "1-class-0 4.png"
    assert len(figures) == 6
    with Image.open(tmp_path / "figures" / figures[0]) as figure:
        assert min(figure.size) > 500


def test_names_that_are_no_text_are_answered_and_written(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A name of other bytes than UTF-8, one with a line break, one of letters that no font here has."""
    names = [os.fsdecode(b"\xff\xfe.png"), "two\nlines.png", "猫.png"]
    for path, name in zip(sorted(place.unsorted.iterdir()), names, strict=False):
        path.rename(path.with_name(name))
    figures = tmp_path / "figures"
    assert run(place, "--out", tmp_path / "a.json", "--explain", figures) == 0
    printed = capsys.readouterr()
    assert "Glyph" not in printed.err
    assert len(printed.out.splitlines()) == 1 + 6 + 1
    for shown in (r"\udcff\udcfe.png", r"two\nlines.png", "猫.png"):
        assert shown in printed.out
    answers = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["answers"]
    assert {Path(answer["image"]) for answer in answers} == set(place.unsorted.iterdir())
    assert len(list(figures.iterdir())) == 6
    assert run(place, "--out", tmp_path / "a.csv") == 0
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert rf"{place.unsorted}/\udcff\udcfe.png" in [row["image"] for row in csv.DictReader(file)]


def test_figures_of_long_names_have_shorter_ones(place: Place, tmp_path: Path) -> None:
    first = min(place.unsorted.iterdir())
    first.rename(first.with_name("ü" * 125 + ".png"))
    assert run(place, "--explain", tmp_path / "figures") == 0
    assert f"6-{'ü' * 100}.png" in [path.name for path in (tmp_path / "figures").iterdir()]


def test_figures_of_an_earlier_run_are_named(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    for name in ("01-owl.png", "1-class-0 4.png", "notes.png"):
        (folder / name).touch()
    assert run(place, "--explain", folder) == 0
    assert "figures holds 1 figure of an earlier run beside these: 01-owl.png" in capsys.readouterr().err


def test_the_table_is_printed_although_a_figure_fails(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "figures" / "1-class-0 4.png").mkdir(parents=True)
    assert run(place, "--explain", tmp_path / "figures") == 2
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 1 + 6 + 1
    assert "cannot write" in printed.err


def test_the_title_names_the_example_with_its_class() -> None:
    decision = Decision("banana", "banana", 0.8, "kiwi", 0.2, 0, "examples/banana/2.jpg")
    title = explanation_title(Path("unsorted/a.jpg"), decision)
    assert title == "a.jpg: banana\nbanana 80 %, kiwi 20 %; most similar banana/2.jpg"


def test_low_probability_is_answered_unknown(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--unknown_below", 1.0) == 0
    lines = capsys.readouterr().out.splitlines()[1:-1]
    assert all("unknown" in line and "(best)" in line for line in lines)


def test_an_unreadable_image_is_named_or_skipped(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place.unsorted / "class-1 4.png").write_bytes(b"no image")
    out = tmp_path / "a.json"
    assert run(place, "--out", out) == 2
    assert "class-1 4.png" in capsys.readouterr().err
    assert not out.exists()
    assert run(place, "--out", out, "--unreadable", "skip") == 0
    assert "class-1 4.png" in capsys.readouterr().err
    names = [answer["image"] for answer in json.loads(out.read_text())["answers"]]
    assert names == [str(path) for path in sorted(place.unsorted.iterdir()) if path.name != "class-1 4.png"]


def test_a_damaged_example_is_named(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.examples / "class-2" / "3.png").write_bytes(b"no image")
    assert run(place) == 2
    assert "class-2/3.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "unsorted"], "missing"),
        (["examples", "nowhere.jpg"], "nowhere.jpg"),
        (["examples", "examples"], "examples holds no image"),
        (["unsorted", "unsorted"], "class folder"),
        (["examples"], "queries"),
        (["examples", "unsorted", "--out", "answers.xlsx"], "answers.xlsx"),
        (["examples", "unsorted", "--explain", "model.safetensors"], "explain"),
        (["examples", "unsorted", "--unknown_below", "2"], "unknown_below"),
        (["examples", "unsorted", "--model", "resnet19"], "resnet19"),
    ],
    ids=[
        "no-examples", "no-query", "folder-without-images", "no-class-folders", "no-queries", "suffix",
        "explain-is-a-file", "threshold", "model",
    ],
)  # fmt: skip
def test_errors_of_the_user_are_explained(
    place: Place,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place.model.parent)
    before = sorted(place.model.parent.rglob("*"))
    try:
        status = main(["classify", *arguments])
    except SystemExit as stop:
        status = int(stop.code or 0)
    assert status == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert sorted(place.model.parent.rglob("*")) == before


def test_damaged_examples_can_be_left_out(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.examples / "class-2" / "3.png").write_bytes(b"no image")
    assert run(place, "--unreadable", "skip") == 0
    printed = capsys.readouterr()
    assert "class-2/3.png" in printed.err
    assert "11 examples" in printed.out
    for path in (place.examples / "class-2").iterdir():
        path.write_bytes(b"")
    assert run(place, "--unreadable", "skip") == 2
    assert f"class folder {place.examples / 'class-2'} holds no readable image" in capsys.readouterr().err


def test_no_answer_at_all_is_an_error(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in place.unsorted.iterdir():
        path.write_bytes(b"no image")
    assert run(place, "--unreadable", "skip", "--out", tmp_path / "a.csv") == 2
    assert "none of the 6 images to classify can be read" in capsys.readouterr().err
    assert not (tmp_path / "a.csv").exists()


def test_a_class_called_unknown(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    (place.examples / "class-2").rename(place.examples / "unknown")
    assert run(place) == 0
    assert run(place, "--unknown_below", 1.0) == 2
    assert "--unknown_label" in capsys.readouterr().err
    assert run(place, "--unknown_below", 1.0, "--unknown_label", "none") == 0
    lines = capsys.readouterr().out.splitlines()[1:-1]
    assert all(" none " in line for line in lines)


def test_the_share_of_falsely_accepted_images_sets_the_threshold(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place, "--false_acceptance", 0.0) == 0
    strict = capsys.readouterr().out.count("unknown")
    assert run(place, "--false_acceptance", 1.0) == 0
    assert capsys.readouterr().out.count("unknown") < strict
    assert run(place, "--false_acceptance", 0.1, "--unknown_below", 0.5) == 2
    assert "either unknown_below or false_acceptance" in capsys.readouterr().err


def test_transductive_answers_are_an_option(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(place, "--transductive", "true") == 0
    assert "most similar example" in capsys.readouterr().out


def test_the_image_size_of_a_backbone_can_be_given(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def conv4(backbone: str, image_size: int | None = None, *, head: str) -> ModelConfig:
        heads.append(head)
        return ModelConfig(backbone=backbone, image_size=image_size or 84, embedding=False)

    monkeypatch.setattr("lwfm.model.default.pretrained_config", conv4)
    seen: list[int] = []
    heads: list[str] = []
    encode = LWFM.encode

    def watched(self: LWFM, images: Tensor) -> tuple[Tensor, ...]:
        seen.append(images.shape[-1])
        return encode(self, images)

    monkeypatch.setattr(LWFM, "encode", watched)
    assert run(place, "--model", "conv4", "--image_size", 48) == 0
    index = ["index", place.unsorted, "--out", place.model.with_name("i.safetensors")]
    assert main([str(word) for word in [*index, "--model", "conv4", "--image_size", 40]]) == 0
    assert set(seen) == {48, 40}
    assert heads == ["recommended", "published"]
    assert run(place, "--image_size", 48) == 2
    assert "model.safetensors already determines it" in capsys.readouterr().err
