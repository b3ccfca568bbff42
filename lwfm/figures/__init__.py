"""Figures: the matches between two images, and the curves of a training run.

* :mod:`lwfm.figures.matches` -- :func:`match`: ``lwfm match``; :func:`match_figure`;
* :mod:`lwfm.figures.curves` -- :func:`curves_figure`;
* :mod:`lwfm.figures.logs` -- the numbers behind the curves;
* :mod:`lwfm.figures.files` -- :func:`save_figure`.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
