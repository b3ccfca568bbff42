"""Classify images without torch: ONNX Runtime encodes them, the C++ core of ``lwfm`` compares them.

``pip install lwfm[lite]`` is enough, and importing this package loads neither torch nor anything that needs
it. The network is a file of ``lwfm export``.

* :mod:`lwfm.lite.classifier` -- :class:`FewShotClassifier`: options and answers of
  :class:`lwfm.FewShotClassifier`, and its files;
* :mod:`lwfm.lite.network` -- :class:`OnnxNetwork`: an exported network and its head;
* :mod:`lwfm.lite.encoded` -- :class:`EncodedImages`: what the head compares, as arrays;
* ``python -m lwfm.lite`` -- classify folders of images.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
