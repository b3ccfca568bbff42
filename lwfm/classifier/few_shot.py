"""What a few-shot classifier answers, whatever compares its images: with torch, or without.

Letters: Q queries, way the number of classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm.classifier.decision import Decision
from lwfm.classifier.labels import replace_unknown, unknown_label
from lwfm.classifier.sklearn_api import Estimator
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from lwfm.data.user_images import ImageLike

MOST_WITH_VIEWS = 500
"""Examples of a call of ``fit`` or ``partial_fit`` of which further views are encoded: of more they bring
little."""


class FewShotEstimator(Estimator, ABC):
    """Answers from the probabilities of the classes; a subclass compares images and keeps the shots.

    Attributes
    ----------
    classes_ : ndarray
        [way], the labels in ascending order.
    """

    unknown_below: float
    unknown_label: str | int | None
    classes_: npt.NDArray[Any]

    @abstractmethod
    def _compare(self, images: Iterable[ImageLike]) -> Iterator[tuple[Any, npt.NDArray[np.float64]]]:
        """Yield encoded images and their probabilities [Q, way], in chunks; :meth:`_check_ready` first."""

    @abstractmethod
    def _most_similar(self, queries: Any, classes: npt.NDArray[np.int64]) -> list[int]:
        """Return for each encoded query the number of the most similar shot of a class [Q]."""

    @abstractmethod
    def _shot_names(self) -> Sequence[str]:
        """Return the name of each shot."""

    @abstractmethod
    def _is_fitted(self) -> bool: ...

    @abstractmethod
    def _check_parameters(self) -> None:
        """Raise UserError for a parameter out of its range."""

    def predict(self, images: Iterable[ImageLike]) -> npt.NDArray[Any]:
        """Return the class of each image, or the label of unknown ones.

        Parameters
        ----------
        images : iterable of path, PIL image, array or tensor
            As in :meth:`fit`. A generator is read a batch at a time: a stream of any length needs the memory
            of a batch and of the answers.

        Returns
        -------
        ndarray
            [Q], of the labels' dtype (object when the unknown label is of another kind than they are).
        """
        best, probability = [np.zeros(0, np.int64)], [np.zeros(0)]
        for _, chunk in self._compare(images):
            best.append(chunk.argmax(-1))
            probability.append(chunk.max(-1))
        labels = self.classes_[np.concatenate(best)]
        unknown = np.concatenate(probability) < self.unknown_below
        label = self._label_of_unknown()
        return labels if label is None or not unknown.any() else replace_unknown(labels, unknown, label)

    def predict_proba(self, images: Iterable[ImageLike]) -> npt.NDArray[np.float64]:
        """Return the probability of each class, [Q, way] float64; columns in the order of ``classes_``."""
        chunks = [chunk for _, chunk in self._compare(images)]
        return np.concatenate([np.zeros((0, len(self.classes_))), *chunks])

    def score(self, images: Iterable[ImageLike], labels: Sequence[Any] | npt.ArrayLike) -> float:
        """Return the share of images whose predicted label is the given one, in 0..1."""
        truth = np.asarray(labels)
        predicted = self.predict(images)
        if truth.shape != predicted.shape or not len(truth):
            raise UserError(f"{len(predicted)} images need as many labels, got {list(truth.shape)}")
        return float(np.mean(predicted == truth))

    def decide(self, images: Iterable[ImageLike]) -> Iterator[Decision]:
        """Yield for each image, in order, the two best classes and the most similar support image."""
        for queries, probabilities in self._compare(images):
            names = self._shot_names()
            nearest = self._most_similar(queries, probabilities.argmax(-1))
            for row, shot in zip(probabilities, nearest, strict=True):
                yield Decision.build(
                    row,
                    self.classes_,
                    (shot, names[shot]),
                    unknown_below=self.unknown_below,
                    unknown_label=self._label_of_unknown(),
                )

    def _check_ready(self) -> None:
        """Raise UserError where nothing can be answered, before any image is read."""
        if not self._is_fitted():
            raise UserError("this classifier has seen no images yet: call fit first")
        self._check_parameters()
        self._label_of_unknown()
        if len(self.classes_) < 2:
            raise UserError(
                f"only the class {self.classes_[0].item()!r} is known: add another by partial_fit"
            )

    def _label_of_unknown(self) -> str | int | None:
        """Return the label of unknown images; None where no image can be unknown."""
        return unknown_label(self.classes_, self.unknown_label) if self.unknown_below > 0 else None
