"""`lwfm app` in a browser: teach, classify, correct, save; sentences for mistakes; nothing from elsewhere."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lwfm import FewShotClassifier
from lwfm.app import Session
from lwfm.app.command import serve
from tests.helpers.browser import headless_browser, needs_browser, requested

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lwfm.model import LWFM

pytestmark = needs_browser

ByClass = dict[str, list[Path]]


class Page:
    """The page of a session as a user operates it."""

    def __init__(self, driver: Any, session: Session, address: str, downloads: Path) -> None:
        self.driver, self.session, self.address, self.downloads = driver, session, address, downloads
        self.open()

    def open(self) -> None:
        self.driver.get(self.address)
        self.wait(lambda: self.all("#new-class textarea, #new-class input"))

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements("css selector", selector)
        return found

    def one(self, selector: str) -> Any:
        return self.wait(lambda: self.all(selector))[0]

    def texts(self, selector: str) -> list[str]:
        script = "return Array.from(document.querySelectorAll(arguments[0])).map(e => e.textContent.trim())"
        found: list[str] = self.driver.execute_script(script, selector)
        return found

    def wait(self, condition: Callable[[], Any]) -> Any:
        limit = time.monotonic() + 30
        while not (found := condition()):
            assert time.monotonic() < limit, f"waited in vain; the page shows {self.texts('.toast-body')}"
            time.sleep(0.05)
        return found

    def add_class(self, name: str) -> None:
        self.one("#new-class textarea, #new-class input").send_keys(name)
        self.one("#add-class").click()

    def drop(self, selector: str, paths: list[Path]) -> None:
        self.one(f"{selector} input[type=file]").send_keys("\n".join(str(path) for path in paths))

    def teach(self, name: str, paths: list[Path]) -> None:
        self.add_class(name)
        self.wait(lambda: self.texts(".lwfm-name")[-1:] == [name])
        number = self.texts(".lwfm-name").index(name)
        fields = self.all(".lwfm-card .lwfm-drop input[type=file]")
        fields[number].send_keys("\n".join(str(path) for path in paths))
        self.wait(lambda: f"Learned {len(paths)} examples of {name}." in self.texts("#status")[0])
        self.wait(lambda: len(self.all(".lwfm-card .thumbnail-lg")) == self.session.count())

    def captions(self) -> list[str]:
        return self.texts("#answers .caption-label")

    def sentence(self) -> str:
        """Return the message that appeared, and close it."""
        text = str(self.wait(lambda: self.texts(".toast-message-text"))[0])
        self.one(".toast-close").click()
        self.wait(lambda: not self.all(".toast-close"))
        return text


@pytest.fixture(scope="module")
def page(network: LWFM, by_class: ByClass) -> Iterator[Page]:
    """The page with two examples of five classes and twenty images."""
    pytest.importorskip("gradio")
    with tempfile.TemporaryDirectory() as name:
        folder, downloads = Path(name, "session"), Path(name, "downloads")
        folder.mkdir()
        session = Session(FewShotClassifier(network, progress=False), folder)
        with (
            serve(session) as address,
            headless_browser(size=(1300, 1100), downloads=downloads) as driver,
        ):
            page = Page(driver, session, address, downloads)
            for label, paths in by_class.items():
                if label < "class-2":
                    page.teach(label, paths[:2])
                else:  # as in another tab
                    session.add_examples(label, paths[:2])
            page.open()
            page.drop("#images", [path for paths in by_class.values() for path in paths[2:]])
            page.wait(lambda: len(page.captions()) == 20)
            yield page


def expected_captions(session: Session) -> list[str]:
    return [f"{d.label} {100 * d.probability:.0f} %" for d in session.decisions if d]


def test_twenty_images_are_classified(page: Page, by_class: ByClass) -> None:
    shots = [(path, name) for name, paths in by_class.items() for path in paths[:2]]
    paths, labels = zip(*shots, strict=True)
    classifier = FewShotClassifier(page.session.network, progress=False).fit(list(paths), labels)
    images = [path for paths in by_class.values() for path in paths[2:]]
    answers = classifier.decide(images)
    assert page.captions() == [f"{each.label} {100 * each.probability:.0f} %" for each in answers]


def correct(page: Page, image: int, given: str, right: str) -> None:
    page.all("#answers .thumbnail-lg")[image].click()
    page.wait(lambda: given in "".join(page.texts("#heading h3")))
    page.wait(lambda: page.one("#matches img").get_attribute("naturalWidth") != "0")  # it is fetched
    field = page.one("#right-class input")
    field.clear()
    field.send_keys(right + "\n")
    page.one("#learn").click()
    page.wait(lambda: page.captions()[image] == f"✓ {right}")


def test_two_answers_are_corrected_and_learned(page: Page) -> None:
    right = [f"class-{number // 4}" for number in range(20)]
    given = [str(decision and decision.label) for decision in page.session.decisions]
    wrong = [number for number in range(20) if given[number] != right[number]][:2]
    for number in wrong:
        correct(page, number, given[number], right[number])
    assert [page.session.label_of(number) for number in (10, 11)] == [right[number] for number in wrong]
    assert page.session.count() == 12


def test_the_saved_classifier_gives_the_same_answers(page: Page) -> None:
    page.one("#save").click()
    file = page.downloads / "classifier.safetensors"
    page.wait(file.is_file)
    saved = FewShotClassifier.load(file)
    answers = saved.predict([image.path for image in page.session.images])
    assert answers.tolist() == [decision and decision.label for decision in page.session.decisions]
    assert len(saved.support_.names) == page.session.count()


def test_a_page_that_is_loaded_again_shows_the_same(page: Page) -> None:
    before = page.captions(), page.texts(".lwfm-name")
    page.open()
    page.wait(lambda: (page.captions(), page.texts(".lwfm-name")) == before)


def test_mistakes_are_named_in_sentences(page: Page, tmp_path: Path) -> None:
    page.add_class("class-1")
    assert "there is a class class-1 already" in page.sentence()
    (tmp_path / "notes.txt").write_text("no image")
    page.drop("#images", [tmp_path / "notes.txt"])
    assert "cannot read the image notes.txt" in page.sentence()
    page.drop("#head", [tmp_path / "notes.txt"])
    assert "notes.txt" in page.sentence()
    assert len(page.session.images) == 20


def test_an_example_and_a_class_are_removed(page: Page) -> None:
    card, before = page.texts(".lwfm-name").index("class-1"), len(page.session.examples("class-1"))
    others = page.session.count() - before
    page.all(".lwfm-card")[card].find_element("css selector", ".thumbnail-lg").click()
    page.wait(lambda: "Remove this example" in page.texts(".lwfm-card button"))
    button = page.texts(".lwfm-card button").index("Remove this example")
    page.all(".lwfm-card button")[button].click()
    page.wait(lambda: len(page.session.examples("class-1")) == before - 1)
    page.wait(lambda: "Removed an example of class-1." in page.texts("#status")[0])
    page.wait(lambda: len(page.all(".lwfm-card .thumbnail-lg")) == others + before - 1)
    page.all(".lwfm-card")[card].find_element("css selector", "button").click()
    page.wait(lambda: page.texts(".lwfm-name") == ["class-0", "class-2", "class-3", "class-4"])
    assert page.session.count() == others


def test_a_classifier_is_loaded(page: Page, by_class: ByClass, tmp_path: Path) -> None:
    images = [paths[0] for paths in by_class.values()]
    classifier = FewShotClassifier(page.session.network, progress=False)
    classifier.fit(images, ["a", "b", "c", "d", "e<b>"]).save(tmp_path / "other.safetensors")
    page.drop("#head", [tmp_path / "other.safetensors"])
    page.wait(lambda: page.texts(".lwfm-name") == ["a", "b", "c", "d", "e<b>"])
    page.wait(lambda: page.captions() == expected_captions(page.session))


def test_nothing_comes_from_elsewhere(page: Page) -> None:
    assert page.address.startswith("http://127.0.0.1:")
    addresses = requested(page.driver)
    assert addresses
    assert [address for address in addresses if not address.startswith(page.address)] == []
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
