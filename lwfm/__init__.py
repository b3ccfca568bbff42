"""LWFM-SPM: few-shot image classification by semantic-pixel matching.

Submodules load on first use, so that ``import lwfm.lap`` never loads torch:

* :mod:`lwfm.lap` -- batched linear assignment on NumPy arrays;
* :mod:`lwfm.ops` -- the same and semantic-pixel matching on torch tensors;
* :mod:`lwfm.nn` -- the head as a module; :mod:`lwfm.model` -- backbone and head;
* :class:`FewShotClassifier` (:mod:`lwfm.classifier`) -- for your own images;
* :mod:`lwfm.training`, :mod:`lwfm.evaluation`, :mod:`lwfm.cli` -- the tools on top;
* :mod:`lwfm.lite` -- the same classifier without torch;
* :mod:`lwfm.app` -- a page in the browser that teaches a classifier;
* :mod:`lwfm.metric` -- systems of deep metric learning for other data than images too;
* :mod:`lwfm.presets` -- configurations and experiment plans by name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from lwfm.classifier import FewShotClassifier

_SUBMODULES = (
    "adapters",
    "app",
    "bench",
    "classifier",
    "data",
    "errors",
    "evaluation",
    "experiments",
    "figures",
    "lap",
    "lite",
    "metric",
    "model",
    "nn",
    "ops",
    "presets",
    "reference",
    "report",
    "retrieval",
    "training",
)

__all__ = ["FewShotClassifier", "__version__", *_SUBMODULES]


def __getattr__(name: str) -> ModuleType | type | str:
    """Load a submodule, the classifier, or the version from the installed metadata, on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("lwfm")
    if name in _SUBMODULES:
        return importlib.import_module(f"lwfm.{name}")
    if name == "FewShotClassifier":
        from lwfm.classifier import FewShotClassifier

        return FewShotClassifier
    raise AttributeError(f"module 'lwfm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
