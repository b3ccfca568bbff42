"""The session behind the page: what it learns, answers, forgets and writes."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from lwfm import FewShotClassifier
from lwfm.errors import UserError

if TYPE_CHECKING:
    from lwfm.app import Session

ByClass = dict[str, list[Path]]


def answers(session: Session) -> list[str | None]:
    return [None if decision is None else str(decision.label) for decision in session.decisions]


def expected(session: Session, shots: list[tuple[Path, str]]) -> list[str]:
    """Return the answers of a classifier that is fitted on these shots at once."""
    paths, labels = zip(*shots, strict=True)
    classifier = FewShotClassifier(session.network, progress=False).fit(list(paths), labels)
    return [str(label) for label in classifier.predict([image.path for image in session.images])]


def shots(by_class: ByClass) -> list[tuple[Path, str]]:
    return [(path, name) for name, paths in by_class.items() for path in paths[:2]]


def test_the_answers_are_those_of_a_classifier_fitted_at_once(session: Session, by_class: ByClass) -> None:
    assert answers(session) == expected(session, shots(by_class))
    assert session.count() == 10
    assert [len(session.examples(name)) for name in session.classes] == [2] * 5
    first = session.probabilities(0)
    assert list(first) == sorted(by_class)
    assert sum(first.values()) == pytest.approx(1)
    assert max(first, key=lambda name: first[name]) == answers(session)[0]


def test_a_single_class_answers_nothing(empty: Session, by_class: ByClass) -> None:
    empty.add_examples("class-0", by_class["class-0"][:2])
    assert empty.add_images(by_class["class-1"]) == []
    assert answers(empty) == [None] * 6
    empty.add_examples("class-1", by_class["class-1"][:1])
    assert None not in answers(empty)


def test_a_corrected_image_becomes_an_example(session: Session, by_class: ByClass) -> None:
    session.correct(4, "class-3")
    learned = [*shots(by_class), (session.images[4].path, "class-3")]
    assert answers(session) == expected(session, learned)
    example = session.example_of(4)
    assert example == 10
    assert session.label_of(example) == "class-3"
    assert session.example_of(5) is None


def test_a_second_correction_replaces_the_first(session: Session, by_class: ByClass) -> None:
    session.correct(4, "class-3")
    session.correct(4, "owl")
    assert session.count() == 11
    assert session.classes[-1] == "owl"
    assert answers(session) == expected(session, [*shots(by_class), (session.images[4].path, "owl")])


def test_a_removed_example_and_class_are_forgotten(session: Session, by_class: ByClass) -> None:
    session.remove_example(session.examples("class-0")[0])
    session.remove_class("class-2")
    kept = [(path, name) for path, name in shots(by_class) if name != "class-2"][1:]
    assert answers(session) == expected(session, kept)
    assert [source.path for source in session.sources if source] == [path for path, _ in kept]


def test_all_examples_can_be_removed_and_added_again(session: Session, by_class: ByClass) -> None:
    for name in list(session.classes):
        session.remove_class(name)
    assert (session.count(), session.classes, answers(session)) == (0, [], [None] * 20)
    for name, paths in by_class.items():
        session.add_examples(name, paths[:2])
    assert answers(session) == expected(session, shots(by_class))


@pytest.mark.parametrize(
    ("name", "message"), [(" ", "a class needs a name"), ("class-1", "there is a class class-1 already")]
)
def test_names_of_classes_are_checked(session: Session, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        session.add_class(name)
    assert len(session.classes) == 5


def test_unreadable_files_are_left_out_and_named(session: Session, by_class: ByClass, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(by_class["class-0"][0].read_bytes()[:60])
    sentences = session.add_images([damaged, by_class["class-0"][0]])
    assert [sentence.partition(":")[0] for sentence in sentences] == ["cannot read the image damaged.png"]
    assert len(session.images) == 21
    with pytest.raises(UserError, match=r"cannot read the image damaged.png"):
        session.add_examples("class-0", [damaged])
    assert session.count() == 10


def test_deep_images_without_deep_examples_have_no_answer(session: Session, tmp_path: Path) -> None:
    Image.fromarray(np.full((24, 24), 3000, np.uint16)).save(tmp_path / "deep.png")
    sentences = session.add_images([tmp_path / "deep.png"])
    assert "no example of more than 8 bits" in sentences[0]
    assert answers(session)[-1] is None
    with pytest.raises(UserError, match="not at hand, or there is no answer"):
        session.match_figure(20)


def test_a_saved_classifier_is_loaded_with_the_same_answers(session: Session, tmp_path: Path) -> None:
    before = answers(session)
    saved = session.save()
    names = FewShotClassifier.load(saved).support_.names
    assert names[:2] == ("class-0/0.png", "class-0/1.png")
    assert session.load(saved) == []
    assert answers(session) == before
    assert session.sources == [None] * 10
    assert session.matched_pair(0) is None  # images are not in the file
    session.correct(0, str(before[0]))  # it is now its own most similar example
    assert session.matched_pair(0) == (session.images[0], session.images[0])
    assert session.match_figure(0).axes


def test_a_classifier_of_numbers_takes_no_names(session: Session, by_class: ByClass, tmp_path: Path) -> None:
    images = [paths[0] for paths in by_class.values()]
    FewShotClassifier(session.network, progress=False).fit(images, range(5)).save(tmp_path / "n.safetensors")
    session.load(tmp_path / "n.safetensors")
    session.add_examples("3", by_class["class-3"][1:3])
    assert [len(session.examples(name)) for name in session.classes] == [1, 1, 1, 3, 1]
    with pytest.raises(UserError, match="classes of this classifier are whole numbers, and owl is none"):
        session.add_class("owl")


def test_answers_are_written(session: Session) -> None:
    with session.write_answers().open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == answers(session)
    assert [row["image"] for row in rows] == [image.path.name for image in session.images]
    assert all(Path(row["most_similar"]).parent.name == row["best"] for row in rows)


def test_nothing_can_be_saved_before_there_are_examples(empty: Session) -> None:
    with pytest.raises(UserError, match="nothing to save yet"):
        empty.save()
    with pytest.raises(UserError, match="no answers yet"):
        empty.write_answers()
