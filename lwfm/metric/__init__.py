"""Deep metric learning: learned distances, and systems that answer by nearest neighbors.

* :class:`PVCDetector`, :class:`CellTypeAnnotator`, :class:`RDERetriever`, :class:`TissueRetriever`,
  :class:`ChestXRayZeroShot`, :class:`ChestXRayMultiLabel`, :class:`TurbineFaultDetector`,
  :class:`EITHeartbeatSeparator` -- the systems, as estimators;
* :mod:`lwfm.metric.distances`, :mod:`lwfm.metric.losses` -- for any loss of pytorch-metric-learning;
* :mod:`lwfm.metric.command` -- ``lwfm metric list``, ``evaluate``, ``fit``, ``predict``.

Needs the extra ``lwfm[metric]``, and ``lwfm[ecg]``, ``lwfm[cells]``, ``lwfm[scada]`` or ``lwfm[eit]`` for
some of them. Each name loads its module on first use.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
