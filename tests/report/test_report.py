"""`lwfm report`: the page agrees with the result and works in a browser without a network."""

from __future__ import annotations

import base64
import html
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.evaluation import evaluate
from lwfm.evaluation.results import EvaluationResult, percent
from lwfm.figures.logs import read_log
from lwfm.model import LWFM, ModelConfig, save_model
from lwfm.report.page import render
from tests.helpers.browser import headless_browser, needs_browser, requested
from tests.helpers.miniatures import birds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run: a model, a training log, and the result of evaluating it, report.html included."""
    folder: Path = tmp_path_factory.mktemp("run")
    shutil.copytree(tiny_images, folder / "images")
    for class_folder in (folder / "images/test").iterdir():
        if class_folder.name == "test-3":
            class_folder.rename(class_folder.with_name('<b>"3" & more'))
    save_model(
        LWFM(ModelConfig(backbone="conv4", image_size=24, feature_size=1)), folder / "best.safetensors"
    )
    for start, rows in enumerate(("1,0,2.0,\n2,0,1.5,0.4\n", "2,0,1.4,\n3,0,1.2,0.5\n")):
        logs = folder / f"logs/version_{start}"  # as `lwfm train` leaves them: one for each start
        logs.mkdir(parents=True)
        (logs / "metrics.csv").write_text("step,epoch,train_loss,val_lwfm\n" + rows)
    evaluate(
        checkpoint=folder / "best.safetensors",
        data="folder",
        root=folder / "images",
        way=4,
        shot=[1, 3],
        queries=3,
        episodes=8,
        out=folder / "result.json",
    )
    arguments = ["report", folder / "result.json", "--out", folder / "report.html", "--hardest", 1]
    assert main([str(argument) for argument in arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def result(folder: Path) -> EvaluationResult:
    return EvaluationResult.from_json((folder / "result.json").read_text())


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text()


def test_the_page_agrees_with_the_result(page: str, result: EvaluationResult) -> None:
    for method in result.methods:
        assert f"{100 * method.accuracy:.2f} ± {100 * (method.interval or 0):.2f}" in page
        for name, value in method.class_accuracy.items():
            setting = f'data-setting="4-{method.shot}" data-method="{method.method}"'
            row = f'{setting} data-class="{html.escape(name)}"'
            assert re.search(re.escape(row.replace("&quot;", "&#34;")) + f' data-value="{value}"', page)
    for fact in (result.data["fingerprint"], result.model["sha256"], result.versions["torch"]):
        assert str(fact) in page
    assert page.count('class="episode"') == 2
    assert '<img id="shots"' in page
    assert '<img id="curves"' in page
    assert page.count('alt="confusion matrix"') == 2


def test_numbers_have_no_line_break_and_no_minus_zero(page: str) -> None:
    assert percent(-1e-9, 0.01, "+") == "+0.00 ± 1.00"
    assert "#accuracy td { white-space: nowrap }" in page


def test_a_resumed_run_has_one_curve(folder: Path) -> None:
    columns = read_log(folder / "logs")
    assert columns["train_loss"] == ([1, 2, 3], [2.0, 1.4, 1.2])
    assert columns["val_lwfm"] == ([2, 3], [0.4, 0.5])
    assert read_log(folder / "logs/version_0")["train_loss"].steps == [1, 2]
    with pytest.raises(UserError, match=r"no metrics\.csv"):
        read_log(folder)


@pytest.mark.parametrize(
    "row",
    ["1,2", "1,0.5,0.5,0.5,7,7", "1,1,x,,", "1,1," + "9" * 200_000, "9" * 400 + ",1,1"],
    ids=["short", "long", "text", "huge", "step"],
)
def test_a_damaged_log_is_named(tmp_path: Path, row: str) -> None:
    (tmp_path / "metrics.csv").write_text(f"step,epoch,train_loss,lr,x\n{row}\n{row}\n")
    if row == "1,2":
        assert read_log(tmp_path) == {}
        return
    with pytest.raises(UserError, match=r"cannot read the training log .*metrics\.csv"):
        read_log(tmp_path)


def test_the_page_is_self_contained(page: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) > 20
    assert all(source.startswith("data:") for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*|http-equiv", "", page)
    assert "<b>" not in page  # the name of a class is no markup


def test_the_hardest_episodes_come_first(page: str, result: EvaluationResult) -> None:
    shown = re.findall(r"Episode (\d+), 4-way (\d)-shot: ([\d.]+) % right", page)
    for shot in (1, 3):
        accuracies = result.of("lwfm", shot).episode_accuracy
        of_shot = [(int(number), float(value)) for number, k, value in shown if int(k) == shot]
        assert [value for _, value in of_shot] == [round(100 * a, 1) for a in sorted(accuracies)[:1]]
        assert all(value == round(100 * accuracies[number - 1], 1) for number, value in of_shot)


def test_wrong_answers_are_those_of_the_evaluation(page: str, result: EvaluationResult) -> None:
    for episode in re.findall(r'<details class="episode".*?</details>', page, re.DOTALL):
        right = float(re.findall(r"([\d.]+) % right", episode)[0])
        assert episode.count("→") == round(12 * (1 - right / 100))  # 4 classes of 3 queries


@pytest.mark.parametrize("change", ["images", "model", "folder"])
def test_missing_data_are_named_and_the_rest_is_shown(
    folder: Path, result: EvaluationResult, change: str
) -> None:
    if change == "images":
        result = replace(result, data={**result.data, "fingerprint": "another"})
    elif change == "model":
        result = replace(result, model={**result.model, "sha256": "another"})
    else:
        result = replace(result, data={**result.data, "root": "nowhere", "name": "nowhere"})
    with pytest.warns(UserWarning, match="hardest episodes"):
        text = render(result, hardest=1)
    assert "cannot be drawn again" in text
    assert 'id="accuracy"' in text
    if change == "folder":
        assert 'class="episode"' in render(result, root=folder / "images", hardest=1)


def test_a_network_that_was_never_trained_has_a_report_too(tmp_path: Path) -> None:
    model = ModelConfig(backbone="conv4", image_size=32, feature_size=1)
    result = evaluate(model=model, way=3, queries=2, episodes=2)
    text = render(EvaluationResult.from_json(result.to_json()), hardest=1)
    assert 'class="episode"' in text
    assert "Training" not in text
    assert '<img id="shots"' not in text  # one number of shots makes no curve


def test_birds_are_opened_as_they_were_evaluated(tmp_path: Path) -> None:
    """Their class split is not decided by the files, and the fingerprint sees the crop."""
    birds(tmp_path)
    model = ModelConfig(backbone="conv4", image_size=24, feature_size=1)
    options: dict[str, Any] = {"class_split": "frn", "crop": True}
    result = evaluate(
        model=model, data="cub", root=tmp_path, way=2, queries=1, episodes=2, accelerator="cpu", **options
    )
    assert options.items() <= result.options.items()
    text = render(EvaluationResult.from_json(result.to_json()), hardest=1)
    assert 'class="episode"' in text


def test_several_ways_and_heads_have_a_report(folder: Path) -> None:
    result = evaluate(
        checkpoint=folder / "best.safetensors",
        data="folder",
        root=folder / "images",
        way=[3, 5],
        shot=[1, 2],
        queries=2,
        episodes=3,
        heads={"all pairs": {"top_k": None}},
    )
    text = render(EvaluationResult.from_json(result.to_json()), hardest=1)
    for setting in ("3-1", "3-2", "5-1", "5-2"):
        assert f'<option value="{setting}">' in text
        assert f'class="episode" data-setting="{setting}"' in text
        assert f'data-setting="{setting}" data-method="all pairs"' in text


@pytest.mark.parametrize(
    ("content", "message"), [(None, "missing.json"), ("{}", "not an evaluation result"), ("[", "result.json")]
)
def test_other_files_are_refused(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ("missing.json" if content is None else "result.json")
    if content is not None:
        path.write_text(content)
    assert main(["report", str(path)]) == 2
    assert message in capsys.readouterr().err
    assert not path.with_suffix(".html").exists()


def test_a_page_is_written_as_html_only(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder / "result.json"), "--out", str(folder / "page.pdf")]) == 2
    assert "--out must end in .html" in capsys.readouterr().err
    assert not (folder / "page.pdf").exists()


def test_an_image_that_became_unreadable_is_named(folder: Path, tmp_path: Path) -> None:
    images = shutil.copytree(folder / "images", tmp_path / "images")
    (images / "test" / "test-0" / "1.png").write_bytes(b"no image")
    result = EvaluationResult.from_json((folder / "result.json").read_text())
    with pytest.warns(UserWarning, match="hardest episodes") as warned:
        render(result, root=images, hardest=1)
    (message,) = (str(warning.message) for warning in warned)
    assert "test-0/1.png" in message
    assert "--unreadable" not in message


def test_a_moved_model_is_named_by_an_option(folder: Path) -> None:
    result = EvaluationResult.from_json((folder / "result.json").read_text())
    moved = replace(result, model={**result.model, "checkpoint": "gone.safetensors"})
    with pytest.warns(UserWarning, match=r"no model gone\.safetensors: name its .* by --checkpoint FILE"):
        assert '<img id="curves"' not in render(moved, hardest=1)
    text = render(moved, hardest=1, checkpoint=folder / "best.safetensors")
    assert 'class="episode"' in text
    assert '<img id="curves"' in text


def test_a_missing_folder_is_named_with_the_option(folder: Path) -> None:
    result = EvaluationResult.from_json((folder / "result.json").read_text())
    with pytest.warns(UserWarning, match="there is no folder gone: name its present place by --root FOLDER"):
        render(replace(result, data={**result.data, "root": "gone"}), hardest=1)


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Any]:
    """Headless Chromium with the report open."""
    with headless_browser(size=(1100, 3200)) as driver:
        driver.get((folder / "report.html").as_uri())
        yield driver


def visible_classes(browser: Any) -> list[str]:
    rows = browser.find_elements("css selector", "#classes tbody tr")
    return [row.get_attribute("data-class") for row in rows if row.is_displayed()]


@needs_browser
def test_the_page_works_in_a_browser(browser: Any, result: EvaluationResult) -> None:
    from selenium.webdriver.support.ui import Select

    def choose(name: str, value: str) -> None:
        Select(browser.find_element("id", name)).select_by_value(value)

    accuracy = result.of("lwfm", 1).class_accuracy
    assert sorted(visible_classes(browser)) == sorted(accuracy)
    choose("order", "worst")
    values = [accuracy[name] for name in visible_classes(browser)]
    assert values == sorted(accuracy.values())
    choose("setting", "4-3")
    choose("method", "nearest_class_mean")
    choose("order", "best")
    expected = result.of("nearest_class_mean", 3).class_accuracy
    assert [expected[name] for name in visible_classes(browser)] == sorted(expected.values(), reverse=True)
    shown = browser.find_elements("css selector", ".episode")
    assert [e.get_attribute("data-setting") for e in shown if e.is_displayed()] == ["4-3"]
    browser.find_element("id", "class").send_keys("TEST-5")
    assert visible_classes(browser) == ["test-5"]
    assert browser.find_element("id", "shown").text == "1 class"


@needs_browser
def test_tables_fit_a_narrow_window(browser: Any) -> None:
    browser.set_window_size(390, 3200)
    width = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    browser.set_window_size(1100, 3200)
    assert width <= 0


@needs_browser
def test_every_image_is_drawn_and_no_request_leaves_the_page(browser: Any) -> None:
    broken = browser.execute_script(
        "return Array.from(document.images).filter(i => !(i.complete && i.naturalWidth > 0)).length"
    )
    assert broken == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    requests = requested(browser)
    assert [url for url in requests if not url.startswith("file:")] == []
    assert requests
    image = base64.b64decode(browser.get_screenshot_as_base64())
    assert len(image) > 20_000
