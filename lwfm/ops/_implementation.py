"""Choice between the kernels of this build and the tensor expressions beside them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor
from torch.autograd import forward_ad

from lwfm import _ops as _ops  # importing the module registers the operators

if TYPE_CHECKING:
    from collections.abc import Iterator

Implementation = Literal["kernels", "expressions"]

KERNEL_DEVICES = {
    operator: frozenset(
        device
        for device, key in (("cpu", "CPU"), ("cuda", "CUDA"))
        if torch._C._dispatch_has_kernel_for_dispatch_key(f"lwfm::{operator}", key)
    )
    for operator in ("embedding_weights", "feature_matching", "encode_maps", "episodes", "compare_maps")
}
"""Device types for which this build has kernels of an operator."""

# A plain global rather than a context variable: torch.compile guards on it in every supported version.
_selected: Implementation = "kernels"


@contextlib.contextmanager
def implementation(name: Implementation) -> Iterator[None]:
    """Select how the operators compute inside a ``with`` block: by kernels or by tensor expressions.

    Parameters
    ----------
    name : str
        ``"kernels"``, the default: the fused kernels, on devices that this build has them for.
        ``"expressions"``: the same mathematics in torch's own operators, on every device. Slower, and more
        memory, but differentiable any number of times, by ``torch.func`` too (``grad``, ``jacrev``,
        ``hessian``, ``vmap`` of the head), and open to ``torch.compile``. Assignments are solved
        by :func:`linear_assignment` in either case.

    Raises
    ------
    ValueError
        For another name.

    Notes
    -----
    The selection is global to the process, like ``torch.nn.attention.sdpa_kernel``. Compiled functions
    follow it: torch compiles them once for each.

    Examples
    --------
    >>> import torch
    >>> from lwfm.ops import implementation, layer_wise_embedding
    >>> support, query = torch.rand(2, 9, 16), torch.rand(3, 9, 16)
    >>> with implementation("expressions"):
    ...     a, b = layer_wise_embedding(support, query)
    >>> torch.allclose(a, layer_wise_embedding(support, query)[0])
    True
    """
    global _selected
    if name not in get_args(Implementation):
        raise ValueError(f"the implementation must be kernels or expressions, got {name!r}")
    before, _selected = _selected, name
    try:
        yield
    finally:
        _selected = before


def has_kernels(*tensors: Tensor, operator: str) -> bool:
    """Return whether kernels of ``lwfm::operator`` compute with ``tensors``.

    They do where they are selected, and built for the first one's device. Meta tensors have no values; the
    shapes are those that the operators allocate. No operator has a forward-mode derivative, for which torch
    would take zero: it is left to the expressions.
    """
    device = tensors[0].device.type
    if device == "meta":
        return True
    if forward_ad._current_level >= 0 and any(
        forward_ad.unpack_dual(x).tangent is not None  # type: ignore[no-untyped-call]
        for x in tensors
    ):
        return False
    return _selected == "kernels" and device in KERNEL_DEVICES[operator]
