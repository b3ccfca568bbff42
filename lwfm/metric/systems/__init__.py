"""The systems: one file each, found by name.

A file has the estimator and ``SYSTEM``, which describes its data and the functions behind the commands.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lwfm.errors import UserError

if TYPE_CHECKING:
    from lwfm.metric.systems.system import System

NAMES = (
    "pvc_beats",
    "cell_types",
    "rde_retrieval",
    "tissue_retrieval",
    "leaf_diseases",
    "skin_lesions",
    "chest_zero_shot",
    "chest_multi_label",
    "turbine_faults",
    "eit_heartbeat",
)


def find_system(name: str) -> System:
    """Return a system by its name; UserError, naming them all, for another one.

    Examples
    --------
    >>> find_system("pvc_beats").estimator.__name__
    'PVCDetector'
    """
    if name not in NAMES:
        raise UserError(f"there is no system {name}: choose one of {', '.join(NAMES)}")
    system: System = import_module(f"lwfm.metric.systems.{name}").SYSTEM
    return system
