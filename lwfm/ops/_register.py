"""Registration of the operators of ``csrc/ops`` with torch: fakes and autograd.

Importing this module registers the operators themselves. Those of float32 and float64 exist on the CPU, and
on CUDA where this build has the kernels.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lwfm import _ops as _ops

if TYPE_CHECKING:
    from collections.abc import Callable

_LIBRARY = torch.library.Library("lwfm", "FRAGMENT")  # type: ignore[no-untyped-call]

_RECORDED: dict[Any, Callable[..., Any]] = {}
"""The autograd kernel of each operator, for calls that do not need the dispatcher to find it."""


def register(operator: Any) -> Any:
    """Register ``lwfm::<operator.name>`` and its backward operator; a class decorator.

    The class is a record of functions: ``fake`` and ``backward_fake`` allocate what the operator and its
    backward return, ``setup_context(ctx, inputs, output)`` and ``backward(ctx, *grads)`` are as in
    ``torch.library.register_autograd``, but that ``backward`` returns a gradient or None for every tensor of
    a list. A second derivative is refused with a message.
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


def is_recorded(*tensors: Tensor) -> bool:
    """Return whether gradients of a function of tensors are recorded."""
    if torch.is_grad_enabled():
        for tensor in tensors:  # a generator takes longer
            if tensor.requires_grad:
                return True
    return False


def call_operator(operator: Any, *arguments: Any, recorded: bool) -> Any:
    """Call an operator; in eager mode without the dispatcher's detour to its autograd kernel in Python."""
    if torch.compiler.is_compiling():
        return operator(*arguments)
    if recorded:
        return _RECORDED[operator](arguments)
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*arguments)


def _places(operator: Any) -> tuple[list[int], list[int]]:
    """Return which arguments of an operator are tensors, or none, and which are lists of tensors."""
    types = [str(argument.type) for argument in operator._schema.arguments]
    one = [place for place, kind in enumerate(types) if kind in ("Tensor", "Optional[Tensor]")]
    return one, [place for place, kind in enumerate(types) if kind == "List[Tensor]"]


def _register_autograd(name: str, setup_context: Callable[..., None], backward: Callable[..., Any]) -> None:
    """Register an autograd kernel of ``lwfm::name``; the functions are as in :func:`register`.

    As ``torch.library.register_autograd``, which takes some hundred microseconds to flatten lists of tensors.
    """
    operator = getattr(torch.ops.lwfm, name).default
    one, lists = _places(operator)
    list_output = (
        len(operator._schema.returns) == 1 and str(operator._schema.returns[0].type) == "List[Tensor]"
    )

    class Recorded(torch.autograd.Function):
        """Function of all tensors among the arguments, which come after these themselves."""

        @staticmethod
        def forward(ctx: Any, call: Callable[..., Any], arguments: Any, *_: Tensor | None) -> Any:
            with torch._C._AutoDispatchBelowAutograd():
                output = call(*arguments)
            setup_context(ctx, arguments, output)
            return tuple(output) if list_output else output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            slopes = backward(ctx, list(grads)) if list_output else backward(ctx, *grads)
            flat = [None, None, *[slopes[place] for place in one]]
            for place in lists:
                flat += slopes[place]
            return tuple(flat)

    def record(arguments: tuple[Any, ...], call: Callable[..., Any] = operator) -> Any:
        tensors = [arguments[place] for place in one]
        for place in lists:
            tensors += arguments[place]
        output = Recorded.apply(call, arguments, *tensors)
        return list(output) if list_output else output

    def kernel(keyset: Any, *arguments: Any) -> Any:
        call = functools.partial(operator.redispatch, keyset & torch._C._after_autograd_keyset)
        if torch.is_grad_enabled() and torch._C._any_requires_grad(*arguments):
            return record(arguments, call)
        with torch._C._AutoDispatchBelowAutograd():
            return call(*arguments)

    _RECORDED[operator] = record
    _LIBRARY.impl(name, kernel, "Autograd", with_keyset=True)  # type: ignore[no-untyped-call]
