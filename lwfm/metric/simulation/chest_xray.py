"""Simulated chest films with findings that depend on the vectors of their labels.

**Simulated: shows the mechanism, not the published figure.**

A parallel beam crosses the body along z; x is the patient's right to left, y downward, in cm, the film 32 cm
wide. By Beer-Lambert the detector counts Poisson(N0 exp(-A)) photons, A the sum over all materials of their
attenuation mu times their length along the ray, and the film shows log(N0 / counts) / 5, from 0 to 1.
Scatter and the spectrum of the tube are left out.

* Thorax: ellipsoid of soft tissue, semi-axes 15, 23, 10 cm; mu 0.20 / cm (water at 60 keV).
* Lungs: ellipsoids at x = -7 and 7, y = -1, semi-axes 5.5, 9.5, 7.5 cm; mu 0.05 / cm.
* Heart: ellipsoid of soft tissue at x = 2, y = 4, 1 cm in front of the middle, semi-axes 5.5, 5, 4.5 cm; it
  displaces the lungs where it meets them. Lengths are exact chords.
* Ribs: nine pairs, 2.6 cm apart, which fall outward and back; 0.6 cm of bone, of width 0.45 cm (standard
  deviation), mu 0.37 / cm above that of tissue.
* A film varies in size (6 %), lung volume (8 %), size of the heart (10 %), position (0.6 cm) and N0 (60 000,
  log-normal, 30 %).
* A finding adds ``s exp(-r^2 / 2 b^2) (1 + 0.8 sin(2 pi f x'))`` to A: r the distance to its center, b its
  size, f the frequency of its texture along the diagonal x', and s its strength, log-normal with median
  1.2 and spread 0.35. The center varies by 0.8 cm.

**The premise, built in:** center, log b and f of a finding are a fixed affine function of its centered label
vector, namely of the four principal components of the vectors in units of their standard deviation:
x = 3.5 u1, y = 3.5 u2, log b = log 1.7 + 0.3 u3, f = 0.25 + 0.08 u4. Without such a relation between labels
and images nothing could be known of unseen labels; whether it holds in real films, a simulation cannot show.

**Labels:** shares of the 14 findings as counted in ChestX-ray14 [1]_. Findings occur together through one
common factor (a probit model with loading 0.41), chosen so that 54 % of the films have no finding, as there.
Rows can be drawn from a real table in place of that.

.. [1] X. Wang and others, "ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
   Weakly-Supervised Classification and Localization of Common Thorax Diseases", CVPR 2017; counts of the
   extended set of 112 120 films.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import norm

from lwfm._common.progress import progress
from lwfm._common.ranges import check_between, check_counts
from lwfm.metric.data.xray import FINDINGS as FINDINGS
from lwfm.metric.data.xray import Films

if TYPE_CHECKING:
    import numpy.typing as npt

    Values = npt.NDArray[np.float64]

COUNTS = (11559, 2776, 13317, 19894, 5782, 6331, 1431, 5302, 4667, 2303, 2516, 1686, 3385, 227)
"""Films of each of :data:`~lwfm.metric.data.xray.FINDINGS` among 112 120."""
_FILMS = 112_120
_LOADING = 0.41
_HALF_WIDTH = 16.0
_STRENGTH = 1.2
_TISSUE, _LUNG, _BONE = 0.20, 0.05, 0.37
_PHOTONS = 60_000.0
_AT_ONCE = 256


class _Anatomy(NamedTuple):
    """Factors and shifts of each film, [n, 1, 1]."""

    size: Values
    lungs: Values
    heart: Values
    x: Values
    y: Values
    photons: Values


def simulated_vectors() -> npt.NDArray[np.float32]:
    """Return label vectors [14, 64] as a language model might: a common direction, four traits, and noise.

    Always the same. Their cosines lie between 0.65 and 0.98; those of BioBERT lie between 0.64 and 0.89.

    Examples
    --------
    >>> simulated_vectors().shape
    (14, 64)
    """
    random = np.random.default_rng(14)
    traits, loadings = random.normal(size=(14, 4)), random.normal(size=(4, 64))
    common = 6.0 * random.normal(size=64)
    return np.asarray(common + traits @ loadings + 0.5 * random.normal(size=(14, 64)), dtype=np.float32)


def simulate_films(
    count: int,
    seed: int,
    *,
    size: int = 32,
    vectors: npt.NDArray[Any] | None = None,
    table: npt.NDArray[np.int64] | None = None,
) -> Films:
    """Simulate films of as many patients; the same seed repeats every bit.

    Parameters
    ----------
    count : int
        Number of films.
    seed : int
        Of labels, anatomy and photons.
    size : int
        Pixels of height and width, 16 to 1024.
    vectors : ndarray, optional
        [14, V] label vectors that the findings depend on; by default :func:`simulated_vectors`.
    table : ndarray, optional
        [M, 14] rows of labels to draw from, in place of the model above.

    Examples
    --------
    >>> films = simulate_films(4, 0, size=32)
    >>> films.images.shape, films.targets.shape
    ((4, 1, 32, 32), (4, 14))
    """
    check_counts(count=count, size=size)
    check_between(16, 1024, size=size)
    random = np.random.default_rng(seed)
    targets = _draw_labels(count, random) if table is None else table[random.integers(len(table), size=count)]
    shapes = _finding_shapes(simulated_vectors() if vectors is None else vectors)
    images = np.empty((count, 1, size, size), dtype=np.float32)
    for start in progress(range(0, count, _AT_ONCE), "simulating", "batch"):
        rows = slice(start, start + _AT_ONCE)
        images[rows, 0] = _project(targets[rows], shapes, size, random)
    names = np.array([f"simulated-{number:05d}.png" for number in range(count)])
    return Films(images, targets, FINDINGS, names, names, np.zeros(count, dtype=bool))


def _draw_labels(count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw labels [count, 14] of the probit model with one factor."""
    factor, own = random.normal(size=(count, 1)), random.normal(size=(count, len(COUNTS)))
    latent = _LOADING * factor + np.sqrt(1 - _LOADING**2) * own
    return np.asarray(latent > norm.isf(np.array(COUNTS) / _FILMS), dtype=np.int64)


def _finding_shapes(vectors: npt.NDArray[Any]) -> Values:
    """Return x, y, log b and f [C, 4] of findings, an affine function of their vectors [C, V]."""
    centered = np.asarray(vectors, dtype=np.float64) - np.mean(vectors, axis=0, dtype=np.float64)
    left, _, _ = np.linalg.svd(centered, full_matrices=False)
    traits = left[:, :4] * np.sign(left[np.abs(left[:, :4]).argmax(0), np.arange(4)])
    traits *= np.sqrt(len(traits))
    shapes: Values = np.array([0, 0, np.log(1.7), 0.25]) + traits * np.array([3.5, 3.5, 0.3, 0.08])
    return shapes


def _project(
    targets: npt.NDArray[np.int64], shapes: Values, size: int, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Return films [n, size, size] from 0 to 1 of label rows [n, C]."""
    count = len(targets)
    factors = random.normal(1, [[[[0.06]]], [[[0.08]]], [[[0.10]]]], (3, count, 1, 1))
    shifts = random.normal(0, 0.6, (2, count, 1, 1))
    photons = _PHOTONS * np.exp(random.normal(0, 0.3, (count, 1, 1)))
    anatomy = _Anatomy(factors[0], factors[1], factors[2], shifts[0], shifts[1], photons)
    edge = _HALF_WIDTH * (1 - 1 / size)
    places = np.linspace(-edge, edge, size)
    x = (places[None, None, :] - anatomy.x) / anatomy.size
    y = (places[None, :, None] - anatomy.y) / anatomy.size
    attenuation = anatomy.size * _body(x, y, anatomy)
    for finding, (center_x, center_y, log_size, frequency) in enumerate(shapes):
        rows = np.flatnonzero(targets[:, finding] == 1)
        strength = _STRENGTH * np.exp(random.normal(0, 0.35, (len(rows), 1, 1)))
        phase = random.uniform(0, 2 * np.pi, (len(rows), 1, 1))
        to_x = x[rows] - center_x - random.normal(0, 0.8, (len(rows), 1, 1))
        to_y = y[rows] - center_y - random.normal(0, 0.8, (len(rows), 1, 1))
        bump = np.exp(-(to_x**2 + to_y**2) / (2 * np.exp(2 * log_size)))
        wave = np.sin(2 * np.pi * frequency * (to_x + to_y) / np.sqrt(2) + phase)
        attenuation[rows] += strength * bump * (1 + 0.8 * wave)
    counts = np.maximum(random.poisson(anatomy.photons * np.exp(-attenuation)), 1)
    return np.clip(np.log(anatomy.photons / counts) / 5, 0, 1)


def _body(x: Values, y: Values, anatomy: _Anatomy) -> Values:
    """Return the attenuation [n, size, size] of thorax, lungs, heart and ribs at x and y in cm."""
    thorax = 2 * _half_chord(x, y, (15, 23, 10))
    heart = _half_chord(x - 2, y - 4, (5.5 * anatomy.heart, 5 * anatomy.heart, 4.5 * anatomy.heart))
    air = np.zeros_like(thorax)
    for side in (-7, 7):
        lung = _half_chord(x - side, y + 1, (5.5, 9.5 * anatomy.lungs, 7.5))
        # Both are intervals of z, the heart's around -1: what is in both is heart.
        common = np.minimum(lung, heart - 1) - np.maximum(-lung, -heart - 1)
        air += 2 * lung - np.where(heart > 0, np.clip(common, 0, None), 0)
    ribs = np.zeros_like(thorax)
    for pair in range(9):
        fall = -10.5 + 2.6 * pair + 0.018 * x**2  # front and back of a rib cross on the film
        for line in (fall, fall + 1.6 - 0.03 * x**2):
            ribs += 0.6 * np.exp(-((y - line) ** 2) / (2 * 0.45**2))
    return _TISSUE * thorax + (_LUNG - _TISSUE) * air + _BONE * ribs * (np.abs(x) < 13.5) * (thorax > 0)


def _half_chord(x: Values, y: Values, axes: tuple[Any, Any, Any]) -> Values:
    """Return half the length along z of ellipsoids with semi-axes (cm) around the origin."""
    a, b, c = axes
    return np.asarray(c * np.sqrt(np.clip(1 - (x / a) ** 2 - (y / b) ** 2, 0, None)))
