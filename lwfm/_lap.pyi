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
    time_limit: float | None,
    bounds: NDArray[np.float64] | None,
) -> bool: ...
def solve_ragged(
    costs: Sequence[NDArray[Any]],
    maximize: bool,
    cost_limit: float,
    threads: int,
    name: str,
    columns: Sequence[NDArray[np.int64]],
    totals: NDArray[np.float64],
    time_limit: float | None,
    bounds: NDArray[np.float64] | None,
) -> bool: ...
def solve_sparse(
    columns: int,
    start: NDArray[np.int64],
    column: NDArray[np.int64],
    value: NDArray[np.float64],
    time_limit: float | None,
) -> NDArray[np.int64] | float | None: ...
def k_best(
    costs: NDArray[Any],
    k: int,
    maximize: bool,
    threads: int,
    name: str,
    single: bool,
    time_limit: float | None,
    bounds: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None: ...
def solve_bottlenecks(
    costs: NDArray[Any],
    maximize: bool,
    lexicographic: bool,
    threads: int,
    name: str,
    single: bool,
    columns: NDArray[np.int64],
    values: NDArray[np.float64],
    time_limit: float | None,
    bounds: NDArray[np.float64],
) -> bool: ...

NO_MORE: int
TIME_IS_UP: int

class Ranker:
    def __init__(self, costs: NDArray[Any], maximize: bool, name: str) -> None: ...
    def next(self, columns: NDArray[np.int64], time_limit: float | None) -> int: ...
    def total(self, columns: NDArray[np.int64]) -> float: ...
    def bound(self) -> float: ...

def compare_episode(
    positions: Sequence[NDArray[np.float32]],
    squares: Sequence[NDArray[np.float32]],
    grams: Sequence[NDArray[np.float32]],
    embedded: Sequence[NDArray[np.float32]],
    embedded_squares: Sequence[NDArray[np.float32]],
    order: NDArray[np.int64],
    begin: NDArray[np.int64],
    temperature: float,
    top_k: int,
    mean_over_layers: bool,
    merge_shots: bool,
    threads: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def simd_level() -> str: ...
