"""Digests of all that a result depends on, by which files of it are named."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt


def digest_arrays(description: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Compute the SHA-256, in hexadecimal, of JSON values and of named arrays in their order.

    Examples
    --------
    >>> import numpy as np
    >>> digest_arrays({"layers": [3, 4]}, {"weight": np.zeros(3)})[:12]
    '2994d1866827'
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, array in arrays.items():
        digest.update(name.encode() + b"\0" + array.tobytes())
    return digest.hexdigest()
