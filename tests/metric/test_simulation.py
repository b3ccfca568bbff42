"""Simulators: the same seed gives the same bits, and the physics shows."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lwfm.metric.data.scada import NORMAL, Series
from lwfm.metric.simulation.drifts import KINDS as DRIFTS
from lwfm.metric.simulation.drifts import inject_drifts
from lwfm.metric.simulation.turbine import CHANNELS, DAY, FAULT, KINDS, simulate_turbines


def digest(series: list[Series]) -> str:
    return hashlib.sha256(b"".join(each.values.tobytes() for each in series)).hexdigest()


def test_a_seed_repeats_turbines_to_the_bit() -> None:
    first = simulate_turbines(2, 12, seed=3, faults=1)
    assert digest(first) == digest(simulate_turbines(2, 12, seed=3, faults=1))
    assert digest(first) != digest(simulate_turbines(2, 12, seed=4, faults=1))


def test_healthy_turbines_follow_their_power_curve() -> None:
    (turbine,) = simulate_turbines(1, 60, seed=0)
    wind, power, _, pitch, _, gearbox, _, winding = turbine.values.T
    assert power.max() < 2100
    assert abs(power[wind < 2.5]).max() < 100
    assert np.median(power[(wind > 13) & (wind < 20)]) == pytest.approx(2000, rel=0.01)
    assert np.median(pitch[(wind > 6) & (wind < 9)]) == pytest.approx(0, abs=0.1)
    assert np.corrcoef(power, winding)[0, 1] > 0.8
    assert gearbox[power > 1900].mean() > gearbox[power < 100].mean() + 20


@pytest.mark.parametrize(
    ("kind", "channel", "sign"),
    [("cooling", 5, 1), ("friction", 6, 1), ("pitch", 1, -1), ("yaw", 1, -1), ("sensor", 7, -1)],
)
def test_a_fault_changes_its_channel(kind: str, channel: int, sign: int) -> None:
    series = [simulate_turbines(1, 30, seed=1, faults=2, kinds=[each])[0] for each in (kind, *KINDS)]
    faulty = next(each for each in series[1:] if kind not in each.kinds)  # the same weather and times
    mean = [each.values[series[0].kinds == kind, channel].mean() for each in (series[0], faulty)]
    assert (mean[0] - mean[1]) * sign > 0.2, CHANNELS[channel]


def test_faults_have_their_length_and_a_healthy_day_before() -> None:
    for turbine in simulate_turbines(3, 50, seed=2, faults=4):
        faulty = turbine.kinds != NORMAL
        assert faulty.sum() == 4 * FAULT
        assert not faulty[:DAY].any()
    with pytest.raises(ValueError, match="4 faults do not fit into 30 days"):
        simulate_turbines(1, 30, seed=2, faults=4)


@pytest.mark.parametrize("kind", DRIFTS)
def test_an_injected_drift_changes_one_channel_in_its_time(kind: str) -> None:
    values = np.random.default_rng(0).normal(size=(900, 3)).astype(np.float32)
    plain = Series("a", ("a", "b", "c"), np.arange(900.0), values, np.full(900, NORMAL))
    found = inject_drifts(plain, [kind], count=2, length=100, seed=1)
    again = inject_drifts(plain, [kind], count=2, length=100, seed=1)
    np.testing.assert_array_equal(found.values, again.values)
    changed = found.values != values
    assert (changed.sum(1) <= 1).all()
    assert not changed[found.kinds == NORMAL].any()
    assert changed[found.kinds == kind].sum() > 180
    np.testing.assert_array_equal(plain.values, values)
