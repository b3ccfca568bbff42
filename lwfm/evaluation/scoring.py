"""Compute the statistics of each method from its answers on many episodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from lwfm.data import episode_labels
from lwfm.evaluation.methods import BASELINE
from lwfm.evaluation.results import MethodResult
from lwfm.evaluation.statistics import bootstrap_interval, mean_and_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def score_methods(
    answers: dict[str, Tensor], query_classes: Tensor, classes: Sequence[str], *, way: int, shot: int
) -> list[MethodResult]:
    """Compute the statistics of each method.

    Parameters
    ----------
    answers : dict of str to Tensor
        For each method, [episodes, Q] int64 in 0..way-1, from
        :func:`lwfm.evaluation.episodes.run_episodes`.
    query_classes : Tensor
        [episodes, Q] int64: index into ``classes`` of each query, shot-major.
    classes : sequence of str
        Names of all classes of the split.
    way, shot : int
        Of the episodes.

    Returns
    -------
    list of MethodResult
        One for each method, in the order of ``answers``.
    """
    truth = episode_labels(way, query_classes.shape[1] // way)  # [Q]
    baseline = (answers[BASELINE] == truth).double().mean(1)
    results = []
    for method, answer in answers.items():
        accuracies = (answer == truth).double().mean(1)
        mean, interval = mean_and_interval(accuracies.tolist())
        difference, difference_interval = mean_and_interval((accuracies - baseline).tolist())
        # The first `way` queries of an episode are one of each of its classes, in the order of the labels.
        counts = count_confusions(query_classes, query_classes[:, :way].gather(1, answer), len(classes))
        results.append(
            MethodResult(
                method=method,
                way=way,
                shot=shot,
                accuracy=mean,
                interval=interval,
                difference=difference,
                difference_interval=difference_interval,
                class_accuracy={
                    name: float(counts[i, i] / counts[i].sum())
                    for i, name in enumerate(classes)
                    if counts[i].sum() > 0
                },
                episode_accuracy=tuple(accuracies.tolist()),
                bootstrap=bootstrap_interval(accuracies.tolist()),
                difference_bootstrap=bootstrap_interval((accuracies - baseline).tolist()),
                confusion=_named(counts, classes),
            )
        )
    return results


def count_confusions(truth: Tensor, answers: Tensor, classes: int) -> Tensor:
    """Count the queries of class i (row) that were classified as class j (column).

    Parameters
    ----------
    truth, answers : Tensor
        Of one shape, int64 in 0..classes-1 (not checked): the class of each query, and the one it was
        classified as.
    classes : int
        Number of classes.

    Returns
    -------
    Tensor
        [classes, classes] int64.

    Examples
    --------
    >>> count_confusions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    pairs = (truth * classes + answers).flatten()
    return torch.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _named(counts: Tensor, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the nonzero counts by class names."""
    return {
        name: {classes[j]: int(row[j]) for j in row.nonzero().flatten().tolist()}
        for name, row in zip(classes, counts, strict=True)
        if row.sum() > 0
    }
