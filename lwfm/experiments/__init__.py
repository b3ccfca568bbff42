"""Tables of trained and evaluated rows: ``lwfm experiment``.

* :mod:`lwfm.experiments.run` -- :func:`experiment`;
* :mod:`lwfm.experiments.plan` -- data sets, networks and rows, read from a YAML file;
* :mod:`lwfm.experiments.network` -- one network: its training, its rows, their commands;
* :mod:`lwfm.experiments.table` -- what each row reached.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
