"""Simulated chest films: the same seed repeats, labels are as common as real ones, findings are in place."""

from __future__ import annotations

import numpy as np
import pytest

from lwfm.metric.simulation.chest_xray import (
    COUNTS,
    FINDINGS,
    _draw_labels,
    _finding_shapes,
    simulate_films,
    simulated_vectors,
)


def test_the_same_seed_repeats_to_the_bit() -> None:
    first, again, other = (simulate_films(300, seed, size=16) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.targets, again.targets)
    assert not np.array_equal(first.images, other.images)
    assert first.images.dtype == np.float32
    assert 0 <= first.images.min() < 0.1
    assert 0.5 < first.images.max() <= 1


def test_labels_are_as_common_as_in_the_real_table() -> None:
    labels = _draw_labels(100_000, np.random.default_rng(0))
    np.testing.assert_allclose(labels.mean(0), np.array(COUNTS) / 112_120, atol=0.005)
    assert (labels.sum(1) == 0).mean() == pytest.approx(60361 / 112_120, abs=0.01)


def test_the_shape_of_a_finding_is_affine_in_its_vector() -> None:
    vectors = simulated_vectors()
    shapes = _finding_shapes(vectors)
    centered = np.c_[vectors - vectors.mean(0), np.ones(14)]
    weights = np.linalg.lstsq(centered[:, :], shapes, rcond=None)[0]
    np.testing.assert_allclose(centered @ weights, shapes, atol=1e-4)
    np.testing.assert_allclose(_finding_shapes(vectors + 3), shapes, atol=1e-3)


@pytest.mark.parametrize("finding", [0, 3, 13], ids=lambda i: FINDINGS[i])
def test_a_finding_brightens_its_place(finding: int) -> None:
    one = np.eye(14, dtype=np.int64)[[finding]]
    without, films = (
        simulate_films(200, 0, table=table).images[:, 0].mean(0) for table in (np.zeros_like(one), one)
    )
    row, column = np.unravel_index((films - without).argmax(), films.shape)
    x, y = ((np.array([column, row]) + 0.5) / 32 - 0.5) * 32
    expected = _finding_shapes(simulated_vectors())[finding, :2]
    assert np.hypot(*(np.array([x, y]) - expected)) < 2.5


def test_lungs_are_darker_than_the_heart_and_air_is_black() -> None:
    film = simulate_films(50, 0, table=np.zeros((1, 14), np.int64)).images[:, 0].mean(0)
    assert film[14, 9] < film[20, 18] - 0.1
    assert film[2, 0] < 0.01
