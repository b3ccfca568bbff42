"""Classify your own images from a few labeled ones.

* :mod:`lwfm.classifier.classifier` -- :class:`FewShotClassifier`, in scikit-learn's style;
* :mod:`lwfm.classifier.decision` -- :class:`Decision`: label, probabilities, most similar example;
* :mod:`lwfm.classifier.calibration` -- probabilities by a fitted temperature;
* :mod:`lwfm.classifier.command` -- :func:`classify`: ``lwfm classify``.

Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
