"""The vote of neighbors is that of scikit-learn, to the bit where thresholds are compared with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from lwfm.metric.decisions import NeighborVote

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
