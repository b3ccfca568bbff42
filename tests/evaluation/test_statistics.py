"""Intervals and the paired test against SciPy and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lwfm.evaluation.statistics import bootstrap_interval, mean_and_interval, paired_test


def accuracies(seed: int, episodes: int, rate: float = 0.6) -> list[float]:
    values: list[float] = (np.random.default_rng(seed).binomial(75, rate, size=episodes) / 75).tolist()
    return values


def test_mean_and_interval_covers_the_truth() -> None:
    """Of many samples of 100, about 95 % of the intervals contain the true mean."""
    covered = 0
    for seed in range(500):
        mean, interval = mean_and_interval(accuracies(seed, 100))
        covered += abs(mean - 0.6) <= (interval or 0)
    assert 0.92 < covered / 500 < 0.98


def test_bootstrap_interval_covers_the_truth() -> None:
    covered = 0
    for seed in range(200):
        low, high = bootstrap_interval(accuracies(seed, 100)) or (1, 0)
        covered += low <= 0.6 <= high
    assert 0.90 < covered / 200 < 0.99


def test_bootstrap_agrees_with_drawing_the_episodes_one_by_one() -> None:
    values = accuracies(3, 300)
    ours = bootstrap_interval(values)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx((theirs.low, theirs.high), abs=3e-4)
    mean, interval = mean_and_interval(values)
    assert ours == pytest.approx((mean - (interval or 0), mean + (interval or 0)), abs=1e-3)


def test_bootstrap_repeats_and_depends_on_its_seed() -> None:
    values = accuracies(0, 500)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


def test_paired_test_against_scipy() -> None:
    first, second = accuracies(0, 2000), accuracies(1, 2000, rate=0.598)
    test = paired_test(first, second)
    expected = scipy.stats.ttest_rel(first, second)
    assert test.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert test.p_value == pytest.approx(expected.pvalue, rel=0.01)
    low, high = expected.confidence_interval(0.95)
    assert test.interval == pytest.approx((high - low) / 2, rel=0.01)


def test_pairing_shows_what_two_intervals_hide() -> None:
    random = np.random.default_rng(0)
    second = random.normal(0.6, 0.1, size=400)  # episodes differ far more than the two methods do
    test = paired_test((second + 0.005 + random.normal(0, 0.01, size=400)).tolist(), second.tolist())
    interval = mean_and_interval(second.tolist())[1]
    assert interval is not None
    assert interval > 0.009
    assert test.p_value is not None
    assert test.p_value < 1e-6


@given(st.lists(st.integers(0, 75), min_size=2, max_size=30))
def test_equal_results_do_not_differ(hits: list[int]) -> None:
    values = [hit / 75 for hit in hits]
    test = paired_test(values, list(values))
    assert (test.difference, test.p_value, test.bootstrap) == (0.0, 1.0, (0.0, 0.0))


def test_edges() -> None:
    single = paired_test([0.5], [0.25])
    assert (single.difference, single.interval, single.bootstrap, single.p_value) == (0.25, None, None, None)
    constant = paired_test([0.5, 0.75], [0.25, 0.5])
    assert constant.p_value == 0.0
    with pytest.raises(ValueError, match="zip"):
        paired_test([0.5], [0.5, 0.5])
