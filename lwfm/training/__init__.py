"""Training runs: episodes for LWFM-SPM, ordinary classification before it.

* :mod:`lwfm.training.training` -- :func:`train`: ``lwfm train``;
* :mod:`lwfm.training.pretraining` -- :func:`pretrain`: ``lwfm pretrain``;
* :mod:`lwfm.training.modules` -- the Lightning modules: training steps and validation;
* :mod:`lwfm.training.config` -- loss weights, optimizer, learning rate;
* :mod:`lwfm.training.run`, :mod:`lwfm.training.trainer` -- a run from its folder to its summary;
* :mod:`lwfm.training.time_budget` -- as many epochs as fit into a time;
* :mod:`lwfm.training.checkpoints`, :mod:`lwfm.training.run_lock` -- the files of a run, and its lock.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
