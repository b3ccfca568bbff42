"""Calibration on the support set: a temperature fitted on held-out shots, answers to left-out classes.

Letters: Q queries, S support images, n answers on held-out shots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

LEAST_ANSWERS = 10
"""With fewer held-out shots than this there is no calibration."""

_MOST_ANSWERS = 512
_MOST_FOLDS = 5
_MOST_LEFT_OUT = 16
_PRIOR = 4.0
"""Weight of the prior of the inverse temperature, chosen on the validation classes of birds and groceries."""
_SCALES = (1e-3, 1e3)  # bounds of the inverse temperature


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Compute probabilities [..., way] float64 of logits [..., way].

    Examples
    --------
    >>> softmax(np.zeros((1, 4))).tolist()
    [[0.25, 0.25, 0.25, 0.25]]
    """
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(-1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(-1, keepdims=True)
    return shares


def fit_temperature(logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """Find the temperature that makes ``softmax(logits / temperature)`` most probable, given few answers.

    Parameters
    ----------
    logits : ndarray
        [n, way], finite.
    labels : ndarray
        [n] int64 in 0..way-1, the true classes.

    Returns
    -------
    float
        In 0.001..1000.

    Notes
    -----
    Temperature scaling [1]_ with a prior: the inverse temperature s has the density s^a exp(-a s), a = 4,
    whose mode is 1, the network's own temperature. A few answers that all happen to be right would otherwise
    ask for a temperature of zero. The posterior is log-concave in s; bisection of its derivative finds the
    maximum.

    References
    ----------
    .. [1] C. Guo and others, "On Calibration of Modern Neural Networks", ICML 2017.

    Examples
    --------
    >>> logits = np.array([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    >>> right_half_the_time = fit_temperature(logits, np.array([0, 1, 0, 1]))
    >>> right_half_the_time > fit_temperature(logits, np.array([0, 0, 0, 0]))
    True
    """
    logits = logits.astype(np.float64)
    truth = logits[np.arange(len(labels)), labels]  # [n]
    low, high = _SCALES
    for _ in range(60):
        scale = (low * high) ** 0.5
        expected = (softmax(scale * logits) * logits).sum(-1)
        gain = (truth - expected).sum() + _PRIOR * (1 / scale - 1)  # d log posterior / d scale
        low, high = (scale, high) if gain > 0 else (low, scale)
    return float(1 / scale)


def hold_out(
    labels: npt.NDArray[np.int64], *, seed: int = 0
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Split support images into support and held-out queries, once for each fold.

    Parameters
    ----------
    labels : ndarray
        [S] int64, the class of each image.
    seed : int
        Chooses the shots.

    Returns
    -------
    list of (ndarray, ndarray)
        For each fold, indices of support and held-out images: every class keeps at least one; at most 512
        are held out in all. Empty when a class has a single shot, or there are fewer than
        :data:`LEAST_ANSWERS` images.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    order = shuffled[labels[shuffled].argsort(kind="stable")]  # by class, shots in random order
    counts = np.bincount(labels)
    if counts.min() < 2 or len(labels) < LEAST_ANSWERS:
        return []
    folds = min(int(counts.min()), _MOST_FOLDS)
    rank = np.arange(len(labels)) - (counts.cumsum() - counts)[labels[order]]  # shot within its class
    splits = []
    for fold in range(folds):
        held = order[rank % folds == fold]
        asked = generator.permutation(held)[: _MOST_ANSWERS // folds]
        splits.append((order[rank % folds != fold], asked))
    return splits


def calibrate(
    classify: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[Any]],
    labels: npt.NDArray[np.int64],
) -> tuple[float, int]:
    """Fit the temperature of a classifier on shots held out of its support set.

    Parameters
    ----------
    classify : callable
        From indices [S'] of support images and [Q] of queries, int64, to logits [Q, way].
    labels : ndarray
        [S] int64 in 0..way-1.

    Returns
    -------
    float, int
        The temperature, and on how many answers it was fitted; 1 and 0 when there are too few shots. The
        answers come from fewer shots than the classifier will have, so that probabilities tend to be too low.
    """
    splits = hold_out(labels)
    if not splits or labels.max() == 0:
        return 1.0, 0
    logits = [classify(kept, asked) for kept, asked in splits]
    truth = np.concatenate([labels[asked] for _, asked in splits])
    return fit_temperature(np.concatenate(logits), truth), len(truth)


def answers_without_their_class(
    classify: Callable[[npt.NDArray[np.int64], npt.NDArray[np.int64]], npt.NDArray[Any]],
    labels: npt.NDArray[np.int64],
    *,
    seed: int = 0,
) -> npt.NDArray[Any]:
    """Classify support images among the other classes: how sure answers about unknown images are.

    Parameters
    ----------
    classify : callable
        As in :func:`calibrate`; its logits are those of the classes of the kept images.
    labels : ndarray
        [S] int64 in 0..way-1, of at least three classes.
    seed : int
        Chooses the classes, where there are more than 16, and their images, 512 in all.

    Returns
    -------
    ndarray
        [n, way - 1] logits.
    """
    generator = np.random.default_rng(seed)
    left_out = generator.permutation(int(labels.max()) + 1)[:_MOST_LEFT_OUT]
    logits = []
    for label in left_out:
        asked = generator.permutation(np.flatnonzero(labels == label))[: _MOST_ANSWERS // len(left_out)]
        logits.append(classify(np.flatnonzero(labels != label), asked))
    return np.concatenate(logits)
