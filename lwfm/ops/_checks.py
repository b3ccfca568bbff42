"""Checks of the arguments that the public operators share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lwfm.ops._expressions import compute_dtype

if TYPE_CHECKING:
    from torch import Tensor


def as_flag(value: object, name: str) -> bool:
    """Return an option that is True or False, or as a number 1 or 0; TypeError naming it for another one."""
    if isinstance(value, (bool, np.bool_)) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise TypeError(f"{name} must be True or False, got {value!r}")


def checked_features(
    support: Tensor,
    query: Tensor,
    support_embedded: Tensor | None,
    query_embedded: Tensor | None,
    top_k: int | None,
) -> list[tuple[Tensor, Tensor]]:
    """Return (support, query) and the embedded two, if given, in the dtype they are compared in.

    Raises
    ------
    ValueError
        For what :func:`lwfm.ops.semantic_pixel_matching` refuses.
    """
    pairs = [("support", support, "query", query)]
    if support_embedded is not None and query_embedded is not None:
        pairs.append(("support_embedded", support_embedded, "query_embedded", query_embedded))
    elif support_embedded is not None or query_embedded is not None:
        raise ValueError("give both support_embedded and query_embedded, or neither")
    for name_s, s, name_q, q in pairs:
        for name, x, images in ((name_s, s, support), (name_q, q, query)):
            if x.ndim != 3 or not x.is_floating_point():
                raise ValueError(
                    f"{name} must be a floating tensor [images, positions, channels], "
                    f"got {x.dtype} of shape {list(x.shape)}"
                )
            if x.device != support.device or x.dtype != support.dtype:
                raise ValueError(
                    f"{name} is {x.dtype} on {x.device}, but support is {support.dtype} on {support.device}"
                )
            if x.shape[:2] != images.shape[:2]:
                raise ValueError(
                    f"{name} has shape {list(x.shape)}, but its images have {list(images.shape)}"
                )
        if s.shape[2] != q.shape[2]:
            raise ValueError(f"{name_s} has {s.shape[2]} channels, but {name_q} has {q.shape[2]}")
    matched = min(support.shape[1], query.shape[1])
    if matched == 0:
        raise ValueError(
            f"images need at least one position, got support {list(support.shape)} "
            f"and query {list(query.shape)}"
        )
    if top_k is not None and not 1 <= top_k <= matched:
        raise ValueError(f"top_k must be 1 to {matched} (matched pairs) or None, got {top_k}")
    return [(compute_dtype(s), compute_dtype(q)) for _, s, _, q in pairs]
