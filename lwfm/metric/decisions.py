"""Decisions: votes of the nearest neighbors and how far they are, and probabilities of several labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from lwfm._common.progress import progress
from lwfm._common.ranges import check_counts, check_positive
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

Weights = Literal["uniform", "distance"]
UNKNOWN = "Unknown"
"""Answer for what is unlike everything known."""
_AT_ONCE, _ROWS = 4096, 1024
_ENOUGH = 10
_SHARPNESS = 16
"""Power of :class:`ClassVote`, by which shares of cells of another protocol were likeliest."""


class Vote(ABC):
    """What tells classes by references: the shares of a vote, and how far rows are from all references."""

    @abstractmethod
    def compare(
        self, embeddings: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return :meth:`probabilities` and :meth:`distances` from one search."""

    def probabilities(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the share of the vote [N, classes] that each class gets; each row sums to 1."""
        return self.compare(embeddings)[0]

    def distances(self, embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the distance [N] to the references that count: large for what is unlike all of them."""
        return self.compare(embeddings)[1]


class NeighborVote(Vote):
    """Vote of the k nearest references, found by scikit-learn.

    Parameters
    ----------
    k : int
        Neighbors that vote; all, where there are fewer references.
    weights : {"uniform", "distance"}
        Equal votes, or votes in proportion to 1 / distance.

    Examples
    --------
    >>> vote = NeighborVote(1).fit(np.eye(2, dtype=np.float32), np.array([0, 1]), 2)
    >>> vote.probabilities(np.array([[0.9, 0.1]], np.float32)).tolist()
    [[1.0, 0.0]]
    """

    def __init__(self, k: int = 5, weights: Weights = "uniform") -> None:
        check_counts(k=k)
        self.k, self.weights = k, weights

    def fit(
        self, references: npt.NDArray[np.float32], codes: npt.NDArray[np.int64], classes: int
    ) -> NeighborVote:
        """Store references [R, dim] and their classes [R], numbers below `classes`."""
        self.references, self.codes, self.classes = references, codes, classes
        k = min(self.k, len(references))
        self._knn: Any = NearestNeighbors(n_neighbors=k).fit(references)
        return self

    def compare(
        self, embeddings: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the shares, and the mean distance [N] to the k nearest references, from one search."""
        shares = np.zeros((len(embeddings), self.classes))
        means = np.zeros(len(embeddings))
        for start in progress(range(0, len(embeddings), _AT_ONCE), "comparing", "batch"):
            rows = slice(start, start + _AT_ONCE)
            distances, neighbors = self._knn.kneighbors(embeddings[rows])
            means[rows] = distances.mean(1)
            votes = self._votes(distances)
            np.add.at(shares[rows], (np.arange(len(votes))[:, None], self.codes[neighbors]), votes)
        # Divided once: sums of parts of a vote would miss a threshold that they reach.
        return shares / shares.sum(1, keepdims=True), means

    def _votes(self, distances: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the votes [N, k] of neighbors; those at distance 0 outvote others."""
        if self.weights == "uniform":
            return np.ones(distances.shape)
        equal = distances == 0
        return np.where(equal.any(1, keepdims=True), equal, 1 / np.where(equal, 1, distances))

    def usual_distance(self, kept: float) -> float:
        """Return the distance within which a share `kept` of the references lies from the other references.

        Raises
        ------
        UserError
            For a share that is not between 0 and 1.
        """
        _check_kept(kept)
        if len(self.references) < 2:
            return float("inf")
        k = min(self.k, len(self.references) - 1)
        left_out = self._knn.kneighbors(n_neighbors=k)[0].mean(1)
        return float(np.quantile(left_out, kept))


class ClassVote(Vote):
    """Nearness of each class by its nearest references, whose number does not depend on how frequent it is.

    The distance of a class is the mean distance of its k nearest references, or of all where it has fewer:
    a class of two references can win, which a vote of six neighbors hardly lets it. Shares are in proportion
    to ``distance ** -16``.

    Parameters
    ----------
    k : int
        References of each class that count.

    Examples
    --------
    >>> vote = ClassVote(2).fit(np.array([[0.0], [1.0], [5.0]], np.float32), np.array([0, 0, 1]), 2)
    >>> vote.compare(np.array([[4.0]], np.float32))[0].round(3).tolist()
    [[0.0, 1.0]]
    """

    def __init__(self, k: int = 6) -> None:
        check_counts(k=k)
        self.k = k

    def fit(
        self, references: npt.NDArray[np.float32], codes: npt.NDArray[np.int64], classes: int
    ) -> ClassVote:
        """Store references [R, dim] and their classes [R], numbers below `classes`, each with a reference."""
        self.references, self.codes, self.classes = references, codes, classes
        self._members = [torch.as_tensor(np.flatnonzero(codes == code)) for code in range(classes)]
        if not all(map(len, self._members)):
            raise ValueError(f"a class of {classes} has no reference")
        return self

    def compare(
        self, embeddings: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the shares, and the distance [N] of the nearest class, from one search."""
        distances = self._class_distances(embeddings)
        nearest = distances.min(1)
        ratios = nearest[:, None] / np.where(distances == 0, 1, distances)
        votes = np.where(distances == nearest[:, None], 1, ratios**_SHARPNESS)
        return votes / votes.sum(1, keepdims=True), nearest

    def usual_distance(self, kept: float) -> float:
        """Return the distance within which a share `kept` of the references lies from the nearest class.

        Each reference is left out of its own class, and one that is alone in it is not counted.

        Raises
        ------
        UserError
            For a share that is not between 0 and 1.
        """
        _check_kept(kept)
        distances = self._class_distances(self.references, left_out=True)
        counted = np.isfinite(distances[np.arange(len(distances)), self.codes])
        if not counted.any():
            return float("inf")
        return float(np.quantile(distances[counted].min(1), kept))

    def _class_distances(
        self, embeddings: npt.NDArray[np.float32], *, left_out: bool = False
    ) -> npt.NDArray[np.float64]:
        """Return the distance [N, classes] of each class; infinite for one that has nothing but the row.

        In float32: scikit-learn's neighbors compute in float64, which takes three times as long.

        Parameters
        ----------
        embeddings : ndarray
            [N, dim].
        left_out : bool
            The embeddings are the references: each is left out of its own class.
        """
        references = torch.as_tensor(self.references)
        found = np.zeros((len(embeddings), self.classes))
        for start in progress(range(0, len(embeddings), _ROWS), "comparing", "batch"):
            rows = slice(start, start + _ROWS)
            every = torch.cdist(torch.as_tensor(embeddings[rows]), references)
            if left_out:
                places = torch.arange(len(every))
                every[places, start + places] = torch.inf
            for code, members in enumerate(self._members):
                nearest = every[:, members].topk(min(self.k, len(members)), dim=1, largest=False).values
                counts = nearest.isfinite().sum(1)
                sums = nearest.where(nearest.isfinite(), 0).sum(1)
                found[rows, code] = torch.where(counts > 0, sums / counts, torch.inf).numpy()
        return found


def _check_kept(kept: float) -> None:
    if not 0 < kept <= 1:
        raise UserError(f"the share of references to keep must be in (0, 1], not {kept}")


class PlattScaling:
    """Probabilities of several labels from scores, by one logistic curve a label [1]_.

    Curves are fitted to rows that training did not see, with Platt's smoothed targets. A label with fewer
    than ten positive or ten negative rows, or whose scores rank those rows no better than chance, gets the
    slope of all labels together and the offset by which its mean probability is its share of the rows; one
    without any row the curve of all together.

    References
    ----------
    .. [1] J. Platt, "Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized
       Likelihood Methods", Advances in Large Margin Classifiers, 1999.

    Examples
    --------
    >>> scores, targets = np.linspace(-1, 1, 40)[:, None], np.arange(40)[:, None] >= 20
    >>> PlattScaling().fit(scores, targets).probabilities(np.array([[-1.0], [1.0]])).round(1).tolist()
    [[0.0], [1.0]]
    """

    def fit(self, scores: npt.NDArray[Any], targets: npt.NDArray[Any]) -> PlattScaling:
        """Fit the curves to scores [N, C] and targets [N, C]: 1 positive, 0 negative, -1 not known."""
        known = targets >= 0
        together = scores[known], targets[known] > 0
        slope = (_logistic(*together) or (1.0, 0.0))[0]
        self.pooled = slope, _offset(*together, slope)
        curves = []
        for column in range(targets.shape[1]):
            own = scores[known[:, column], column], targets[known[:, column], column] > 0
            enough = min(own[1].sum(), (~own[1]).sum()) >= _ENOUGH
            curve = _logistic(*own) if enough else None
            curves.append(curve or ((slope, _offset(*own, slope)) if len(own[0]) else self.pooled))
        self.slopes, self.offsets = np.array(curves).T
        counts = known.sum(0)
        shares = [_share(targets[known[:, i], i] > 0) for i in range(len(counts))]
        self.share = _share(together[1])
        self.shares = np.where(counts > 0, shares, self.share)
        return self

    def above_share(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """Return where a probability [N, C] is larger than the share of the fitted rows with that label."""
        further = [self.share] * (probabilities.shape[1] - len(self.shares))
        return np.asarray(probabilities > np.append(self.shares, further))

    def probabilities(self, scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the probability [N, C] of each label; columns beyond those fitted get the pooled curve."""
        further = scores.shape[1] - len(self.slopes)
        slopes = np.append(self.slopes, [self.pooled[0]] * further)
        offsets = np.append(self.offsets, [self.pooled[1]] * further)
        return np.asarray(expit(slopes * scores + offsets), dtype=np.float64)


def _logistic(scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_]) -> tuple[float, float] | None:
    """Return the slope and offset of scores [N] and targets [N]; None unless the slope is positive."""
    count = int(positive.sum())
    if count in (0, len(positive)):
        return None
    likely = np.where(positive, (count + 1) / (count + 2), 1 / (len(positive) - count + 2))
    scale = float(scores.std()) or 1.0
    column = np.concatenate([scores, scores])[:, None] / scale
    both = np.repeat([1, 0], len(scores))
    curve: Any = LogisticRegression(C=1e3).fit(column, both, np.concatenate([likely, 1 - likely]))
    slope = float(curve.coef_[0, 0]) / scale
    return (slope, float(curve.intercept_[0])) if slope > 0 else None


def _share(positive: npt.NDArray[np.bool_]) -> float:
    """Return the share of positive rows [N], smoothed as Platt's targets are."""
    return float((positive.sum() + 1) / (len(positive) + 2))


def _offset(scores: npt.NDArray[Any], positive: npt.NDArray[np.bool_], slope: float) -> float:
    """Return the offset of a curve by which the mean probability of scores [N] is the smoothed share."""
    limit = 40 + slope * float(np.abs(scores).max(initial=0))
    return float(
        brentq(lambda offset: expit(slope * scores + offset).mean() - _share(positive), -limit, limit)
    )


class AnomalyScore:
    """How unlike normal references a row is: its reconstruction error plus its distance to their center.

    Both are in units of their mean over the references, so that a usual row has a score near 1 + `balance`.

    Parameters
    ----------
    dim : int
        Rows [N, dim + C] begin with the embedding; the errors of C channels follow.
    balance : float
        Weight of the distance; 0 leaves the error alone.

    Examples
    --------
    >>> normal = np.array([[1.0, 0.5], [-1.0, 0.5]], np.float32)
    >>> AnomalyScore(1).fit(normal).scores(np.array([[3.0, 1.0]], np.float32)).tolist()
    [5.0]
    """

    def __init__(self, dim: int, balance: float = 1.0) -> None:
        self.dim, self.balance = dim, balance

    def fit(self, references: npt.NDArray[np.float32]) -> AnomalyScore:
        """Store normal references [R, dim + C]."""
        self.references = references
        self.codes = np.zeros(len(references), dtype=np.int64)
        self.center_ = references[:, : self.dim].mean(0)
        self._errors = max(float(references[:, self.dim :].sum(1).mean()), 1e-12)
        self._distances = max(float(self._from_center(references).mean()), 1e-12)
        return self

    def _from_center(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        distances: npt.NDArray[np.float64] = np.linalg.norm(rows[:, : self.dim] - self.center_, axis=1)
        return distances.astype(np.float64)

    def scores(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Return the scores [N] of rows [N, dim + C]."""
        errors = rows[:, self.dim :].sum(1, dtype=np.float64) / self._errors
        return np.asarray(errors + self.balance * self._from_center(rows) / self._distances)


class Alarm(NamedTuple):
    """An alarm: the first and last of its windows, as indices."""

    first: int
    last: int


def find_alarms(
    times: npt.NDArray[np.float64], scores: npt.NDArray[np.float64], threshold: float, hold: float
) -> list[Alarm]:
    """Join windows whose score exceeds a threshold to alarms.

    Parameters
    ----------
    times, scores : ndarray
        [N] increasing times and scores of the windows of one series.
    threshold : float
        Scores above it are unusual.
    hold : float
        Unusual windows at most this far apart belong to one alarm.

    Examples
    --------
    >>> find_alarms(np.arange(6.0), np.array([0, 2, 0, 2, 0, 0.0]), 1, hold=2)
    [Alarm(first=1, last=3)]
    """
    unusual = np.flatnonzero(scores > threshold)
    if not len(unusual):
        return []
    cuts = np.flatnonzero(np.diff(times[unusual]) > hold) + 1
    return [Alarm(int(part[0]), int(part[-1])) for part in np.split(unusual, cuts)]


def alarm_threshold(
    parts: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]], allowed: float, hold: float
) -> float:
    """Return the smallest threshold with at most `allowed` alarms in normal series.

    Parameters
    ----------
    parts : sequence of tuple of ndarray
        Times and scores, [N] each, of each series.
    allowed : float
        Number of alarms in all of them; below 1, the largest score is the threshold.
    hold : float
        See :func:`find_alarms`.

    Examples
    --------
    >>> alarm_threshold([(np.arange(5.0), np.array([0, 3.0, 0, 2.0, 1.0]))], allowed=1, hold=1)
    2.0
    """
    check_positive(allowed=allowed)
    candidates = np.unique(np.concatenate([scores for _, scores in parts]))[::-1]
    # The number of alarms first grows as the threshold sinks; where alarms merge it falls again. Only the
    # first crossing counts: below it most of what is normal would be one long alarm.
    step = max(len(candidates) // 2000, 1)
    chosen = float(candidates[0])
    for threshold in candidates[::step]:
        if sum(len(find_alarms(*part, threshold, hold)) for part in parts) > allowed:
            break
        chosen = float(threshold)
    return chosen
