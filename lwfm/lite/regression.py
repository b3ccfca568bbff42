"""The regression of :mod:`lwfm.nn.regression` on arrays, of one episode that is not transductive.

Letters: S support images, V further views of each, Q queries, C channels, D the statistics of an image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lwfm._common.regression_constants import FLOOR, RIDGE, statistic_lengths, view_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from lwfm.lite.encoded import Array, EncodedImages


def regression_scores(
    support: EncodedImages,
    labels: npt.NDArray[np.int64],
    query: EncodedImages,
    views: Sequence[Array] = (),
) -> Array:
    """Predict the classes [Q, way] of queries; labels [S] in 0..way-1, every class at least once.

    ``views`` are statistics [S, V, C_l] of further views of the support images.
    """
    counts = np.bincount(labels)
    way, S = len(counts), len(labels)
    weights = (S / (way * counts[labels])).astype(np.float32)  # of the images: classes count alike
    of_support = image_statistics(support)
    if views:
        of_support = [
            np.concatenate([x[:, None], v], 1).reshape(-1, x.shape[1])
            for x, v in zip(of_support, views, strict=True)
        ]
        V = views[0].shape[1]
        labels = labels.repeat(1 + V)
        parts = np.array(view_weights(V), np.float32)
        weights = np.outer(weights, parts).reshape(-1)
    x, q = _features(of_support, image_statistics(query), (weights / S).astype(np.float32))
    targets = np.eye(way, dtype=np.float32)[labels] - np.float32(1 / way)
    if x.shape[1] >= len(x):
        system = x @ x.T + np.diag(np.float32(RIDGE) / weights)
        solution: Array = x.T @ np.linalg.solve(system, targets)
    else:
        weighted = x.T * weights
        ridge = np.diag(np.full(x.shape[1], RIDGE, np.float32))
        solution = np.linalg.solve(weighted @ x + ridge, weighted @ targets)
    return q @ solution


def _features(support: Sequence[Array], query: Sequence[Array], weights: Array) -> tuple[Array, Array]:
    """Center each statistic by the support images, and place all side by side: [S, D] and [Q, D]."""
    parts: tuple[list[Array], list[Array]] = ([], [])
    for length, s, q in zip(statistic_lengths(len(support) // 2), support, query, strict=True):
        for part, x in zip(parts, (s, q), strict=True):
            part.append(np.float32(length) * _unit(x - weights @ s, FLOOR))
    return np.concatenate(parts[0], 1), np.concatenate(parts[1], 1)


def image_statistics(images: EncodedImages) -> list[Array]:
    """Return mean and standard deviation of the positions of each layer, of length 1 each."""
    return [_unit(x) for layer in images.positions for x in (layer.mean(1), layer.std(1))]


def _unit(x: Array, floor: float = 1e-12) -> Array:
    lengths: Array = np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), np.float32(floor))
    return x / lengths
