"""Backbone and head as one network, its weights and its files.

* :mod:`lwfm.model.network` -- :class:`LWFM`, built from a :class:`ModelConfig`, and its file;
* :mod:`lwfm.model.backbones` -- networks that turn images into the maps of several layers;
* :mod:`lwfm.model.weights` -- weights for backbones: by name, from a file, never unpickled;
* :mod:`lwfm.model.default` -- the network used where the user names none;
* :mod:`lwfm.model.encode` -- images in whatever form a user has them, as maps;
* :mod:`lwfm.model.import_published` -- checkpoints of the published code: ``lwfm import``.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
