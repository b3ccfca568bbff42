"""Simulated chest films as files, in the layouts of NIH and of a table of indicators."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lwfm.metric.data.xray import FINDINGS, NO_FINDING
from lwfm.metric.simulation.chest_xray import simulate_films, simulated_vectors

if TYPE_CHECKING:
    from pathlib import Path

    from lwfm.metric.data.xray import Films


def many_findings(count: int, seed: int = 0, size: int = 32) -> Films:
    """Return films with one finding each, all equally often, some with two, and some without any."""
    table = np.eye(len(FINDINGS), dtype=np.int64)
    table = np.concatenate([table, table, table[::-1] | np.roll(table, 1, axis=0), 0 * table[:7]])
    return simulate_films(count, seed, size=size, table=table)


def write_nih(folder: Path, films: Films, *, films_per_patient: int = 2) -> Path:
    """Write films in NIH's layout, with label vectors beside the table."""
    images = folder / "images_001" / "images"
    images.mkdir(parents=True)
    with (folder / "Data_Entry_2017_v2020.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age"])
        for number, (image, row) in enumerate(zip(films.images, films.targets, strict=True)):
            name = f"{number // films_per_patient:08d}_{number % films_per_patient:03d}.png"
            found = [finding for finding, has in zip(films.findings, row, strict=True) if has == 1]
            table.writerow([name, "|".join(found) or NO_FINDING, number, number // films_per_patient, 50])
            Image.fromarray(np.round(255 * image[0]).astype(np.uint8)).save(images / name)
    np.save(folder / "label_vectors.npy", simulated_vectors())
    (folder / "label_vectors.txt").write_text("\n".join(FINDINGS))
    return folder
