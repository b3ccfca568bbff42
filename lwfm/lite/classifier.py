"""FewShotClassifier on ONNX Runtime and the C++ core; it never loads torch.

Letters: S support images, Q queries, way the number of classes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from lwfm.classifier.calibration import calibrate, softmax
from lwfm.classifier.few_shot import MOST_WITH_VIEWS, FewShotEstimator
from lwfm.classifier.labels import (
    are_names,
    check_labels,
    check_options,
)
from lwfm.data.center_crop import VIEWS
from lwfm.data.user_images import NO_WHITE, check_collection, white_levels
from lwfm.errors import UserError
from lwfm.lite.encoded import EncodedImages
from lwfm.lite.network import OnnxNetwork
from lwfm.lite.regression import image_statistics
from lwfm.lite.storage import load_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from lwfm.data.user_images import ImageLike
    from lwfm.data.white_levels import WhiteLevels
    from lwfm.lite.encoded import Array

_COMPARED_TOGETHER = 256
"""Queries that the head compares at once, as :class:`lwfm.FewShotClassifier` does."""
_BATCH = 8
"""Images that pass the network together: 8 of 160 x 160 took EfficientNet-Lite0 3 % less time than 16."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Encoded support images with their labels.

    Attributes
    ----------
    images : EncodedImages
        S images.
    labels : ndarray
        [S], names or numbers.
    names : tuple of str
        Path of each image, or ``image N`` where it was given otherwise.
    white : WhiteLevels
        Which value was white in images of more than 8 bits; queries are read in the same way.
    views : tuple of ndarray
        [S, V, C_l] each: statistics of further views, from which the regression learns; empty without.
    """

    images: EncodedImages
    labels: npt.NDArray[Any]
    names: tuple[str, ...]
    white: WhiteLevels = NO_WHITE
    views: tuple[Array, ...] = ()

    @cached_property
    def classes(self) -> npt.NDArray[Any]:
        """The distinct labels, ascending."""
        return np.unique(self.labels)

    @cached_property
    def indices(self) -> npt.NDArray[np.int64]:
        """[S], the class of each image in ``classes``."""
        return np.searchsorted(self.classes, self.labels).astype(np.int64)

    def joined(self, other: Examples) -> Examples:
        """Append the images of ``other``; UserError where one has names and the other numbers."""
        if are_names(self.labels) != are_names(other.labels):
            raise UserError(
                f"the labels so far are like {self.labels[0].item()!r}, the new ones like "
                f"{other.labels[0].item()!r}: use either names or numbers"
            )
        views: tuple[Array, ...] = ()
        if self.views or other.views:
            both = zip(self._some_views(), other._some_views(), strict=True)
            views = tuple(map(np.concatenate, both))
        return Examples(
            EncodedImages.cat([self.images, other.images]),
            np.concatenate([self.labels, other.labels]),
            self.names + other.names,
            other.white,
            views,
        )

    def _some_views(self) -> Sequence[Array]:
        """Return the statistics of the views; of images without any, themselves are their views."""
        return self.views or [x[:, None].repeat(VIEWS, 1) for x in image_statistics(self.images)]


class FewShotClassifier(FewShotEstimator):
    """A classifier that learns from a few images per class, without training and without torch.

    Options and answers are those of :class:`lwfm.FewShotClassifier` with the same network.

    Parameters
    ----------
    model : path or OnnxNetwork
        What `lwfm export` wrote.
    unknown_below : float
        An image whose best class has a lower probability than this is answered with ``unknown_label``;
        0 (never) to 1.
    unknown_label : str or int, optional
        By default ``"unknown"`` among names, -1 among numbers.
    calibrate : bool
        Fit the temperature of the probabilities on held-out shots, if every class has at least two and all
        have ten together.
    views : bool
        Learn from seven further views of each example too, where the head has a regression.
    batch_size : int, optional
        Images that pass the network together.
    threads : int, optional
        By default one for each processor that the process may use.

    Attributes
    ----------
    classes_ : ndarray
        [way], the labels in ascending order; columns of :meth:`predict_proba`.
    network_ : OnnxNetwork
        The network that compares the images.
    examples_ : Examples
        The images it was fitted on.
    temperature_ : float
        Divides the logits of the network's head.
    calibrated_on_ : int
        Held-out shots that the temperature was fitted on; 0 when there were too few.

    Examples
    --------
    After ``lwfm export auto --out model.onnx`` on any machine:

    >>> from lwfm.lite import FewShotClassifier
    >>> classifier = FewShotClassifier("model.onnx").fit(paths, labels)  # doctest: +SKIP
    >>> classifier.predict(["a.jpg", "b.jpg"])  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | OnnxNetwork,
        *,
        unknown_below: float = 0.0,
        unknown_label: str | int | None = None,
        calibrate: bool = True,
        views: bool = True,
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.model = model
        self.unknown_below = unknown_below
        self.unknown_label = unknown_label
        self.calibrate = calibrate
        self.views = views
        self.batch_size = batch_size
        self.threads = threads

    def fit(self, images: Iterable[ImageLike], labels: Sequence[Any] | npt.ArrayLike) -> Self:
        """Fit the classifier to labeled images, replacing any earlier fit.

        Parameters, result and errors are those of :meth:`lwfm.FewShotClassifier.fit`.
        """
        names = check_labels(check_collection(images), labels)
        if len(np.unique(names)) < 2:
            raise UserError("fit needs images of at least two classes")
        network = self._open_network()
        self._learn(network, self._encode_examples(network, images, names))
        return self

    def partial_fit(self, images: Iterable[ImageLike], labels: Sequence[Any] | npt.ArrayLike) -> Self:
        """Add shots, of known classes or new ones; arguments and errors as in :meth:`fit`.

        The first call may bring a single class; predictions need two.
        """
        names = check_labels(check_collection(images), labels)
        if not self._is_fitted():
            network = self._open_network()
            self._learn(network, self._encode_examples(network, images, names))
            return self
        self._check_parameters()
        added = self._encode_examples(self.network_, images, names, known=self.examples_)
        self._learn(self.network_, self.examples_.joined(added))
        return self

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: str | os.PathLike[str] | OnnxNetwork,
        *,
        threads: int | None = None,
    ) -> Self:
        """Read a classifier that :meth:`lwfm.FewShotClassifier.save` wrote; nothing in it is executed.

        Parameters
        ----------
        path : path
            The .safetensors file. The weights in it cannot be run without torch.
        model : path or OnnxNetwork
            Its network, as ``lwfm export`` of that file wrote it.
        threads : int, optional
            As in the constructor.

        Raises
        ------
        UserError
            When there is no such file, it is damaged or of another kind, or of another network.
        """
        network = model if isinstance(model, OnnxNetwork) else OnnxNetwork(model, threads=threads)
        state = load_state(path, network)
        known = {name: value for name, value in state.parameters.items() if name in cls._parameter_names()}
        classifier = cls(network, **{**known, "threads": threads})
        classifier._check_parameters()
        examples = Examples(state.images, state.labels, state.names, state.white, state.views)
        classifier.network_, classifier.examples_, classifier.classes_ = network, examples, examples.classes
        classifier.temperature_, classifier.calibrated_on_ = state.temperature, state.calibrated_on
        return classifier

    def _open_network(self) -> OnnxNetwork:
        self._check_parameters()
        if isinstance(self.model, OnnxNetwork):
            return self.model
        return OnnxNetwork(self.model, threads=self.threads)

    def _encode_examples(
        self,
        network: OnnxNetwork,
        images: Iterable[ImageLike],
        labels: npt.NDArray[Any],
        known: Examples | None = None,
    ) -> Examples:
        images = list(images)  # it is read twice
        if len(images) != len(labels):
            raise UserError(f"{len(images)} images need as many labels, got {len(labels)}")
        white = (NO_WHITE if known is None else known.white).joined(white_levels(images))
        first = 0 if known is None else len(known.names)
        names = [
            os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image {first + number}"
            for number, image in enumerate(images)
        ]
        views = self.views and network.options.regression_weight > 0 and len(labels) <= MOST_WITH_VIEWS
        encoded: list[EncodedImages] = []
        of_views: list[list[Array]] = []
        for batch in network.encode(images, self.batch_size or _BATCH, white=white, views=views):
            if not views:
                encoded.append(batch)
                continue
            alike = [x.reshape(-1, 1 + VIEWS, x.shape[1]) for x in image_statistics(batch)]
            encoded.append(batch[:: 1 + VIEWS])
            of_views.append([x[:, 1:] for x in alike])
        statistics = tuple(map(np.concatenate, zip(*of_views, strict=True)))
        return Examples(EncodedImages.cat(encoded), labels, tuple(names), white, statistics)

    def _learn(self, network: OnnxNetwork, examples: Examples) -> None:
        """Calibrate, then set the fitted attributes: an error leaves the classifier unchanged."""
        temperature, answers = 1.0, 0
        if self.calibrate:
            images, labels, views = examples.images, examples.indices, examples.views

            def classify(kept: npt.NDArray[np.int64], asked: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
                of_kept = [x[kept] for x in views]
                return network.compare(images[kept], labels[kept], images[asked], of_kept)

            temperature, answers = calibrate(classify, labels)
        self.network_, self.examples_, self.classes_ = network, examples, examples.classes
        self.temperature_, self.calibrated_on_ = temperature, answers

    def _compare(
        self, images: Iterable[ImageLike]
    ) -> Iterator[tuple[EncodedImages, npt.NDArray[np.float64]]]:
        """Yield the encoded images and their probabilities [Q, way], in chunks of bounded size."""
        self._check_ready()
        examples, waiting = self.examples_, list[EncodedImages]()
        batches = self.network_.encode(
            check_collection(images), self.batch_size or _BATCH, white=examples.white
        )
        for batch in batches:
            waiting.append(batch)
            if sum(map(len, waiting)) >= _COMPARED_TOGETHER:
                yield self._compare_encoded(EncodedImages.cat(waiting))
                waiting = []
        if waiting:
            yield self._compare_encoded(EncodedImages.cat(waiting))

    def _most_similar(self, queries: EncodedImages, classes: npt.NDArray[np.int64]) -> list[int]:
        examples = self.examples_
        return self.network_.most_similar(examples.images, examples.indices, queries, classes.tolist())

    def _shot_names(self) -> Sequence[str]:
        return self.examples_.names

    def _compare_encoded(self, queries: EncodedImages) -> tuple[EncodedImages, npt.NDArray[np.float64]]:
        examples = self.examples_
        logits = self.network_.compare(examples.images, examples.indices, queries, examples.views)
        return queries, softmax(logits.astype(np.float64) / self.temperature_)

    def _is_fitted(self) -> bool:
        return hasattr(self, "examples_")

    def _check_parameters(self) -> None:
        check_options(self.unknown_below, self.batch_size, self.unknown_label)

    def _description(self) -> list[str]:
        """Return what ``repr`` shows beside the parameters."""
        if not self._is_fitted():
            return []
        fitted = f"{len(self.classes_)} classes, {len(self.examples_.names)} images"
        return [f"network={self.network_.name}", fitted]
