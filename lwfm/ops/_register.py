"""Registration of the operators of ``csrc/ops`` with torch: fakes and autograd.

Importing this module registers the operators themselves. Those of float32 and float64 exist on the CPU, and
on CUDA where this build has the kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lwfm import _ops as _ops

if TYPE_CHECKING:
    from collections.abc import Callable


def register(operator: Any) -> Any:
    """Register ``lwfm::<operator.name>`` and its backward operator; a class decorator.

    The class is a record of functions: ``fake`` and ``backward_fake`` allocate what the operator and its
    backward return, ``setup_context(ctx, inputs, output)`` and ``backward(ctx, *grads)`` are as in
    ``torch.library.register_autograd``. A second derivative is refused with a message.
    """
    name = f"lwfm::{operator.name}"
    torch.library.register_fake(name, operator.fake)
    torch.library.register_fake(f"{name}_backward", operator.backward_fake)
    torch.library.register_autograd(name, operator.backward, setup_context=operator.setup_context)
    message = (
        f"{name} can be differentiated once: double backward (create_graph=True, or a gradient of "
        "a gradient) is not supported; lwfm.reference can be differentiated twice"
    )
    torch.library.register_autograd(f"{name}_backward", refusal(message))
    return operator


def refusal(message: str) -> Callable[..., None]:
    """Return a backward function that raises ``RuntimeError(message)``."""

    def backward(_ctx: Any, *_grads: Tensor) -> None:
        raise RuntimeError(message)

    return backward
