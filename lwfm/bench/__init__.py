"""Benchmarks on the user's machine: ``lwfm bench assignment``, ``transport`` and ``matching``.

* :mod:`lwfm.bench.command` -- the commands;
* :mod:`lwfm.bench.solvers`, :mod:`lwfm.bench.solvers_cuda` -- the assignment solver beside others;
* :mod:`lwfm.bench.transport` -- the transport solver beside POT's;
* :mod:`lwfm.bench.head` -- the head beside its own matrix products.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
