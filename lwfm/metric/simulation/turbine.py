"""A simulated wind turbine: ten-minute means of eight channels, healthy and with slow faults.

Wind
    Each day has a mean drawn from a Weibull distribution (shape 2, scale 8 m/s), joined linearly and
    multiplied by ``1 + 0.15 sin(2 pi (hour - 14) / 24)``; around it an Ornstein-Uhlenbeck process (time
    constant 1 h, standard deviation 12 % of the mean). Ambient temperature: 10 degrees, 5 over the day, and
    the same process with 4 degrees over 48 h.
Rotor
    Radius 40 m, air density 1.225 kg/m3, power ``0.5 rho pi R^2 v^3 Cp``, with Heier's [1]_ coefficient
    ``Cp = 0.5176 (116 / l - 0.4 b - 5) exp(-21 / l) + 0.0068 L``, ``1/l = 1/(L + 0.08 b) - 0.035/(b^3 + 1)``,
    tip-speed ratio L (8.1 where the speed of 0.8 to 1.9 rad/s allows) and pitch b. Electric power is 92 % of
    it, at most 2 MW: above that the pitch is raised, by bisection. The rotor turns from 3.5 to 25 m/s;
    otherwise the pitch is 90 degrees.
Heat
    ``C dT/dt = losses - G (T - ambient)``, solved exactly for each step. Time constants C/G: gearbox 3 h,
    bearing 1.5 h, winding 1 h. At equilibrium and full load losses raise the temperature by 45 degrees for
    the gearbox (80 % in proportion to power, 20 % to the square of the speed), 30 for the bearing (to the
    speed) and 70 for the winding (to the square of the power).
Faults
    Each is a ramp over 3 days that then stays for 3 days. ``cooling``: G of the gearbox falls by 35 %.
    ``friction``: bearing losses rise by 60 %. ``pitch``: the blades are 3 degrees from what is measured.
    ``yaw``: the rotor is turned by 20 degrees, so that wind counts by its cosine. ``sensor``: the sensor of
    the winding reads 12 degrees too low.
Noise of measurement
    Standard deviations: wind 0.3 m/s, power 15 kW, speed 0.01 rad/s, pitch 0.1 degrees, temperatures 0.5
    degrees.

.. [1] S. Heier, "Grid Integration of Wind Energy", 3rd edition, Wiley, 2014.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter

from lwfm.metric.data.scada import NORMAL, Series

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

CHANNELS = (
    "wind (m/s)", "power (kW)", "rotor (rad/s)", "pitch (deg)", "ambient (C)", "gearbox (C)", "bearing (C)",
    "winding (C)",
)  # fmt: skip
KINDS = ("cooling", "friction", "pitch", "yaw", "sensor")
DAY = 144
"""Samples of a day."""
RAMP, FAULT = 3 * DAY, 6 * DAY
"""Samples over which a fault grows, and those that it has in all."""
_STEP = 600.0
_RADIUS, _DENSITY, _RATED, _EFFICIENCY = 40.0, 1.225, 2000.0, 0.92
_NOISE = np.array([0.3, 15, 0.01, 0.1, 0.5, 0.5, 0.5, 0.5])
_START = 1.6e9


def simulate_turbines(
    units: int, days: int, seed: int, *, faults: int = 0, kinds: Sequence[str] = KINDS, prefix: str = "T"
) -> list[Series]:
    """Simulate turbines, each with some faults at random times that do not overlap.

    Parameters
    ----------
    units, days : int
        Turbines, and days of each.
    seed : int
        The same seed gives the same bits.
    faults : int
        Of each turbine; kinds are dealt in turn. A day at the start and four between faults are healthy.
    kinds : sequence of str
        Among :data:`KINDS`.
    prefix : str
        Of the names of the series.

    Examples
    --------
    >>> turbine = simulate_turbines(1, 10, seed=0, faults=1, kinds=["yaw"])[0]
    >>> turbine.values.shape, int((turbine.kinds == "yaw").sum())
    ((1440, 8), 864)
    """
    random = np.random.default_rng(seed)
    samples = days * DAY
    grown, labels = _faults(units, samples, faults, kinds, random)
    wind, ambient = _weather(units, samples, random)
    speed, pitch, power = _rotor(wind * np.cos(np.radians(20 * grown["yaw"])), wind, 3 * grown["pitch"])
    heat = _temperatures(power, speed, ambient, grown)
    heat[2] -= 12 * grown["sensor"]
    values = np.stack([wind, power, speed, pitch, ambient, *heat], axis=-1)
    values += _NOISE * random.standard_normal(values.shape)
    times = _START + _STEP * np.arange(samples, dtype=np.float64)
    return [
        Series(f"{prefix}{unit + 1}", CHANNELS, times, values[unit].astype(np.float32), labels[unit])
        for unit in range(units)
    ]


def _faults(
    units: int, samples: int, faults: int, kinds: Sequence[str], random: np.random.Generator
) -> tuple[dict[str, Array], npt.NDArray[np.str_]]:
    """Return how far each kind has grown, [units, samples] from 0 to 1, and the kind of each sample."""
    grown = {kind: np.zeros((units, samples)) for kind in KINDS}
    labels = np.full((units, samples), NORMAL, dtype="U16")
    free = samples - DAY - faults * (FAULT + 4 * DAY) + 4 * DAY
    if faults and free < 0:
        raise ValueError(f"{faults} faults do not fit into {samples // DAY} days")
    ramp = np.minimum(np.arange(FAULT) / RAMP, 1)
    for unit in range(units):
        starts = DAY + np.sort(random.integers(0, free + 1, faults)) + np.arange(faults) * (FAULT + 4 * DAY)
        for number, start in enumerate(starts):
            kind = kinds[(unit * faults + number) % len(kinds)]
            grown[kind][unit, start : start + FAULT] = ramp
            labels[unit, start : start + FAULT] = kind
    return grown, labels


def _weather(units: int, samples: int, random: np.random.Generator) -> tuple[Array, Array]:
    days = samples // DAY + 2
    means = 8 * random.weibull(2, (units, days)).clip(0.15)
    place = np.arange(samples) / DAY
    slow = np.stack([np.interp(place, np.arange(days), mean) for mean in means])
    diurnal = np.sin(2 * np.pi * (24 * place - 14) / 24)
    gusts = _ornstein_uhlenbeck(units, samples, 3600, random)
    wind = (slow * (1 + 0.15 * diurnal) * (1 + 0.12 * gusts)).clip(0)
    ambient = 10 + 5 * np.sin(2 * np.pi * (24 * place - 9) / 24)
    return wind, ambient + 4 * _ornstein_uhlenbeck(units, samples, 48 * 3600, random)


def _ornstein_uhlenbeck(units: int, samples: int, constant: float, random: np.random.Generator) -> Array:
    """Return a stationary process [units, samples] of standard deviation 1."""
    keep = np.exp(-_STEP / constant)
    noise = random.standard_normal((units, samples))
    noise[:, 1:] *= np.sqrt(1 - keep**2)
    found: Array = lfilter([1], [1, -keep], noise, axis=1)
    return found


def _coefficient(ratio: Array, pitch: Array) -> Array:
    inverse = 1 / (ratio + 0.08 * pitch) - 0.035 / (pitch**3 + 1)
    return (0.5176 * (116 * inverse - 0.4 * pitch - 5) * np.exp(-21 * inverse) + 0.0068 * ratio).clip(0)


def _rotor(felt: Array, wind: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Return speed (rad/s), measured pitch (degrees) and power (kW) for the wind that the rotor feels."""
    on = (wind > 3.5) & (wind < 25)
    speed = np.where(on, (8.1 * felt / _RADIUS).clip(0.8, 1.9), 0)
    ratio = speed * _RADIUS / felt.clip(1)
    available = _EFFICIENCY * 0.5 * _DENSITY * np.pi * _RADIUS**2 * felt**3 / 1000

    def power(pitch: Array) -> Array:
        return np.where(on, available * _coefficient(ratio.clip(0.5), pitch), 0)

    low, high = np.zeros_like(wind), np.full_like(wind, 35.0)
    for _ in range(25):
        middle = (low + high) / 2
        above = power(middle + bias) > _RATED
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    pitch = np.where(power(bias) > _RATED, high, 0)
    return speed, np.where(on, pitch, 90.0), power(pitch + bias).clip(None, _RATED)


def _temperatures(power: Array, speed: Array, ambient: Array, grown: dict[str, Array]) -> Array:
    """Return the temperatures [3, units, samples] of gearbox, bearing and winding."""
    share, turn = power / _RATED, speed / 1.9
    rise = np.stack(
        [
            45 * (0.8 * share + 0.2 * turn**2),
            30 * turn * (1 + 0.6 * grown["friction"]),
            70 * share**2,
        ]
    )
    conductance = np.stack([1 - 0.35 * grown["cooling"], np.ones_like(share), np.ones_like(share)])
    constants = np.array([3, 1.5, 1])[:, None, None] * 3600
    settled = ambient + rise / conductance
    keep = np.exp(-_STEP * conductance / constants)
    found = np.empty_like(settled)
    state = settled[..., 0]
    for sample in range(settled.shape[-1]):
        state = settled[..., sample] + (state - settled[..., sample]) * keep[..., sample]
        found[..., sample] = state
    return found
