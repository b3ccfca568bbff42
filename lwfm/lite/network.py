"""An exported network in ONNX Runtime, and its head on arrays.

Letters: B images of a batch, S support images, Q queries, P positions, l a layer.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm import _lap
from lwfm._common.onnx_runtime import INPUT, open_session
from lwfm._common.ranges import check_counts
from lwfm.data.center_crop import VIEWS, CenterCrop
from lwfm.data.decode_ahead import WAITING_BATCHES, in_threads, shared_batch_size
from lwfm.data.user_images import NO_WHITE, pixels_of
from lwfm.errors import UserError
from lwfm.lap import default_threads
from lwfm.lite.encoded import EncodedImages
from lwfm.lite.regression import regression_scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from lwfm.data.user_images import ImageLike
    from lwfm.data.white_levels import WhiteLevels
    from lwfm.lite.encoded import Array

METADATA_KEY, FORMAT = "lwfm", 1
"""Of the files that :mod:`lwfm.model.onnx_export` writes, which imports torch."""

_PARTS = tuple(field.name for field in fields(EncodedImages))
_OTHER_OPTIONS = {"backbone", "layers", "weights", "feature_size", "embedding"}
"""Options of a model that its graph has carried out already."""
_CHOICES = {"layer_reduction": ("max", "mean"), "centre": ("channels", "task", "episode")}


@dataclass(frozen=True)
class HeadOptions:
    """How a head compares images; see :class:`lwfm.model.ModelConfig`."""

    image_size: int
    matching_weight: float
    attention_temperature: float | None
    temperature: float
    top_k: int | None
    layer_reduction: str
    merge_shots: bool
    centre: str = "channels"
    regression_weight: float = 0.0

    @classmethod
    def read(cls, config: dict[str, Any], source: str) -> HeadOptions:
        """Read the options of a model; UserError naming one that this version does not know."""
        names = {field.name for field in fields(cls)}
        if unknown := sorted(set(config) - names - _OTHER_OPTIONS):
            raise UserError(
                f"{source} has the option {unknown[0]}, which this lwfm.lite does not know: use a newer one, "
                "or lwfm.FewShotClassifier"
            )
        try:
            options = cls(**{name: value for name, value in config.items() if name in names})
        except TypeError as error:
            raise UserError(f"{source} does not describe its head: {error}") from error
        if options.layer_reduction not in ("max", "mean") or options.centre not in (
            "channels",
            "task",
            "episode",
        ):
            raise UserError(
                f"{source} has layer_reduction {options.layer_reduction!r} and centre {options.centre!r}, of "
                "which this lwfm.lite does not know one: use a newer one, or lwfm.FewShotClassifier"
            )
        if options.centre == "episode" and options.regression_weight > 0:
            raise UserError(f"{source} has a transductive head, which lwfm.lite does not know: use lwfm")
        return options


class OnnxNetwork:
    """A network that `lwfm export` wrote: ONNX Runtime encodes images, the core of lwfm compares them.

    Parameters
    ----------
    path : path
        The .onnx file.
    threads : int, optional
        By default one for each processor that the process may use.

    Attributes
    ----------
    options : HeadOptions
        Of its head.
    description : dict
        The metadata of the file, see :mod:`lwfm.model.onnx_export`.

    Raises
    ------
    UserError
        For a number of threads below 1; when ONNX Runtime is missing, the file cannot be read, is no exported
        network, or has an option that this version does not know.
    """

    def __init__(self, path: str | os.PathLike[str], *, threads: int | None = None) -> None:
        self.path = os.fspath(path)
        if threads is not None:
            check_counts(threads=threads)
        self.threads = threads or default_threads()
        self.session = open_session(self.path, extra="lite")
        metadata = self.session.get_modelmeta().custom_metadata_map
        try:
            self.description: dict[str, Any] = json.loads(metadata[METADATA_KEY])
            config: dict[str, Any] = self.description["model"]["config"]
            preprocessing: dict[str, Any] = self.description["preprocessing"]
            outputs: list[str] = self.description["outputs"]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{self.path} is no network that `lwfm export` wrote") from error
        if self.description.get("format") != FORMAT:
            raise UserError(
                f"{self.path} has format {self.description.get('format')}, this version reads {FORMAT}: it "
                f"was written by lwfm {self.description.get('version')}"
            )
        self.options = HeadOptions.read(config, self.path)
        expected = CenterCrop(self.options.image_size).describe()
        if any(preprocessing.get(name) != value for name, value in expected.items()):
            raise UserError(f"{self.path} prepares images in another way than this version of lwfm")
        self._outputs = [[name for name in outputs if name.rpartition(".")[0] == part] for part in _PARTS]

    @property
    def name(self) -> str:
        """The backbone and its weights, as `lwfm classify` shows them."""
        model = self.description["model"]
        config, classes = model["config"], model["classes"]
        if classes:
            return f"{config['backbone']} (trained on {len(classes)} classes)"
        return (
            f"{config['backbone']} ({'random' if config['weights'] == 'none' else config['weights']} weights)"
        )

    def encode(
        self,
        images: Iterable[ImageLike],
        batch_size: int,
        *,
        white: WhiteLevels = NO_WHITE,
        views: bool = False,
    ) -> Iterator[EncodedImages]:
        """Yield the encoded images of each batch; threads decode some while others encode.

        Parameters
        ----------
        images : iterable of path, PIL image, array or tensor
            As :meth:`lwfm.FewShotClassifier.fit` takes them; may be a stream.
        batch_size : int
            Images that pass the network together, at most; each thread computes a batch of its own.
        white : WhiteLevels
            See :mod:`lwfm.data.white_levels`.
        views : bool
            Whether each image is followed by its :data:`~lwfm.data.center_crop.VIEWS` further views, within
            the same batch.

        Raises
        ------
        UserError
            For an image that cannot be read, and a network that computes NaN or infinite values.
        """
        size = self.options.image_size
        names = [name for part in self._outputs for name in part]
        alike = 1 + VIEWS if views else 1
        batch_size = alike * shared_batch_size(images, max(batch_size // alike, 1), self.threads)
        batches = pixels_of(images, size, batch_size, threads=self.threads, white=white, views=views)

        def run(pixels: npt.NDArray[np.uint8]) -> list[Array]:
            return self.session.run(names, {INPUT: pixels})  # type: ignore[no-any-return]

        for computed in in_threads(run, batches, ahead=self.threads + WAITING_BATCHES, threads=self.threads):
            arrays = dict(zip(names, computed, strict=True))
            encoded = EncodedImages(*(tuple(arrays[name] for name in part) for part in self._outputs))
            if not encoded.are_finite():
                raise UserError(
                    "the network computes NaN or huge values for an image: its weights are damaged"
                )
            yield encoded

    def compare(
        self,
        support: EncodedImages,
        labels: npt.NDArray[np.int64],
        query: EncodedImages,
        views: Sequence[Array] = (),
    ) -> Array:
        """Compute the logits [Q, way] of queries; labels [S] in 0..way-1, every class at least once.

        ``views`` are statistics [S, V, C_l] of further views of the support images.
        """
        total = self._pairwise(support, labels, query)
        if self.options.regression_weight > 0:
            predicted = regression_scores(support, labels, query, views)
            total = total + np.float32(self.options.regression_weight) * predicted
        logits: Array = (total / np.float32(self.options.temperature)).astype(np.float32, copy=False)
        return logits

    def _pairwise(
        self,
        support: EncodedImages,
        labels: npt.NDArray[np.int64],
        query: EncodedImages,
        task: EncodedImages | None = None,
    ) -> Array:
        """Compute base and weighted matching term, [Q, way]; centered by ``task``, if given, where at all."""
        options, way = self.options, int(labels.max()) + 1
        if options.centre != "channels":
            images = [support, query] if options.centre == "episode" else [support]
            means = images if task is None else [task]
            support, query = support.centered(means), query.centered(means)
        order = labels.argsort(kind="stable")
        begin = np.searchsorted(labels[order], np.arange(way + 1))
        top_k = -1 if options.top_k is None else options.top_k
        attention = options.attention_temperature
        base, matching = _lap.compare_episode(
            *EncodedImages.cat([support, query]).parts(),
            order=order,
            begin=begin.astype(np.int64),
            temperature=math.inf if attention is None else attention,
            top_k=top_k if options.matching_weight > 0 else 0,
            mean_over_layers=options.layer_reduction == "mean",
            merge_shots=options.merge_shots,
            threads=self.threads,
        )
        total: Array = base + np.float32(options.matching_weight) * matching
        return total

    def most_similar(
        self,
        support: EncodedImages,
        labels: npt.NDArray[np.int64],
        query: EncodedImages,
        classes: Sequence[int],
    ) -> list[int]:
        """Find the support image of a given class that is most similar to each query.

        As :func:`lwfm.classifier.support_set.most_similar`: every support image of the class is compared as
        a class of its own.
        """
        nearest = np.zeros(len(classes), np.int64)
        for label in set(classes):
            members = np.flatnonzero(labels == label)
            queries = np.flatnonzero(np.asarray(classes) == label)
            compared = self._pairwise(support[members], np.arange(len(members)), query[queries], support)
            nearest[queries] = members[compared.argmax(-1)]
        return [int(number) for number in nearest]
