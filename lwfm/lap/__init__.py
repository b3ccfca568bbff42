"""Exact linear assignment on NumPy arrays: single problems and batches, without torch.

Given a cost for every pair of a row and a column, choose pairs so that each row of the shorter side
gets a column of its own and the total cost is smallest. All functions keep one contract:

* exact: float64 input is solved in float64, float32 input with float64 sums and dual variables;
* integers are shifted before they are read as float64, so the answer is exact as long as the entries of one
  problem *span* less than 2^53 (they may be larger); a wider span is rounded to 53 bits. Only totals and
  duals, which are float64, are rounded;
* ``+inf`` forbids a pair (``-inf`` when maximizing); NaN and the other infinity are errors, and so is a
  problem that the forbidden pairs leave without a complete assignment;
* ties are broken the same way for every number of threads; a constant matrix gives the identity;
* no thresholds: costs of 1e-30 and of 1e+30 work alike;
* Ctrl-C (any signal whose handler raises, in the main thread) ends a call within a fraction of a second, and
  so does a ``time_limit``, with what is known by then.

The algorithm is that of Jonker and Volgenant [1]_ in its rectangular form [2]_.

References
----------
.. [1] R. Jonker and A. Volgenant, "A shortest augmenting path algorithm for dense and sparse linear
   assignment problems", Computing 38 (1987), 325-340.
.. [2] D. F. Crouse, "On implementing 2D rectangular assignment algorithms", IEEE Transactions on Aerospace
   and Electronic Systems 52 (2016), 1679-1696.
"""

from __future__ import annotations

from lwfm.lap._arguments import default_threads
from lwfm.lap._batch import solve_batch
from lwfm.lap._bottleneck import bottleneck
from lwfm.lap._ranking import iter_best, k_best
from lwfm.lap._single import lapjv, linear_sum_assignment, simd_level
from lwfm.lap._sparse import solve_sparse
from lwfm.lap._time_limit import TimeLimitError

__all__ = [
    "TimeLimitError",
    "bottleneck",
    "default_threads",
    "iter_best",
    "k_best",
    "lapjv",
    "linear_sum_assignment",
    "simd_level",
    "solve_batch",
    "solve_sparse",
]
