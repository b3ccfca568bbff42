"""FewShotClassifier: predictions, partial fits, errors; its files are in test_files.py."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from lwfm import FewShotClassifier
from lwfm.classifier.labels import check_labels
from lwfm.data import open_image
from lwfm.errors import UserError
from lwfm.model import LWFM
from lwfm.model.encode import encode_images
from lwfm.nn import EncodedMaps, LWFMHead

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


def test_predictions_are_those_of_the_network(
    fitted: FewShotClassifier, network: LWFM, shots: tuple[list[Path], list[str]], queries: list[Path]
) -> None:
    from lwfm.data import evaluation_transform
    from lwfm.data.normalization import IMAGENET

    transform = evaluation_transform(image_size=24, normalization=IMAGENET)
    support, query = (torch.stack([transform(open_image(p)) for p in paths]) for paths in (shots[0], queries))
    classes = sorted(set(shots[1]))
    labels = torch.tensor([classes.index(label) for label in shots[1]])
    with torch.no_grad():
        logits = network(support, labels, query)
    probabilities = (logits.double() / fitted.temperature_).softmax(-1).numpy()
    assert fitted.classes_.tolist() == classes
    np.testing.assert_allclose(fitted.predict_proba(queries), probabilities, atol=1e-6)
    assert fitted.predict(queries).tolist() == [classes[i] for i in probabilities.argmax(1)]
    truth = [path.parent.name for path in queries]
    accuracy = fitted.score(queries, truth)
    assert accuracy == np.mean([classes[i] for i in probabilities.argmax(1)] == np.array(truth))
    assert accuracy > 0.4  # five classes: chance is 0.2


def as_array(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(open_image(path))


FORMS: dict[str, Callable[[list[Path]], Any]] = {
    "strings": lambda paths: [str(path) for path in paths],
    "array of strings": lambda paths: np.array([str(path) for path in paths]),
    "PIL": lambda paths: [open_image(path) for path in paths],
    "arrays": lambda paths: [as_array(path) for path in paths],
    "one array": lambda paths: np.stack([as_array(path) for path in paths]),
    "float arrays": lambda paths: [as_array(path) / 255 for path in paths],
    "tensors": lambda paths: [torch.from_numpy(as_array(path).copy()).movedim(-1, 0) for path in paths],
    "one tensor": lambda paths: torch.stack(
        [torch.from_numpy(as_array(path) / np.float32(255)).movedim(-1, 0) for path in paths]
    ),
    "stream": lambda paths: (path for path in paths),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_an_image_gives_the_same_answer(
    fitted: FewShotClassifier, queries: list[Path], form: Callable[[list[Path]], Any]
) -> None:
    np.testing.assert_array_equal(fitted.predict_proba(form(queries)), fitted.predict_proba(queries))


def test_gray_arrays_are_images(fitted: FewShotClassifier) -> None:
    gray = np.random.default_rng(0).integers(0, 255, (30, 40), dtype=np.uint8)
    colored = fitted.predict_proba([np.stack([gray] * 3, axis=-1)])
    np.testing.assert_array_equal(fitted.predict_proba([gray]), colored)
    np.testing.assert_array_equal(fitted.predict_proba([torch.from_numpy(gray)[None]]), colored)
    np.testing.assert_array_equal(fitted.predict_proba([Image.fromarray(gray)]), colored)


DEEP: dict[str, Callable[[np.ndarray[Any, Any]], Any]] = {
    "12-bit arrays": lambda gray: (gray * (4095 / 255)).round().astype(np.uint16),
    "int32 arrays": lambda gray: gray.astype(np.int32) * 257,
    "floats to 255": lambda gray: gray.astype(np.float32),
    "16-bit tensors": lambda gray: torch.from_numpy(gray.astype(np.int32) * 257)[None],
    "bfloat16 tensors": lambda gray: torch.from_numpy(gray.astype(np.float32)).bfloat16(),
    "PIL of 16 bits": lambda gray: Image.fromarray(gray.astype(np.uint16) * 257),
    "PIL of floats": lambda gray: Image.fromarray(gray.astype(np.float32) / 255),
}


@pytest.mark.parametrize("form", DEEP.values(), ids=DEEP)
def test_images_of_more_than_8_bits_are_seen_as_their_8_bits(
    network: LWFM, form: Callable[[np.ndarray[Any, Any]], Any], tmp_path: Path
) -> None:
    """The examples decide which value is white, for each query too, and after saving and loading."""
    gray = np.random.default_rng(0).integers(0, 255, (6, 24, 24), dtype=np.uint8)
    gray[0, 0, 0], gray[4] = 255, gray[4] // 16  # a dark query alone would be taken for fewer bits
    expected = FewShotClassifier(network).fit(list(gray[:4]), [0, 0, 1, 1]).predict_proba(list(gray[4:]))
    deep = [form(each) for each in gray]
    classifier = FewShotClassifier(network).fit(iter(deep[:4]), [0, 0, 1, 1])
    np.testing.assert_array_equal(classifier.predict_proba(deep[4:]), expected)
    classifier.save(tmp_path / "c.safetensors")
    loaded = FewShotClassifier.load(tmp_path / "c.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(deep[4:]), expected)
    learner = FewShotClassifier(network, calibrate=False).partial_fit(deep[:2], [0, 0])
    learner.partial_fit(deep[2:4], [1, 1])
    assert learner.support_.white == classifier.support_.white


def test_a_query_brighter_than_the_examples_is_refused(network: LWFM) -> None:
    dim, bright = (np.full((24, 24), value, np.uint16) for value in (900, 4000))
    classifier = FewShotClassifier(network).fit([dim, dim // 2], ["a", "b"])
    with pytest.raises(UserError, match=r"image 1 .*up to 4000, and white is 1023"):
        classifier.predict([dim, bright])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        pytest.param("cat.jpg", "put a single one into a list", id="one-path"),
        pytest.param(np.zeros((9, 9, 3), np.uint8), "put a single one into a list", id="one-array"),
        pytest.param(np.zeros((5, 9, 9), np.uint8), r"\[5, 9, 9\].* images\[..., None\]", id="gray-stack"),
        pytest.param(torch.zeros(5, 9, 9), r"\[5, 9, 9\].* images\[:, None\]", id="gray-tensors"),
        pytest.param({"a.jpg"}, "a set, not a sequence", id="set"),
        pytest.param({"a": "a.jpg"}, "a dict, not a sequence", id="dict"),
        pytest.param(7, "collection", id="number"),
        pytest.param(["missing.jpg"], r"missing\.jpg", id="missing-file"),
        pytest.param([np.zeros((9, 9, 3), np.int64)], r"image 0 .*int64", id="dtype"),
        pytest.param([np.zeros((9, 9, 2), np.uint8)], r"image 0 .*\[9, 9, 2\]", id="channels"),
        pytest.param([np.zeros((0, 9, 3), np.uint8)], r"image 0 .*\[0, 9, 3\]", id="empty"),
        pytest.param([torch.full((3, 9, 9), -2.0)], r"image 0 .*-2", id="normalized"),
        pytest.param([torch.full((3, 9, 9), torch.nan)], r"image 0 .*nan", id="nan"),
        pytest.param([None], "image 0 is a NoneType", id="none"),
    ],
)
def test_bad_images_are_named(fitted: FewShotClassifier, images: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fitted.predict(images)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(["a"] * 3, "20 images need as many labels, got 3", id="too-few"),
        pytest.param([0.5] * 20, r"label 0 is 0\.5 \(float\)", id="floats"),
        pytest.param(np.full(20, 0.5), r"label 0 is 0\.5 \(float\)", id="float-array"),
        pytest.param(["a", float("nan")] * 10, r"label 1 is nan \(float\), label 0 is 'a'", id="nan"),
        pytest.param(["a", 1] * 10, r"label 1 is 1 \(int\), label 0 is 'a'", id="mixed"),
        pytest.param(np.array(["a", 1] * 10, object), r"label 1 is 1 \(int\)", id="mixed-objects"),
        pytest.param([1, True] * 10, r"label 1 is True \(bool\)", id="bool"),
        pytest.param(["a", "a\0"] * 10, "label 1 is .* the character NUL", id="nul"),
        pytest.param(
            np.array([1, 2**63 + 5] * 10, np.uint64), "9223372036854775813 does not fit", id="uint64"
        ),
        pytest.param({"a", "b"}, "a set, which has no order", id="set"),
        pytest.param([["a"]] * 20, r"\[20, 1\]", id="two-dimensions"),
        pytest.param(["a"] * 20, "two classes", id="one-class"),
        pytest.param(["a", None] * 10, "label 1 is None", id="none"),
    ],
)
def test_bad_labels_leave_the_classifier_as_it_was(
    fitted: FewShotClassifier, shots: tuple[list[Path], list[str]], labels: Any, message: str
) -> None:
    before = fitted.predict_proba(shots[0])
    with pytest.raises(UserError, match=message):
        fitted.fit(shots[0], labels)
    np.testing.assert_array_equal(fitted.predict_proba(shots[0]), before)


def test_a_stream_must_have_as_many_images_as_labels(
    network: LWFM, shots: tuple[list[Path], list[str]]
) -> None:
    with pytest.raises(UserError, match="20 images need as many labels, got 19"):
        FewShotClassifier(network).fit(iter(shots[0]), shots[1][:-1])


def test_forgetting_shots_equals_a_fit_without_them(
    fitted: FewShotClassifier, network: LWFM, shots: tuple[list[Path], list[str]], queries: list[Path]
) -> None:
    paths, labels = shots
    gone = [0, 5, *range(8, 12)]  # of two classes a shot, of a third all
    kept = [number for number in range(len(paths)) if number not in gone]
    once = FewShotClassifier(network).fit([paths[n] for n in kept], [labels[n] for n in kept])
    fitted.forget(gone)
    assert fitted.classes_.tolist() == once.classes_.tolist()
    assert fitted.support_.names == once.support_.names
    assert fitted.temperature_ == once.temperature_
    np.testing.assert_array_equal(fitted.predict_proba(queries), once.predict_proba(queries))


@pytest.mark.parametrize(
    ("gone", "message"),
    [([20], "there is no image 20"), ([-1], "there is no image -1"), (range(20), "at least one must stay")],
    ids=["beyond", "negative", "all"],
)
def test_shots_that_cannot_be_forgotten_are_named(
    fitted: FewShotClassifier, gone: list[int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fitted.forget(gone)
    assert len(fitted.support_.names) == 20


def test_partial_fit_in_any_order_equals_fit(
    network: LWFM, shots: tuple[list[Path], list[str]], queries: list[Path], fitted: FewShotClassifier
) -> None:
    paths, labels = shots
    learner = FewShotClassifier(network, calibrate=False)
    learner.partial_fit(paths[8:12], labels[8:12])  # one class alone
    with pytest.raises(UserError, match="only the class 'class-2' is known"):
        learner.predict(queries)
    for part in (slice(14, 20), slice(0, 8), slice(12, 14)):
        learner.partial_fit(paths[part], labels[part])
    fitted.temperature_ = 1.0
    np.testing.assert_allclose(learner.predict_proba(queries), fitted.predict_proba(queries), atol=1e-6)
    assert learner.support_.names == tuple(map(str, paths[8:12] + paths[14:] + paths[:8] + paths[12:14]))
    with pytest.raises(UserError, match=r"like 'class-0', the new ones like 3: use either names or numbers"):
        learner.partial_fit(paths[:1], [3])


def test_numbers_as_labels(network: LWFM, shots: tuple[list[Path], list[str]]) -> None:
    numbers = np.array([10 - int(label[-1]) for label in shots[1]], np.int32)
    classifier = FewShotClassifier(network, unknown_below=1.0).fit(shots[0], numbers)
    assert classifier.classes_.tolist() == [6, 7, 8, 9, 10]
    assert classifier.predict(shots[0]).tolist() == [-1] * 20
    assert classifier.predict(shots[0]).dtype == np.int64
    assert classifier.set_params(unknown_below=0).score(shots[0], numbers) > 0.6


def test_below_the_threshold_the_answer_is_unknown(fitted: FewShotClassifier, queries: list[Path]) -> None:
    probabilities = fitted.predict_proba(queries).max(1)
    certain = fitted.predict(queries)
    threshold = float(np.median(probabilities))
    answers = fitted.set_params(unknown_below=threshold).predict(queries)
    np.testing.assert_array_equal(answers, np.where(probabilities < threshold, "unknown", certain))
    assert 0 < (answers == "unknown").sum() < len(answers)
    assert [decision.label for decision in fitted.decide(queries)] == answers.tolist()
    assert [decision.best for decision in fitted.decide(queries)] == certain.tolist()
    assert set(fitted.set_params(unknown_below=1.0, unknown_label=0).predict(queries)) == {0}
    with pytest.raises(UserError, match="class-0"):
        fitted.set_params(unknown_label="class-0").predict(queries)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param([0, 1, 0, 2], id="list"),
        pytest.param([np.int8(0), 1, np.uint64(0), torch.tensor(2)], id="scalars"),
        pytest.param(np.array([0, 1, 0, 2], np.uint64), id="uint64"),
        pytest.param(np.array([0, 1, 0, 2], object), id="objects"),
        pytest.param(torch.tensor([0, 1, 0, 2]), id="tensor"),
        pytest.param((0, 1, 0, 2), id="tuple"),
    ],
)
def test_whole_numbers_of_every_type_are_labels(labels: Any) -> None:
    checked = check_labels(None, labels)
    assert checked.dtype == np.int64
    assert checked.tolist() == [0, 1, 0, 2]


def test_a_class_called_unknown(network: LWFM, shots: tuple[list[Path], list[str]]) -> None:
    """It is a name like any other, until a threshold gives it another meaning."""
    labels = ["unknown" if label == "class-0" else label for label in shots[1]]
    classifier = FewShotClassifier(network).fit(shots[0], labels)
    answers = classifier.predict(shots[0]).tolist()
    assert "unknown" in answers
    assert [decision.label for decision in classifier.decide(shots[0])] == answers
    classifier.set_params(unknown_below=0.5)
    for ask in (classifier.predict, lambda images: list(classifier.decide(images))):
        with pytest.raises(UserError, match=r"'unknown' is one of the classes: .*--unknown_label"):
            ask(shots[0])
    classifier.set_params(unknown_below=1.0, unknown_label="none")
    assert set(classifier.predict(shots[0]).tolist()) == {"none"}


def test_scalars_of_numpy_are_parameters(
    network: LWFM, shots: tuple[list[Path], list[str]], tmp_path: Path
) -> None:
    path, numbers = tmp_path / "classifier.safetensors", [int(label[-1]) for label in shots[1]]
    parameters: dict[str, Any] = {
        "unknown_label": np.int64(7),
        "unknown_below": np.float32(0.5),
        "batch_size": np.int32(8),
        "calibrate": np.bool_(True),
    }
    FewShotClassifier(network, **parameters).fit(shots[0], numbers).save(path)
    loaded = FewShotClassifier.load(path).get_params()
    assert {name: loaded[name] for name in parameters} == parameters


def test_decisions_name_runner_up_and_the_most_similar_shot(
    fitted: FewShotClassifier, shots: tuple[list[Path], list[str]], queries: list[Path]
) -> None:
    probabilities = fitted.predict_proba(queries)
    for decision, row in zip(fitted.decide(queries), probabilities, strict=True):
        first, second = np.argsort(-row)[:2]
        assert (decision.best, decision.runner_up) == (fitted.classes_[first], fitted.classes_[second])
        assert decision.probability == pytest.approx(row[first])
        assert decision.runner_up_probability == pytest.approx(row[second])
        assert decision.support_name == str(shots[0][decision.support])
        assert shots[1][decision.support] == decision.best
    # An image is most similar to itself, wherever its class is the answer.
    own = [
        (decision.support, i)
        for i, decision in enumerate(fitted.decide(shots[0]))
        if decision.best == shots[1][i]
    ]
    assert len(own) > 10
    assert all(support == image for support, image in own)


def test_no_queries_give_no_answers(fitted: FewShotClassifier) -> None:
    assert fitted.predict([]).shape == (0,)
    assert fitted.predict_proba([]).shape == (0, 5)
    assert list(fitted.decide([])) == []


def test_transductive_answers_depend_on_each_other(
    network: LWFM, shots: tuple[list[Path], list[str]], queries: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lwfm.classifier.classifier._COMPARED_TOGETHER", 3)  # all are compared in any case
    network = LWFM(replace(network.config, centre="task", regression_weight=1.0)).eval()
    options: dict[str, Any] = {"calibrate": False, "views": False}
    plain = FewShotClassifier(network, **options, batch_size=2).fit(*shots)
    together = FewShotClassifier(network, **options, transductive=True).fit(*shots)
    maps = [torch.cat(layer) for layer in zip(*encode_images(network, queries, 2), strict=True)]
    expected = LWFMHead([64, 64], feature_size=1, embedding=False, centre="episode", regression_weight=1.0)
    classes = together.support_.lists
    logits = expected.eval()(together.support_.maps, classes, maps)
    assert isinstance(logits, torch.Tensor)
    probabilities = logits.double().softmax(1).detach().numpy()
    np.testing.assert_allclose(together.predict_proba(iter(queries)), probabilities, atol=1e-5)
    np.testing.assert_allclose(plain.predict_proba(queries[:4]), plain.predict_proba(queries)[:4], atol=1e-5)
    assert not np.allclose(together.predict_proba(queries[:4]), probabilities[:4], atol=1e-5)
    assert network.head.centre == "task"  # as it was
    assert together.predict([]).shape == (0,)
    assert len(list(together.decide(queries))) == len(queries)


def test_only_queries_are_encoded_after_the_fit(
    fitted: FewShotClassifier,
    shots: tuple[list[Path], list[str]],
    queries: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encode, encoded = LWFMHead.encode, list[int]()

    def counted(head: LWFMHead, maps: Any) -> EncodedMaps:
        images = encode(head, maps)
        encoded.append(len(images))
        return images

    monkeypatch.setattr(LWFMHead, "encode", counted)
    fitted.predict(queries)
    assert len(list(fitted.decide(queries))) == encoded[-1] == len(queries)
    fitted.partial_fit(shots[0][:3], shots[1][:3])  # and calibrated on the held-out shots of all
    assert encoded == [len(queries), len(queries), 3]


def test_prediction_before_fit_is_refused(network: LWFM, tmp_path: Path) -> None:
    classifier = FewShotClassifier(network)
    with pytest.raises(UserError, match="call fit first"):
        classifier.predict([])
    with pytest.raises(UserError, match="call fit first"):
        list(classifier.decide([]))
    with pytest.raises(UserError, match="call fit first"):
        classifier.save(tmp_path / "classifier.safetensors")


def test_the_threshold_accepts_the_given_share_of_left_out_classes(
    fitted: FewShotClassifier, shots: tuple[list[Path], list[str]]
) -> None:
    labels = np.array(shots[1])
    sure = []
    for label in np.unique(labels):  # by classifiers that never saw the class
        kept = [path for path, own in zip(*shots, strict=True) if own != label]
        asked = [path for path, own in zip(*shots, strict=True) if own == label]
        other = FewShotClassifier(fitted.network_, calibrate=False).fit(kept, labels[labels != label])
        other.temperature_ = fitted.temperature_
        sure += other.predict_proba(asked).max(1).tolist()
    for share in (0.0, 0.25, 1.0):
        expected = np.quantile(sure, 1 - share)
        assert fitted.unknown_threshold(share) == pytest.approx(expected, abs=1e-5)


def test_thresholds_need_three_classes(network: LWFM, shots: tuple[list[Path], list[str]]) -> None:
    with pytest.raises(UserError, match="call fit first"):
        FewShotClassifier(network).unknown_threshold(0.1)
    two = FewShotClassifier(network).fit(shots[0][:8], shots[1][:8])
    with pytest.raises(UserError, match="takes three of them, and there are 2"):
        two.unknown_threshold(0.1)
    with pytest.raises(UserError, match="false_acceptance must be a number from 0 to 1"):
        two.unknown_threshold(1.5)


def test_a_stream_is_read_in_batches(
    fitted: FewShotClassifier, queries: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lwfm.classifier.classifier._COMPARED_TOGETHER", 4)
    taken = 0

    def stream() -> Iterator[Path]:
        nonlocal taken
        for path in queries:
            taken += 1
            yield path

    answers = fitted.set_params(batch_size=2).decide(stream())
    next(answers)
    assert taken == 4 + 2  # the next batch is decoded while this one is compared
    assert len(list(answers)) == len(queries) - 1


def test_a_table_of_pandas_is_refused_and_its_columns_are_read(
    network: LWFM, shots: tuple[list[Path], list[str]], fitted: FewShotClassifier
) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"file": [str(path) for path in shots[0]], "label": shots[1]})
    with pytest.raises(UserError, match=r"images are a DataFrame, .*: give the column of the paths"):
        FewShotClassifier(network).fit(table, table["label"])
    learned = FewShotClassifier(network).fit(table["file"], table["label"])
    assert learned.support_.names == fitted.support_.names
    assert learned.predict(table["file"]).tolist() == fitted.predict(shots[0]).tolist()
