"""Index images and search for similar ones.

* :mod:`lwfm.retrieval.index` -- :func:`build_index`: ``lwfm index``;
* :mod:`lwfm.retrieval.search` -- :func:`search_index`: ``lwfm search``.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
