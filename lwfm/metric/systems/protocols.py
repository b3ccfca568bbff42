"""What the evaluations of image systems share: inputs and plain features, test images, chosen parameters."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from pytorch_metric_learning.distances import LpDistance
from torch.nn import functional as F

from lwfm.metric.data.pictures import encode_layers
from lwfm.metric.estimator import MetricEstimator
from lwfm.metric.image_encoders import SE_RESNETS, read_inputs, trunk_network
from lwfm.metric.retriever import Encoded
from lwfm.metric.scores import rank, retrieval_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor

    from lwfm._common.devices import Accelerator
    from lwfm.metric.data.pictures import Pictures
    from lwfm.metric.module import Indices
    from lwfm.metric.retriever import ImageRetriever

Estimator = TypeVar("Estimator", bound=MetricEstimator)
_TESTED = 0.2
_VALIDATED = 0.25


def inputs_and_plain(
    trunk: str, image_size: int, images: Iterable[Path], accelerator: Accelerator
) -> tuple[Tensor, tuple[Encoded, ...]]:
    """Return what an encoder with a trunk reads for images, and their descriptors without learning.

    These are of a pretrained network (the trunk, or that of ``auto`` where the trunk is trained from pixels):
    the means of the maps of its third stage, of its last one, and of both, each of length 1.
    """
    paths = tuple(images)
    fixed = "auto" if trunk in SE_RESNETS else trunk
    third, last = encode_layers(trunk_network(fixed, image_size), paths, accelerator)
    inputs = read_inputs(trunk, image_size, paths, accelerator) if trunk in SE_RESNETS else third
    means = [F.normalize(layer.mean((2, 3)), dim=1) for layer in (third, last)]
    kinds = (*means, F.normalize(torch.cat(means, dim=1), dim=1))
    return inputs, tuple(Encoded(each, None) for each in kinds)


def best_plain(plain: Sequence[Encoded], rows: Indices, codes: Indices) -> int:
    """Return by which descriptors most training images have a nearest other one of their class.

    The first of equally good ones, and of all where no two training images have the same class.

    Parameters
    ----------
    plain : sequence of Encoded
        Several descriptors of the same N images.
    rows, codes : ndarray
        The training images, and the classes [N] of all.
    """
    if len(np.unique(codes[rows])) == len(rows):
        return 0
    recalls = [
        retrieval_scores(rank(LpDistance()(each.descriptors[rows]), left_out=True), codes[rows], (1,))[
            "Recall@1"
        ]
        for each in plain
    ]
    return int(np.argmax(recalls))


def images_for_testing(pictures: Pictures, codes: Indices, seed: int) -> npt.NDArray[np.bool_]:
    """Return which images [N] are for testing: those of the folder ``test``, else a fifth of each class."""
    tested: npt.NDArray[np.bool_] = pictures.splits == "test"
    if tested.any() and not tested.all():
        return tested
    tested = np.zeros(len(codes), dtype=bool)
    tested[drawn(codes, _TESTED, seed)] = True
    return tested


def drawn(codes: Indices, share: float, seed: int) -> Indices:
    """Draw a share of the rows of each class, at least one and never all of them, in order.

    A class of one row is not drawn from.

    Examples
    --------
    >>> drawn(np.array([0, 0, 0, 0, 1, 1, 2]), 0.5, seed=0).tolist()
    [0, 2, 5]
    """
    random = np.random.default_rng(seed)
    rows = [random.permutation(np.flatnonzero(codes == code)) for code in np.unique(codes)]
    counts = [min(max(1, round(share * len(each))), len(each) - 1) for each in rows]
    return np.sort(np.concatenate([each[:count] for each, count in zip(rows, counts, strict=True)]))


def choose(
    base: Estimator,
    grid: Mapping[str, tuple[Any, ...]],
    inputs: Tensor,
    codes: Indices,
    score: Callable[[Estimator, Tensor, Indices], float],
    **fitting: Any,
) -> Estimator:
    """Return the estimator of a grid of parameters with the best score on a quarter of the training images.

    Parameters
    ----------
    base : MetricEstimator
        Other parameters, and the seed of the quarter.
    grid : mapping
        Values of each parameter. The first is taken where all are as good, or classes have one image.
    inputs, codes : Tensor, ndarray
        [N, ...] and [N]: the training images and their classes.
    score : callable
        Of a fitted estimator, on inputs and classes.
    **fitting
        Further arguments of ``fit``.
    """
    held = drawn(codes, _VALIDATED, base.seed)
    train = np.setdiff1d(np.arange(len(codes)), held)
    best, reached = base, -np.inf
    if not len(held):
        return base
    for values in product(*grid.values()):
        options = {**base.get_params(), **dict(zip(grid, values, strict=True))}
        fitted = type(base)(**options).fit(inputs[train], codes[train], **fitting)
        found = score(fitted, inputs[held], codes[held])
        if found > reached:
            best, reached = type(base)(**options), found
    return best


def recall_at_1(retriever: ImageRetriever, inputs: Tensor, codes: Indices) -> float:
    """Return the share of images whose nearest indexed image has their class."""
    nearest = retriever.search(inputs, 1).indices[:, 0]
    return float((retriever.classes_[retriever.decision_.codes[nearest]] == codes).mean())
