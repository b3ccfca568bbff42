from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

def solve(
    costs: NDArray[Any],
    maximize: bool,
    cost_limit: float,
    threads: int,
    name: str,
    single: bool,
    columns: NDArray[np.int64],
    totals: NDArray[np.float64],
    u: NDArray[np.float64] | None,
    v: NDArray[np.float64] | None,
    warm_v: NDArray[np.float64] | None,
    warm_columns: NDArray[np.int64] | None,
) -> None: ...
def solve_ragged(
    costs: Sequence[NDArray[Any]],
    maximize: bool,
    cost_limit: float,
    threads: int,
    name: str,
    columns: Sequence[NDArray[np.int64]],
    totals: NDArray[np.float64],
) -> None: ...
def solve_sparse(
    columns: int, start: NDArray[np.int64], column: NDArray[np.int64], value: NDArray[np.float64]
) -> NDArray[np.int64] | None: ...
def simd_level() -> str: ...
