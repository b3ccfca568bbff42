"""Scores of binary decisions, of classes, of several labels and of retrieval; differences over seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pytorch_metric_learning.distances import LpDistance
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from lwfm.errors import UserError
from lwfm.evaluation.statistics import bootstrap_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt
    from pytorch_metric_learning.distances import BaseDistance
    from torch import Tensor

Scores = dict[str, float]  # by name, as fractions


def binary_scores(truth: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_]) -> Scores:
    """Compute accuracy, sensitivity, specificity, positive predictive value (PPV) and F1.

    Parameters
    ----------
    truth, found : ndarray
        [N] bool: what is positive, and what was taken for it.

    Returns
    -------
    dict
        A ratio without any case (such as the PPV of no finding) is 0.

    Examples
    --------
    >>> binary_scores(np.array([True, True, False, False]), np.array([True, False, False, False]))["F1"]
    0.6666666666666666
    """
    hits, misses = int((truth & found).sum()), int((truth & ~found).sum())
    false, right = int((~truth & found).sum()), int((~truth & ~found).sum())
    return {
        "accuracy": _ratio(hits + right, len(truth)),
        "sensitivity": _ratio(hits, hits + misses),
        "specificity": _ratio(right, right + false),
        "PPV": _ratio(hits, hits + false),
        "F1": _ratio(2 * hits, 2 * hits + false + misses),
    }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def class_scores(truth: npt.NDArray[Any], found: npt.NDArray[Any], frequent: int = 10) -> Scores:
    """Compute the accuracy, and the macro-F1 over all classes and over those that are frequent enough.

    Parameters
    ----------
    truth, found : ndarray
        [N] labels.
    frequent : int
        Rows of a class from which its F1 counts in the second mean: that of three rows is chance.

    Examples
    --------
    >>> class_scores(np.array(["a", "b"]), np.array(["a", "a"]), frequent=1)["accuracy"]
    0.5
    """
    names, counts = np.unique(truth, return_counts=True)
    each = f1_score(truth, found, labels=names, average=None, zero_division=0)
    enough = counts >= frequent
    return {
        "macro-F1": float(each.mean()),
        f"macro-F1 of {frequent}+": float(each[enough].mean()) if enough.any() else 0.0,
        "accuracy": float((truth == found).mean()),
    }


def auroc(positive: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]) -> float:
    """Compute the area under the ROC curve of telling positive rows by large values [N].

    Examples
    --------
    >>> auroc(np.array([True, False]), np.array([0.9, 0.2]))
    1.0
    """
    return float(roc_auc_score(positive, values))


def average_precision(positive: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]) -> float:
    """Compute the area under the precision-recall curve (AUPRC) of telling positive rows by large values [N].

    Examples
    --------
    >>> average_precision(np.array([True, False]), np.array([0.9, 0.2]))
    1.0
    """
    return float(average_precision_score(positive, values))


def label_aurocs(truth: npt.NDArray[np.bool_], values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Compute the AUROC [C] of each label from values [N, C]; NaN for a label that all rows or none have.

    Examples
    --------
    >>> label_aurocs(np.array([[True, False], [False, False]]), np.array([[0.9, 0.1], [0.2, 0.3]])).tolist()
    [1.0, nan]
    """
    mixed = np.asarray(truth.any(0) & ~truth.all(0))
    each = [auroc(truth[:, i], values[:, i]) if mixed[i] else float("nan") for i in range(truth.shape[1])]
    return np.array(each)


def defined_mean(values: npt.NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; chance (0.5) where there is none.

    Examples
    --------
    >>> defined_mean(np.array([0.75, np.nan])), defined_mean(np.array([np.nan]))
    (0.75, 0.5)
    """
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.5


def multi_label_scores(
    truth: npt.NDArray[np.bool_], probabilities: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> Scores:
    """Compute the mean AUROC over labels, over the rare third of them, and the mean Brier score.

    Labels that all rows or none have are left out of the means.

    Parameters
    ----------
    truth : ndarray
        [N, C] bool.
    probabilities : ndarray
        [N, C].
    counts : ndarray
        [C] training rows of each label, by which the rare third is chosen.

    Examples
    --------
    >>> truth = np.array([[True, False, True], [False, True, False]])
    >>> multi_label_scores(truth, truth * 0.5 + 0.25, np.array([9, 2, 5]))
    {'mean AUC': 1.0, 'rare third AUC': 1.0, 'Brier': 0.0625}
    """
    each = label_aurocs(truth, probabilities)
    rare = np.argsort(counts, kind="stable")[: max(len(counts) // 3, 1)]
    return {
        "mean AUC": defined_mean(each),
        "rare third AUC": defined_mean(each[rare]),
        "Brier": float(((probabilities - truth) ** 2).mean()),
    }


def zero_shot_scores(
    truth: npt.NDArray[np.bool_],
    values: npt.NDArray[Any],
    unseen: npt.NDArray[np.bool_],
    ranks: Sequence[int] = (2, 3),
) -> Scores:
    """Compute the harmonic mean of the mean AUROC of seen and unseen labels, both, and P, R and F1 at k.

    Precision and recall at k are those of the k labels with the largest values of each row, seen and unseen,
    over all rows that have a label.

    Parameters
    ----------
    truth, values : ndarray
        [N, C] bool, and larger for likelier labels.
    unseen : ndarray
        [C] bool.
    ranks : sequence of int
        The k.

    Examples
    --------
    >>> truth = np.array([[True, False], [False, True]])
    >>> zero_shot_scores(truth, truth * 1.0, np.array([True, False]), ranks=(1,))["harmonic AUROC"]
    1.0
    """
    each = label_aurocs(truth, values)
    seen, new = defined_mean(each[~unseen]), defined_mean(each[unseen])
    found: Scores = {
        "harmonic AUROC": 2 * seen * new / max(seen + new, 1e-9),
        "seen AUROC": seen,
        "unseen AUROC": new,
    }
    rows = truth.any(1)
    order = np.argsort(-values[rows], axis=1, kind="stable")
    for k in ranks:
        hits = int(np.take_along_axis(truth[rows], order[:, :k], axis=1).sum())
        precision, recall = _ratio(hits, order[:, :k].size), _ratio(hits, int(truth.sum()))
        f1 = _ratio(2 * hits, order[:, :k].size + int(truth.sum()))
        found |= {f"P@{k}": precision, f"R@{k}": recall, f"F1@{k}": f1}
    return found


def retrieval_scores(
    order: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    ranks: Sequence[int] = (1, 4),
    *,
    gallery: npt.NDArray[np.int64] | None = None,
) -> Scores:
    """Compute mAP and Recall@k of rankings of a gallery, or of all other rows (leave-one-out).

    Parameters
    ----------
    order : ndarray
        [N, R]: for each row the gallery, or all other rows, the nearest first.
    labels : ndarray
        [N] classes. Rows whose class no other row, or none of the gallery, has are no queries.
    ranks : sequence of int
        The k: share of the queries with at least one of their class among the first k.
    gallery : ndarray, optional
        [R] classes; by default those of the rows themselves.

    Raises
    ------
    UserError
        Where no two rows have the same class.

    Examples
    --------
    >>> retrieval_scores(np.array([[1, 2], [0, 2], [0, 1]]), np.array([0, 0, 1]))
    {'mAP': 1.0, 'Recall@1': 1.0, 'Recall@4': 1.0}
    """
    relevant = (labels if gallery is None else gallery)[order] == labels[:, None]
    relevant = relevant[relevant.any(1)]
    if not len(relevant):
        raise UserError("no two images have the same class: there is nothing to retrieve")
    precision = relevant.cumsum(1) / np.arange(1, relevant.shape[1] + 1)
    average = (precision * relevant).sum(1) / relevant.sum(1)
    return {
        "mAP": float(average.mean()),
        **{f"Recall@{k}": float(relevant[:, :k].any(1).mean()) for k in ranks},
    }


def paired_difference(first: Sequence[float], second: Sequence[float]) -> dict[str, float | None]:
    """Return the mean of first minus second over seeds, and the limits of its 95 % bootstrap interval.

    With few seeds such an interval is too narrow rather than too wide. With one seed it is None.

    Examples
    --------
    >>> paired_difference([0.75, 0.75], [0.5, 0.5])
    {'mean': 0.25, 'low': 0.25, 'high': 0.25}
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    low, high = bootstrap_interval(differences) or (None, None)
    return {"mean": float(np.mean(differences)), "low": low, "high": high}


def rank_all(descriptors: Tensor, measure: BaseDistance, candidates: int) -> npt.NDArray[np.int64]:
    """Rank all others for each descriptor: by Euclidean distance, the first `candidates` by another one.

    Parameters
    ----------
    descriptors : Tensor
        [N, dim].
    measure : BaseDistance
        Ranks the candidates.
    candidates : int
        How many.

    Returns
    -------
    ndarray
        [N, N - 1] int64.
    """
    with torch.inference_mode():
        return rank(
            LpDistance()(descriptors),
            lambda keys: measure(descriptors).gather(1, keys),
            candidates,
            left_out=True,
        )


def rank(
    distances: Tensor,
    refine: Callable[[Tensor], Tensor] | None = None,
    candidates: int = 100,
    *,
    left_out: bool = False,
) -> npt.NDArray[np.int64]:
    """Rank a gallery for each query by distances, and its first candidates anew by other ones.

    Parameters
    ----------
    distances : Tensor
        [Q, R].
    refine : callable, optional
        Keys [Q, count] of the gallery to distances [Q, count].
    candidates : int
        How many are ranked anew.
    left_out : bool
        The queries are the gallery: each is left out of its own ranking.

    Returns
    -------
    ndarray
        [Q, R] int64, or [Q, R - 1]: the nearest first.

    Examples
    --------
    >>> rank(torch.tensor([[0.0, 3.0, 2.0]])).tolist()
    [[0, 2, 1]]
    """
    if left_out:
        distances = distances.clone().fill_diagonal_(torch.inf)
    order = distances.argsort(dim=1, stable=True)[:, : distances.shape[1] - left_out]
    if refine is None:
        return order.numpy()
    first = order[:, :candidates]
    again = refine(first).argsort(dim=1, stable=True)
    return torch.cat([first.gather(1, again), order[:, candidates:]], dim=1).numpy()
