"""Accuracy on episodes of unseen classes, and comparison of two results.

* :mod:`lwfm.evaluation.evaluation` -- :func:`evaluate`: ``lwfm evaluate``;
* :mod:`lwfm.evaluation.cached_maps` -- every image encoded once;
* :mod:`lwfm.evaluation.episodes` -- all methods on the same episodes, many at a time;
* :mod:`lwfm.evaluation.methods` -- the methods: heads and nearest class mean;
* :mod:`lwfm.evaluation.map_store` -- maps of a split on disk;
* :mod:`lwfm.evaluation.heads` -- several heads on the maps of one network;
* :mod:`lwfm.evaluation.scoring`, :mod:`lwfm.evaluation.statistics` -- means and intervals;
* :mod:`lwfm.evaluation.results` -- :class:`EvaluationResult`, a file with all that is needed to repeat it;
* :mod:`lwfm.evaluation.comparison` -- :func:`compare`: ``lwfm compare``;
* :mod:`lwfm.evaluation.distributed` -- episodes sharded over the processes of ``torchrun``.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
