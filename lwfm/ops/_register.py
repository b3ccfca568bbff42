"""Registration of the operators of ``csrc/ops`` with torch: fakes and autograd.

Importing this module registers the operators themselves. Those of float32 and float64 exist on the CPU, and
on CUDA where this build has the kernels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from lwfm import _ops as _ops

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBRARY = torch.library.Library("lwfm", "FRAGMENT")  # type: ignore[no-untyped-call]


def register(operator: Any) -> Any:
    """Register ``lwfm::<operator.name>`` and its backward operator; a class decorator.

    The class is a record of functions: ``fake`` and ``backward_fake`` allocate what the operator and its
    backward return, ``setup_context(ctx, inputs, output)`` and ``backward(ctx, *grads)`` are as in
    ``torch.library.register_autograd``. A second derivative is refused with a message.
    """
    name = f"lwfm::{operator.name}"
    torch.library.register_fake(name, operator.fake)
    torch.library.register_fake(f"{name}_backward", operator.backward_fake)
    _register_autograd(operator.name, operator.setup_context, operator.backward)
    message = (
        f"{name} can be differentiated once: double backward (create_graph=True, or a gradient of "
        "a gradient) is not supported; lwfm.reference can be differentiated twice"
    )
    _register_autograd(f"{operator.name}_backward", lambda *_args: None, refusal(message))
    return operator


def refusal(message: str) -> Callable[..., None]:
    """Return a backward function that raises ``RuntimeError(message)``."""

    def backward(_ctx: Any, *_grads: Tensor) -> None:
        raise RuntimeError(message)

    return backward


def register_without_gradient(name: str) -> None:
    """Register an autograd kernel of ``lwfm::name`` whose outputs carry no gradient."""
    operator = getattr(torch.ops.lwfm, name).default

    def kernel(keyset: Any, *arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    _LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]


def call_operator(operator: Any, *arguments: Any, recorded: bool) -> Any:
    """Call an operator, without its autograd kernel where nothing is recorded: that one is Python."""
    if recorded or torch.compiler.is_compiling():
        return operator(*arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


class _Call(NamedTuple):
    """A call of an operator whose lists of tensors are flat; the tensors themselves are left out."""

    keyset: Any
    lengths: list[int | None]
    """For each argument: how many tensors its list has, -1 for one tensor, None for anything else."""
    others: list[Any]
    """The arguments that are neither tensors nor lists of them."""


def _flat(keyset: Any, arguments: tuple[Any, ...]) -> tuple[_Call, list[Tensor]]:
    call, tensors = _Call(keyset, [], []), []
    for argument in arguments:
        if isinstance(argument, Tensor):
            call.lengths.append(-1)
            tensors.append(argument)
        elif isinstance(argument, (list, tuple)) and all(isinstance(x, Tensor) for x in argument):
            call.lengths.append(len(argument))
            tensors.extend(argument)
        else:
            call.lengths.append(None)
            call.others.append(argument)
    return call, tensors


def _nested(call: _Call, tensors: tuple[Tensor, ...]) -> list[Any]:
    remaining, others = iter(tensors), iter(call.others)
    arguments: list[Any] = []
    for length in call.lengths:
        if length is None:
            arguments.append(next(others))
        elif length < 0:
            arguments.append(next(remaining))
        else:
            arguments.append([next(remaining) for _ in range(length)])
    return arguments


def _register_autograd(name: str, setup_context: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Register an autograd kernel of ``lwfm::name``; the functions are as in :func:`register`.

    As ``torch.library.register_autograd``, which takes some hundred microseconds to flatten lists of tensors.
    """
    operator = getattr(torch.ops.lwfm, name).default
    list_output = (
        len(operator._schema.returns) == 1 and str(operator._schema.returns[0].type) == "List[Tensor]"
    )

    def redispatch(keyset: Any, arguments: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    class Recorded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Any:
            arguments = _nested(call, tensors)
            output = redispatch(call.keyset, arguments)
            ctx.call = call
            setup_context(ctx, tuple(arguments), output)
            return tuple(output) if list_output else output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            slopes = backward(ctx, list(grads)) if list_output else backward(ctx, *grads)
            flat: list[Any] = [None]
            for length, slope in zip(ctx.call.lengths, slopes, strict=True):
                if length is not None:
                    flat.extend([slope] if length < 0 else [None] * length if slope is None else slope)
            return tuple(flat)

    def kernel(keyset: Any, *arguments: Any) -> Any:
        if not (torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments)):
            return redispatch(keyset, arguments)
        call, tensors = _flat(keyset, arguments)
        output = Recorded.apply(call, *tensors)
        return list(output) if list_output else output

    _LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
