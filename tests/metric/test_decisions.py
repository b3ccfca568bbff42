"""The vote of neighbors is that of scikit-learn, to the bit where thresholds are compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from lwfm.errors import UserError
from lwfm.metric.decisions import (
    AnomalyScore,
    ClassVote,
    NeighborVote,
    PlattScaling,
    alarm_threshold,
    find_alarms,
)

if TYPE_CHECKING:
    from lwfm.metric.decisions import Weights


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [1, 5, 10, 22])
def test_shares_are_those_of_scikit_learn(k: int, weights: Weights) -> None:
    random = np.random.default_rng(0)
    references, codes = random.random((200, 4), np.float32), random.integers(3, size=200)
    queries = np.concatenate([random.random((50, 4), np.float32), references[:5]])
    expected = KNeighborsClassifier(k, weights=weights).fit(references, codes).predict_proba(queries)
    actual = NeighborVote(k, weights).fit(references, codes, 3).probabilities(queries)
    if weights == "uniform":
        np.testing.assert_array_equal(actual, expected)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("weights", ["uniform", "distance"])
@pytest.mark.parametrize("k", [3, 7, 10, 15])
def test_unanimous_neighbors_have_the_whole_vote(k: int, weights: Weights) -> None:
    references = np.random.default_rng(0).random((40, 3), np.float32)
    vote = NeighborVote(k, weights).fit(references, np.ones(40, np.int64), 2)
    np.testing.assert_array_equal(vote.probabilities(references + 0.1), np.tile([0.0, 1.0], (40, 1)))


def test_a_class_is_as_far_as_its_nearest_references() -> None:
    random = np.random.default_rng(0)
    references, codes = random.random((40, 4), np.float32), np.r_[np.zeros(38, np.int64), 1, 1]
    queries = random.random((20, 4), np.float32)
    every = np.linalg.norm(queries[:, None] - references, axis=2)
    expected = [np.sort(every[:, codes == code], axis=1)[:, :6].mean(1) for code in (0, 1)]
    shares, distances = ClassVote(6).fit(references, codes, 2).compare(queries)
    np.testing.assert_allclose(distances, np.min(expected, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(shares.argmax(1), np.argmin(expected, axis=0))
    np.testing.assert_allclose(shares.sum(1), 1)


def test_a_class_of_two_references_can_win() -> None:
    """Of the 6 nearest, 4 are of the frequent class, which is farther: the vote of neighbors cannot know."""
    references = np.array([[0.0], [0.0], *[[3.0]] * 10], np.float32)
    codes = np.r_[0, 0, np.ones(10, np.int64)]
    query = np.array([[1.0]], np.float32)
    assert NeighborVote(6).fit(references, codes, 2).probabilities(query).argmax() == 1
    assert ClassVote(6).fit(references, codes, 2).probabilities(query).argmax() == 0


def test_references_at_the_place_of_a_query_have_the_whole_share() -> None:
    vote = ClassVote(1).fit(np.eye(3, dtype=np.float32)[[0, 1, 1, 2]], np.array([0, 1, 2, 2]), 3)
    found = vote.probabilities(np.eye(3, dtype=np.float32)[:2])
    np.testing.assert_array_equal(found, [[1, 0, 0], [0, 0.5, 0.5]])


@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_the_usual_distance_keeps_its_share_of_the_references(kept: float) -> None:
    random = np.random.default_rng(0)
    references, codes = random.random((300, 4), np.float32), random.integers(3, size=300)
    limit = ClassVote(2).fit(references, codes, 3).usual_distance(kept)
    distances = []
    for row in range(300):
        others = np.arange(300) != row
        vote = ClassVote(2).fit(references[others], codes[others], 3)
        distances.append(vote.distances(references[row : row + 1])[0])
    assert (np.array(distances) <= limit + 1e-6).mean() == pytest.approx(kept, abs=0.01)


def test_the_usual_distance_needs_a_class_of_two() -> None:
    with pytest.raises(ValueError, match="a class of 3 has no reference"):
        ClassVote(2).fit(np.eye(2, dtype=np.float32), np.array([0, 1]), 3)
    alone = ClassVote(2).fit(np.eye(2, dtype=np.float32), np.array([0, 1]), 2)
    assert alone.usual_distance(0.9) == float("inf")
    with pytest.raises(UserError, match=r"must be in \(0, 1\], not 0"):
        alone.usual_distance(0)


def test_platt_scaling_finds_the_curve() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(-1, 0.5, (20_000, 3))
    true = 1 / (1 + np.exp(-(4 * scores + np.array([2.0, 0.0, 4.0]))))
    targets = (random.random(scores.shape) < true).astype(np.int64)
    scaling = PlattScaling().fit(scores, targets)
    np.testing.assert_allclose(scaling.probabilities(scores), true, atol=0.05)
    np.testing.assert_allclose(scaling.slopes, 4, rtol=0.1)


def test_rare_labels_have_their_share_and_keep_their_order() -> None:
    random = np.random.default_rng(0)
    scores, targets = random.normal(size=(300, 3)), np.zeros((300, 3), np.int64)
    targets[:, 0] = scores[:, 0] + random.normal(size=300) > 0.5
    targets[:4, 1] = 1
    targets[:, 2] = -1
    found = PlattScaling().fit(scores, targets).probabilities(np.c_[scores, scores[:, :1]])
    assert found[:, 1].mean() == pytest.approx(5 / 302)
    for column in range(4):
        np.testing.assert_array_equal(
            found[:, column].argsort(), np.c_[scores, scores[:, :1]][:, column].argsort()
        )


def test_scores_that_rank_the_wrong_way_keep_their_order() -> None:
    scores = np.linspace(-1, 1, 60)[:, None]
    found = PlattScaling().fit(scores, (scores < 0).astype(np.int64)).probabilities(scores)
    assert np.all(np.diff(found[:, 0]) > 0)
    assert found.mean() == pytest.approx(0.5)


def test_the_anomaly_score_is_error_and_distance_in_usual_units() -> None:
    random = np.random.default_rng(0)
    references = random.random((50, 5)).astype(np.float32)
    score = AnomalyScore(3, balance=2.0).fit(references)
    assert score.scores(references).mean() == pytest.approx(3, rel=1e-5)
    far = references[:1] + np.array([[5, 0, 0, 0, 0]], np.float32)
    wrong = references[:1] + np.array([[0, 0, 0, 3, 3]], np.float32)
    assert min(score.scores(far)[0], score.scores(wrong)[0]) > score.scores(references).max()
    alone = AnomalyScore(3, balance=0.0).fit(references)
    np.testing.assert_array_equal(alone.scores(far), alone.scores(references[:1]))


def test_unusual_windows_near_each_other_are_one_alarm() -> None:
    times, scores = np.arange(10.0), np.array([0, 2, 2, 0, 0, 2, 0, 0, 0, 2.0])
    assert find_alarms(times, scores, 1, hold=1) == [(1, 2), (5, 5), (9, 9)]
    assert find_alarms(times, scores, 1, hold=3) == [(1, 5), (9, 9)]
    assert find_alarms(times, scores, 2, hold=3) == []


@pytest.mark.parametrize("allowed", [0.5, 1, 3, 10])
def test_the_threshold_keeps_the_rate_and_none_lower_does(allowed: float) -> None:
    random = np.random.default_rng(1)
    parts = [(np.arange(300.0), random.random(300)) for _ in range(2)]
    threshold = alarm_threshold(parts, allowed, hold=1)

    def count(limit: float) -> int:
        return sum(len(find_alarms(*part, limit, 1)) for part in parts)

    assert count(threshold) <= allowed
    every = np.unique(np.concatenate([scores for _, scores in parts]))
    lower = every[every < threshold]
    assert count(lower[-1]) > allowed
