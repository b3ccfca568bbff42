"""What the page works on: a classifier, the images it learned from, and images with their answers."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lwfm._common.files import atomic_path
from lwfm.classifier.answers import Answers
from lwfm.classifier.classifier import FewShotClassifier
from lwfm.classifier.labels import are_names
from lwfm.data import open_image
from lwfm.errors import UserError
from lwfm.figures import match_images
from lwfm.model.default import build_network, network_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.figure import Figure
    from PIL.Image import Image

    from lwfm.classifier.decision import Decision
    from lwfm.data.white_levels import WhiteLevels
    from lwfm.model import LWFM

_THUMBNAIL = 192
"""Side in pixels of the small images that the page shows."""


@dataclass(frozen=True, eq=False)
class LocalImage:
    """An image file of the user, and a small copy that every browser can show.

    Attributes
    ----------
    path, thumbnail : Path
        The file, of any format that Pillow reads, and its small copy, a PNG file.
    """

    path: Path
    thumbnail: Path


class Session:
    """A classifier that learns from example images, and images that it answers.

    Parameters
    ----------
    classifier : FewShotClassifier
        Fitted or not.
    folder : Path
        An existing folder for small copies of the images and for files to download.

    Attributes
    ----------
    classifier : FewShotClassifier
        Fitted as soon as there is an example.
    classes : list of str
        Names of the classes in the order in which they were added; some may have no example yet.
    sources : list of LocalImage or None
        Of every example, in the order in which the classifier learned them; None where only the file of a
        classifier knows it.
    images : list of LocalImage
        The images to classify.
    decisions : list of Decision or None
        Their answers; None for an image that cannot be read, and for all while there are fewer than two
        classes.

    Examples
    --------
    >>> import tempfile
    >>> from lwfm.model import LWFM, ModelConfig
    >>> network = LWFM(ModelConfig(backbone="conv4", image_size=32, embedding=False))
    >>> session = Session(FewShotClassifier(network), Path(tempfile.mkdtemp()))
    >>> session.add_class("cat")
    >>> session.classes, session.examples("cat")
    (['cat'], [])
    """

    def __init__(self, classifier: FewShotClassifier, folder: Path) -> None:
        self.folder = folder
        self.images: list[LocalImage] = []
        self.start_from(classifier)

    def start_from(self, classifier: FewShotClassifier) -> list[str]:
        """Take a classifier with what it has learned, instead of the present one; images remain."""
        self.classifier = classifier
        if not self._is_fitted():
            classifier.set_params(model=build_network(classifier.model, head="recommended"))  # once
        self.decisions: list[Decision | None] = []
        self.classes = [str(label) for label in classifier.classes_] if self._is_fitted() else []
        self.sources: list[LocalImage | None] = [None] * self.count()
        return self._answer()

    def load(self, path: Path) -> list[str]:
        """Take the classifier of a file, and answer all images anew; UserError when it is none."""
        return self.start_from(FewShotClassifier.load(path, accelerator=self.classifier.accelerator))

    def count(self) -> int:
        """Return the number of examples."""
        return len(self.classifier.support_.names) if self._is_fitted() else 0

    def _is_fitted(self) -> bool:
        return hasattr(self.classifier, "support_")

    @property
    def network(self) -> LWFM:
        """The network that compares the images."""
        return (
            self.classifier.network_
            if self._is_fitted()
            else build_network(self.classifier.model, head="recommended")
        )

    def examples(self, name: str) -> list[int]:
        """Return the numbers of the examples of a class."""
        if not self._is_fitted():
            return []
        support = self.classifier.support_
        labels = [str(support.classes[label]) for label in support.labels.tolist()]
        return [number for number, label in enumerate(labels) if label == name]

    def add_class(self, name: str) -> None:
        """Add a class without examples; UserError for an empty name or one that there is."""
        name = name.strip()
        if not name:
            raise UserError("a class needs a name: write one, such as cat")
        if name in self.classes:
            raise UserError(f"there is a class {name} already: drop its examples into it")
        self._label(name)
        self.classes.append(name)

    def add_examples(self, name: str, paths: Sequence[Path]) -> list[str]:
        """Learn from images of a class, and answer all images anew.

        Parameters
        ----------
        name : str
            The class, which is added if it is new.
        paths : sequence of Path
            Image files.

        Returns
        -------
        list of str
            A sentence for each file that cannot be read, and is left out.

        Raises
        ------
        UserError
            When none can be read, or images of more than 8 bits do not agree in which value is white.
        """
        images, problems = self._open_all(paths)
        if not images:
            raise UserError(problems[0] if len(problems) == 1 else "none of these files is an image")
        if name not in self.classes:
            self.add_class(name)
        self._learn(name, images)
        return problems + self._answer()

    def add_images(self, paths: Sequence[Path]) -> list[str]:
        """Add images to classify; return a sentence for each that cannot be read, and is left out."""
        images, problems = self._open_all(paths)
        before = len(self.images)
        self.images += images
        return problems + self._answer(start=before)

    def correct(self, image: int, name: str) -> list[str]:
        """Learn that an image to classify is of a class, and answer all images anew.

        What was learned of this image before is forgotten. Returns sentences as :meth:`add_examples`.
        """
        if name not in self.classes:
            self.add_class(name)
        shown = self.images[image]
        known = self.example_of(image)
        self._learn(name, [shown])
        if known is not None:
            self._forget([known])
        return self._answer()

    def example_of(self, image: int) -> int | None:
        """Return the number of the example that an image became when it was corrected, if it was."""
        shown = self.images[image]
        return next((number for number, source in enumerate(self.sources) if source is shown), None)

    def label_of(self, example: int) -> str:
        """Return the class of an example."""
        support = self.classifier.support_
        return str(support.classes[int(support.labels[example])])

    def remove_class(self, name: str) -> list[str]:
        """Forget a class and its examples, and answer all images anew."""
        self._forget(self.examples(name))
        self.classes.remove(name)
        return self._answer()

    def remove_example(self, example: int) -> list[str]:
        """Forget an example, and answer all images anew."""
        self._forget([example])
        return self._answer()

    def remove_images(self) -> None:
        """Forget the images to classify; those that were corrected remain examples."""
        self.images, self.decisions = [], []

    def probabilities(self, image: int) -> dict[str, float]:
        """Return the probability of each class for an image."""
        source = self._read(self.images[image])
        row = self.classifier.predict_proba([source])[0]
        return {str(label): float(value) for label, value in zip(self.classifier.classes_, row, strict=True)}

    def matched_pair(self, image: int) -> tuple[LocalImage, LocalImage] | None:
        """Return the most similar example and the image.

        None where there is no answer, or the example is known only from the file of a classifier.
        """
        decision = self.decisions[image]
        source = None if decision is None else self.sources[decision.support]
        return None if source is None else (source, self.images[image])

    def match_figure(self, image: int) -> Figure:
        """Draw an image beside its most similar example, matched positions joined by lines.

        Raises
        ------
        UserError
            Where :meth:`matched_pair` is None.
        """
        pair, decision = self.matched_pair(image), self.decisions[image]
        if pair is None or decision is None:
            raise UserError("the most similar example of this image is not at hand, or there is no answer")
        title = f"most similar example: {decision.support_name}"
        return match_images(self.network, self._read(pair[0]), self._read(pair[1]), title=title)[0]

    def save(self) -> Path:
        """Write the classifier; return the path of its .safetensors file."""
        if not self._is_fitted():
            raise UserError("there is nothing to save yet: add examples of two classes first")
        path = self.folder / "classifier.safetensors"
        self.classifier.save(path)
        return path

    def write_answers(self) -> Path:
        """Write the answers; return the path of their CSV file."""
        answered = [
            (Path(image.path.name), decision)
            for image, decision in zip(self.images, self.decisions, strict=True)
            if decision is not None
        ]
        if not answered:
            raise UserError("there are no answers yet: add examples of two classes, and images")
        path = self.folder / "answers.csv"
        Answers(
            images=tuple(name for name, _ in answered),
            decisions=tuple(decision for _, decision in answered),
            network=network_name(self.network),
            examples=self.count(),
            calibrated_on=self.classifier.calibrated_on_,
        ).write(path)
        return path

    def _label(self, name: str) -> str | int:
        """Return the label of a class by its name; UserError where the labels are numbers and it is none."""
        if not self._is_fitted() or are_names(self.classifier.classes_):
            return name
        try:
            return int(name)
        except ValueError as error:
            raise UserError(
                f"the classes of this classifier are whole numbers, and {name} is none"
            ) from error

    def _learn(self, name: str, images: Sequence[LocalImage]) -> None:
        labels = [self._label(name)] * len(images)
        self.classifier.partial_fit([image.path for image in images], labels)
        support = self.classifier.support_
        names = (*support.names[: -len(images)], *(f"{name}/{image.path.name}" for image in images))
        self.classifier.support_ = replace(support, names=names)
        self.sources += images

    def _forget(self, examples: Sequence[int]) -> None:
        if examples and len(examples) == self.count():
            options = {**self.classifier.get_params(), "model": self.network}
            self.classifier = FewShotClassifier(**options)
        elif examples:
            self.classifier.forget(examples)
        self.sources = [source for number, source in enumerate(self.sources) if number not in examples]

    def _answer(self, *, start: int = 0) -> list[str]:
        """Answer the images from a number on; return a sentence for each that cannot be read."""
        self.decisions[start:] = [None] * (len(self.images) - start)
        if not self._is_fitted() or len(self.classifier.classes_) < 2:
            return []
        problems: list[str] = []
        read: list[int] = []

        def readable() -> Iterator[Image]:
            for number in range(start, len(self.images)):
                try:
                    image = self._read(self.images[number])
                except UserError as error:
                    problems.append(str(error))
                else:
                    read.append(number)
                    yield image

        for number, decision in enumerate(self.classifier.decide(readable())):
            self.decisions[read[number]] = decision
        return problems

    def _read(self, image: LocalImage) -> Image:
        return _read(image.path, self.classifier.support_.white if self._is_fitted() else None)

    def _open_all(self, paths: Sequence[Path]) -> tuple[list[LocalImage], list[str]]:
        """Copy the images that can be read; return a sentence for each of the others."""
        images, problems = [], []
        for path in paths:
            try:
                images.append(self._copy_small(path))
            except UserError as error:
                problems.append(str(error))
        return images, problems

    def _copy_small(self, path: Path) -> LocalImage:
        image = _read(path, None)
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        place = self.folder / f"{secrets.token_hex(8)}.png"
        with atomic_path(place) as temporary:
            image.save(temporary)
        return LocalImage(path, place)


def _read(path: Path, white: WhiteLevels | None) -> Image:
    """Open an image file; a UserError names the file without its folder, which is a temporary one."""
    try:
        return open_image(path, white)
    except UserError as error:
        raise UserError(str(error).replace(str(path), path.name)) from error
