"""Simulated impedance tomography of a chest, in which the part of the heart is known.

Voltages
    ``v(t) = v0 + J d(t)``, with v0 and the Jacobian J of pyEIT's finite elements: 16 electrodes, adjacent
    drive and measurement, a circular chest of conductivity 1 with lungs of 0.4 and a heart of 1.5. Changes
    are taken as small, so that parts add and the truth is exact.
Breathing
    Conductivity of the lungs changes by 0.15 times a wave of 0.2 to 0.32 breaths a second (drawn), whose rate
    drifts by an Ornstein-Uhlenbeck process of 5 %. Its harmonics 2 to 6 have amplitudes of 30, 15, 9, 6 and
    4 % with random phases: they reach the frequencies of the heart.
Heart
    A pulse of two Gaussians over the cycle, at 0.25 (width 0.08) and 0.55 (width 0.1, height 0.4). The rate,
    0.95 to 1.25 a second (drawn), follows breathing by 4 % and drifts by 3 %. Conductivity of the heart falls
    by 0.2, that of the lungs rises by 0.02, 0.15 s later.
Noise
    White, 40 to 60 dB (drawn) below the changes by breathing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.signal import lfilter

from lwfm.metric.data.eit import ELECTRODES, Recording

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_HARMONICS = np.array([1, 0.3, 0.15, 0.09, 0.06, 0.04])
_DELAY = 0.15


class Chest(NamedTuple):
    """A simulated person: breath held, breathing, and the part of the heart [T, 208] in the latter."""

    held: Recording
    breathing: Recording
    heart: npt.NDArray[np.float32]


def simulate_chest(seed: int, *, seconds: float = 90, held: float = 20, rate: float = 13) -> Chest:
    """Simulate one person; the same seed gives the same bits.

    Parameters
    ----------
    seed : int
        Of rates, waves and noise.
    seconds, held : float
        Length of breathing, and of the held breath before it.
    rate : float
        Frames a second.

    Examples
    --------
    >>> chest = simulate_chest(0, seconds=10, held=5)
    >>> chest.breathing.frames.shape, chest.held.frames.shape
    ((130, 208), (65, 208))
    """
    random = np.random.default_rng(seed)
    base, lungs, heart = _sensitivity()
    still, moving = round(held * rate), round(seconds * rate)
    breath_rate = random.uniform(0.2, 0.32) * (1 + 0.05 * _drift(moving, rate, 10, random))
    breath = 2 * np.pi * np.cumsum(breath_rate) / rate
    orders = np.arange(1, len(_HARMONICS) + 1)
    phases = random.uniform(0, 2 * np.pi, len(orders)) * (orders > 1)
    wave = np.r_[np.zeros(still), np.cos(orders * breath[:, None] + phases) @ _HARMONICS]
    rhythm = random.uniform(0.95, 1.25) * (1 + 0.03 * _drift(still + moving, rate, 5, random))
    rhythm *= 1 + 0.04 * np.r_[np.zeros(still), np.sin(breath)]
    cycle = np.cumsum(rhythm) / rate
    ventilation = -0.15 * wave[:, None] * lungs
    pulse = -0.2 * _pulse(cycle)[:, None] * heart + 0.02 * _pulse(cycle - _DELAY * rhythm)[:, None] * lungs
    pulse -= pulse.mean(0)
    level = 10 ** (-random.uniform(40, 60) / 20) * np.sqrt(np.square(ventilation[still:]).mean())
    frames = base + ventilation + pulse + level * random.standard_normal(pulse.shape)
    voltages = frames.astype(np.float32)
    return Chest(
        Recording("held", rate, voltages[:still]),
        Recording("breathing", rate, voltages[still:]),
        pulse[still:].astype(np.float32),
    )


def _pulse(cycle: Array) -> Array:
    place = cycle % 1
    waves: Array = np.exp(-(((place - 0.25) / 0.08) ** 2) / 2) + 0.4 * np.exp(
        -(((place - 0.55) / 0.1) ** 2) / 2
    )
    return waves


def _drift(samples: int, rate: float, constant: float, random: np.random.Generator) -> Array:
    """Return an Ornstein-Uhlenbeck process [samples] of standard deviation 1."""
    keep = np.exp(-1 / (rate * constant))
    noise = random.standard_normal(samples)
    noise[1:] *= np.sqrt(1 - keep**2)
    found: Array = lfilter([1], [1, -keep], noise)
    return found


@lru_cache(maxsize=1)
def _sensitivity() -> tuple[Array, Array, Array]:
    """Return the voltages [208] at rest, and their change by a unit change of lungs and of heart."""
    from pyeit import mesh  # the extra `eit`
    from pyeit.eit import protocol
    from pyeit.eit.fem import EITForward

    chest = mesh.create(ELECTRODES, h0=0.1)
    x, y = chest.node[chest.element].mean(1)[:, :2].T
    lungs = (((np.abs(x) - 0.45) / 0.3) ** 2 + ((y + 0.05) / 0.55) ** 2) < 1
    heart = (((x - 0.1) / 0.28) ** 2 + ((y - 0.45) / 0.25) ** 2) < 1
    lungs &= ~heart
    chest.perm = np.where(lungs, 0.4, np.where(heart, 1.5, 1.0))
    plan = protocol.create(ELECTRODES, dist_exc=1, step_meas=1, parser_meas="std")
    jacobian, base = EITForward(chest, plan).compute_jac()
    return base, jacobian[:, lungs].sum(1), jacobian[:, heart].sum(1)
