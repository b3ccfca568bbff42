"""Calibration of probabilities: a temperature fitted on shots held out of the support set.

Letters: Q queries, S support images, n answers on held-out shots.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST_ANSWERS = 10
"""With fewer held-out shots than this there is no calibration."""

_MOST_ANSWERS = 512
_MOST_FOLDS = 5
_SCALES = (1e-3, 1e3)  # bounds of the inverse temperature


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Find the temperature that makes ``softmax(logits / temperature)`` most likely.

    Parameters
    ----------
    logits : Tensor
        [n, way], finite.
    labels : Tensor
        [n] int64 in 0..way-1, the true classes.

    Returns
    -------
    float
        In 0.001..1000.

    Notes
    -----
    Temperature scaling [1]_ with the smoothed targets of [2]_, (n + 1) / (n + 2) for the true class: a few
    answers that all happen to be right would otherwise ask for a temperature of zero. The likelihood is
    concave in the inverse temperature, whose optimum is found by bisection of its derivative.

    References
    ----------
    .. [1] C. Guo and others, "On Calibration of Modern Neural Networks", ICML 2017.
    .. [2] J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999.

    Examples
    --------
    >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]])
    >>> right_half_the_time = fit_temperature(logits, torch.tensor([0, 1, 0, 1]))
    >>> right_half_the_time > fit_temperature(logits, torch.tensor([0, 0, 0, 0]))
    True
    """
    n, way = logits.shape
    logits = logits.double()
    targets = torch.full_like(logits, 1 / ((n + 2) * (way - 1)))  # [n, way]
    targets[torch.arange(n), labels] = (n + 1) / (n + 2)
    low, high = _SCALES
    for _ in range(60):
        scale = (low * high) ** 0.5
        gain = ((targets - (scale * logits).softmax(-1)) * logits).sum()  # d log likelihood / d scale
        low, high = (scale, high) if gain > 0 else (low, scale)
    return float(1 / scale)


def hold_out(labels: Tensor, *, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Split support images into support and held-out queries, once for each fold.

    Parameters
    ----------
    labels : Tensor
        [S] int64, the class of each image.
    seed : int
        Chooses the shots.

    Returns
    -------
    list of (Tensor, Tensor)
        For each fold, indices of support and held-out images: every class keeps at least one; at most 512
        are held out in all. Empty when a class has a single shot, or there are fewer than
        :data:`LEAST_ANSWERS` images.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    order = shuffled[labels[shuffled].argsort(stable=True)]  # by class, shots in random order
    counts = torch.bincount(labels)
    if int(counts.min()) < 2 or len(labels) < LEAST_ANSWERS:
        return []
    folds = min(int(counts.min()), _MOST_FOLDS)
    rank = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]  # shot within its class
    splits = []
    for fold in range(folds):
        held = order[rank % folds == fold]
        asked = held[torch.randperm(len(held), generator=generator)[: _MOST_ANSWERS // folds]]
        splits.append((order[rank % folds != fold], asked))
    return splits


def calibrate(classify: Callable[[Tensor, Tensor], Tensor], labels: Tensor) -> tuple[float, int]:
    """Fit the temperature of a classifier on shots held out of its support set.

    Parameters
    ----------
    classify : callable
        From indices of support images and of queries, int64 on the CPU, to logits [Q, way].
    labels : Tensor
        [S] int64 in 0..way-1.

    Returns
    -------
    float, int
        The temperature, and on how many answers it was fitted; 1 and 0 when there are too few shots. The
        answers come from fewer shots than the classifier will have, so that probabilities tend to be too low.
    """
    logits, truth = [], []
    labels = labels.cpu()
    for kept, asked in hold_out(labels):
        logits.append(classify(kept, asked).cpu())
        truth.append(labels[asked])
    if not logits or int(labels.max()) == 0:
        return 1.0, 0
    answers = torch.cat(truth)
    return fit_temperature(torch.cat(logits), answers), len(answers)
