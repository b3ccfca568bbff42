from typing import Any

import numpy as np
from numpy.typing import NDArray

def solve(
    costs: NDArray[Any],
    maximize: bool,
    threads: int,
    name: str,
    single: bool,
    want_duals: bool,
) -> tuple[
    NDArray[np.int64],
    NDArray[np.float64],
    NDArray[np.float64] | None,
    NDArray[np.float64] | None,
]: ...
def simd_level() -> str: ...
