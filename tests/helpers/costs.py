"""Cost matrices of up to 5 x 5 for Hypothesis: few enough entries to try all assignments."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

Costs = NDArray[Any]
SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=5)
FAMILIES: dict[str, st.SearchStrategy[Costs]] = {
    "float64": hnp.arrays("f8", SHAPES, elements=st.floats(-1, 1)),
    "float32": hnp.arrays("f4", SHAPES, elements=st.floats(-1, 1, width=32)),
    "ties": hnp.arrays("f8", SHAPES, elements=st.sampled_from([0.0, 0.5, 1.0])),
    "forbidden": hnp.arrays("f8", SHAPES, elements=st.sampled_from([np.inf, np.inf, 0.0, 1.0, 2.5])),
    "int64": hnp.arrays("i8", SHAPES, elements=st.integers(-(2**40), 2**40)),
    "int8": hnp.arrays("i1", SHAPES),
    "uint8": hnp.arrays("u1", SHAPES, elements=st.integers(0, 4)),
    "huge": hnp.arrays("f8", SHAPES, elements=st.floats(-1e300, 1e300)),
}
"""Strategies by name."""
