"""Time and memory of `lwfm metric predict` on long data: a day of ECG, many cells.

    python -m benchmarks.speed.bench_metric ecg [--hours 24] [--root RECORDS]
    python -m benchmarks.speed.bench_metric cells [--cells 100000] [--genes 2000]

The data are made up (of beats, with --root, the first record is repeated); models are fitted on a part, which
is not timed. Reading files is included, and so are detection of R peaks and writing of the answers.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from lwfm.metric import CellTypeAnnotator, PVCDetector
from lwfm.metric.data import ecg
from lwfm.metric.systems import find_system

RATE = ecg.RATE


def made_up_signal(seconds: int, seed: int = 0) -> np.ndarray:
    """Return an ECG [seconds * 360] of 70 beats a minute, every ninth of them wide and early."""
    random = np.random.default_rng(seed)
    signal = 0.02 * random.normal(size=seconds * RATE)
    pulse = np.arange(-RATE // 2, RATE // 2) / RATE
    now, number = 1.0, 0
    while now < seconds - 1:
        width = 0.05 if number % 9 == 8 else 0.012
        start = int(now * RATE) - RATE // 2
        signal[start : start + len(pulse)] += np.exp(-((pulse / width) ** 2) / 2)
        now += 0.86 * (0.65 if number % 9 == 7 else 1) + random.uniform(-0.03, 0.03)
        number += 1
    return signal


def time_ecg(hours: float, root: Path | None, folder: Path) -> str:
    """Annotate hours of one lead; return a line."""
    import wfdb

    seconds = int(hours * 3600)
    if root is None:
        signal = made_up_signal(seconds)
        recordings = [made_up_recording(seed) for seed in (1, 2)]
    else:
        recordings = ecg.read_records(root)
        signal = np.resize(recordings[0].signal, seconds * RATE).astype(float)
    beats = ecg.join_beats(recordings)
    detector = PVCDetector(steps=50).fit(beats.rows, beats.is_pvc, groups=beats.records)
    wfdb.wrsamp("day", fs=RATE, units=["mV"], sig_name=["MLII"], p_signal=signal[:, None], fmt=["16"],
                write_dir=str(folder))  # fmt: skip
    begin, busy = time.perf_counter(), time.process_time()
    text = find_system("pvc_beats").predict(detector, [folder / "day"], folder / "beats.csv", None)
    found = text.splitlines()[0].split(";")[0]
    return f"{hours:g} h of one lead in {_elapsed(begin, busy)}: {found}"


def _elapsed(begin: float, busy: float) -> str:
    """Return the seconds since two clocks were read, by the wall and of the processor."""
    return f"{time.perf_counter() - begin:.1f} s ({time.process_time() - busy:.1f} s of processor time)"


def made_up_recording(seed: int) -> ecg.Recording:
    """Return ten minutes of such an ECG; a beat is a PVC where it comes early."""
    signal = made_up_signal(600, seed).astype(np.float32)
    peaks = ecg.detect_peaks(signal)
    early = np.r_[False, np.diff(peaks) < 0.7 * RATE]
    return ecg.Recording(str(seed), "MLII", signal, peaks, np.where(early, "V", "N"), RATE)


def time_cells(cells: int, genes: int, folder: Path) -> str:
    """Annotate cells of an .h5ad file; return a line."""
    import anndata
    import pandas
    from scipy.sparse import random as random_matrix

    draw: Any = np.random.default_rng(0)
    counts: Any = random_matrix(
        cells, genes, density=0.1, format="csr", rng=draw, dtype=np.float32,
        data_rvs=lambda size: draw.integers(1, 20, size).astype(np.float32),
    )  # fmt: skip
    names = pandas.DataFrame(index=[f"g{n}" for n in range(genes)])
    data = anndata.AnnData(counts, pandas.DataFrame(index=[f"c{n}" for n in range(cells)]), names)
    data.write_h5ad(folder / "cells.h5ad")
    some = np.log1p(counts[:2000].toarray())
    annotator = CellTypeAnnotator(epochs=2).fit(some, np.arange(2000) % 8)
    annotator.genes_ = tuple(names.index)
    del counts, data
    begin, busy = time.perf_counter(), time.process_time()
    find_system("cell_types").predict(annotator, [folder / "cells.h5ad"], folder / "cells.csv", None)
    return f"{cells} cells x {genes} genes in {_elapsed(begin, busy)}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["ecg", "cells"])
    parser.add_argument("--hours", type=float, default=24)
    parser.add_argument("--root", type=Path, help="records to fit on, the first of which is repeated")
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "ecg":
            line = time_ecg(options.hours, options.root, Path(folder))
        else:
            line = time_cells(options.cells, options.genes, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{line}; peak of memory {peak:.2f} GiB, of which a part for making the data")


if __name__ == "__main__":
    main()
