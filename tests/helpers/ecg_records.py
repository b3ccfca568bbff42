"""WFDB records for tests: narrow normal beats, and wide premature ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

wfdb = pytest.importorskip("wfdb")


def write_record(
    folder: Path, name: str, *, seconds: int = 60, rate: int = 360, annotated: bool = True, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Write a record of the leads V5 and MLII; return the samples of its PVC. Every seventh beat is one."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    time = np.arange(seconds * rate) / rate
    signal = 0.02 * random.normal(size=len(time))
    places, symbols, now = [], [], 0.6
    for number in range(10_000):
        pvc = number % 7 == 6
        now -= 0.3 if pvc else 0.0  # premature
        if now > seconds - 0.6:
            break
        width = 0.05 if pvc else 0.012
        signal += (1.5 if pvc else 1.0) * np.exp(-(((time - now) / width) ** 2) / 2)
        signal += (-0.4 if pvc else 0.2) * np.exp(-(((time - now - 0.28) / 0.05) ** 2) / 2)
        places.append(round(now * rate))
        symbols.append("V" if pvc else "N")
        now += (1.1 if pvc else 0.8) + random.uniform(-0.03, 0.03)
    signals = np.c_[-signal, signal]
    wfdb.wrsamp(
        name, fs=rate, units=["mV", "mV"], sig_name=["V5", "MLII"], p_signal=signals, fmt=["16", "16"],
        write_dir=str(folder),
    )  # fmt: skip
    if annotated:
        samples = np.array([1, *places])
        wfdb.wrann(name, "atr", samples, symbol=["+", *symbols], aux_note=["(N", *[""] * len(places)],
                   fs=rate, write_dir=str(folder))  # fmt: skip
    pvc_places: npt.NDArray[np.int64] = np.array(places)[np.array(symbols) == "V"]
    return pvc_places
