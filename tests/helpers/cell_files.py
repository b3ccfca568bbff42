"""Tables of cells for tests: counts of types that differ in some genes, in two batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

anndata = pytest.importorskip("anndata")
TYPES = ("alpha", "beta", "delta")


def make_counts(cells: int = 40, genes: int = 60, seed: int = 0) -> tuple[npt.NDArray[np.float32], list[str]]:
    """Draw counts of `cells` cells of each type; each type has ten genes of its own."""
    random = np.random.default_rng(seed)
    rates = np.full((len(TYPES), genes), 0.6)
    for number in range(len(TYPES)):
        rates[number, 10 * number : 10 * number + 10] = 6
    types = np.repeat(np.arange(len(TYPES)), cells)
    depth = random.uniform(0.5, 2, (len(types), 1))
    return random.poisson(rates[types] * depth).astype(np.float32), [TYPES[t] for t in types]


def write_h5ad(
    path: Path, counts: npt.NDArray[np.float32], types: Sequence[str | None], prefix: str = "g"
) -> Path:
    """Write cells, every other one of the protocol a or b; a type of None is a missing annotation."""
    import pandas
    from scipy.sparse import csr_matrix

    protocols = np.where(np.arange(len(counts)) % 2 == 0, "a", "b")
    obs = pandas.DataFrame(
        {"cell_type": pandas.Categorical(types), "protocol": pandas.Categorical(protocols)},
        index=[f"cell{n}" for n in range(len(counts))],
    )
    var = pandas.DataFrame(index=[f"{prefix}{n}" for n in range(counts.shape[1])])
    anndata.AnnData(csr_matrix(counts), obs, var).write_h5ad(path)
    return path
