"""A page in the browser to teach a classifier from a few images and to try it: ``lwfm app``.

* :mod:`lwfm.app.session` -- :class:`Session`: examples, images and answers, without a page;
* :mod:`lwfm.app.page` -- the page, in gradio;
* :mod:`lwfm.app.command` -- :func:`app`: ``lwfm app``.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
