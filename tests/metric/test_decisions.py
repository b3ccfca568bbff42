"""The vote of neighbors is that of scikit-learn, to the bit where thresholds are compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from lwfm.metric.decisions import NeighborVote, PlattScaling

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
