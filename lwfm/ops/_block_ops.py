"""Registration of the operators on P x M blocks: fakes, autograd and vmap of what csrc/ops computes.

``lwfm::embedding_weights`` and ``lwfm::pixel_matching`` take raw correlations [..., P, M] of any strides and
the factors that make correlations or cosines of them, row_scale [..., P] and column_scale [..., M]. They
exist for CPU tensors of float32 and float64; :mod:`lwfm.ops._expressions` says what happens to others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lwfm import _ops as _ops  # importing the module registers the operators

if TYPE_CHECKING:
    from collections.abc import Callable

Triple = tuple[Tensor, Tensor, Tensor]


def _gradients_like(raw: Tensor) -> Triple:
    # Shapes of what csrc/ops/blocks.h allocates: the layout of raw, then two contiguous tensors.
    return torch.empty_like(raw), raw.new_empty(raw.shape[:-1]), _columns_like(raw)


def _columns_like(raw: Tensor) -> Tensor:
    return raw.new_empty((*raw.shape[:-2], raw.shape[-1]))


def refuse_double_backward(*names: str) -> None:
    """Let the backward operators of ``lwfm::<name>`` say that they cannot be differentiated."""
    for name in names:
        torch.library.register_autograd(f"lwfm::{name}_backward", _refusal(name))


def _refusal(name: str) -> Callable[..., None]:
    def backward(_ctx: Any, *_grads: Tensor) -> None:
        raise RuntimeError(
            f"lwfm::{name} can be differentiated once: double backward (create_graph=True, or a gradient of "
            "a gradient) is not supported; lwfm.reference can be differentiated twice"
        )

    return backward


def batched(operator: Any, tensors: int) -> Callable[..., tuple[Any, Any]]:
    """Vmap for an operator whose first ``tensors`` arguments are tensors with equal batches."""

    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        moved = [
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            for x, dim in zip(args[:tensors], in_dims, strict=False)
        ]
        outputs = operator(*moved, *args[tensors:])
        return outputs, tuple(0 for _ in outputs)

    return vmap


def _weights_fake(raw: Tensor, row_scale: Tensor, column_scale: Tensor, temperature: float) -> Triple:  # noqa: ARG001
    return raw.new_empty(raw.shape[:-1]), _columns_like(raw), _columns_like(raw)


def _weights_backward_fake(
    grad_a: Tensor,  # noqa: ARG001
    grad_b: Tensor,  # noqa: ARG001
    grad_reached: Tensor,  # noqa: ARG001
    raw: Tensor,
    row_scale: Tensor,  # noqa: ARG001
    column_scale: Tensor,  # noqa: ARG001
    temperature: float,  # noqa: ARG001
) -> Triple:
    return _gradients_like(raw)


def _weights_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
    *tensors, ctx.temperature = inputs
    ctx.save_for_backward(*tensors)


def _weights_gradient(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    operator = torch.ops.lwfm.embedding_weights_backward
    return (*operator(*grads, *ctx.saved_tensors, ctx.temperature), None)


def _matching_fake(
    raw: Tensor,
    row_scale: Tensor,  # noqa: ARG001
    column_scale: Tensor,  # noqa: ARG001
    compared: Tensor,  # noqa: ARG001
    compared_row_scale: Tensor,  # noqa: ARG001
    compared_column_scale: Tensor,  # noqa: ARG001
    top_k: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    return raw.new_empty(raw.shape[:-2]), raw.new_empty(raw.shape[:-1], dtype=torch.int64)


def _matching_backward_fake(
    grad: Tensor,  # noqa: ARG001
    compared: Tensor,
    row_scale: Tensor,  # noqa: ARG001
    column_scale: Tensor,  # noqa: ARG001
    assignment: Tensor,  # noqa: ARG001
    top_k: int,  # noqa: ARG001
) -> Triple:
    return _gradients_like(compared)


def _matching_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *_, compared, row_scale, column_scale, ctx.top_k = inputs
    ctx.save_for_backward(compared, row_scale, column_scale, output[1])


def _matching_gradient(ctx: Any, grad: Tensor, _grad_assignment: Any) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.lwfm.pixel_matching_backward(grad, *ctx.saved_tensors, ctx.top_k)
    return (None, None, None, *gradients, None)  # none flows through the assignment


torch.library.register_fake("lwfm::embedding_weights", _weights_fake)
torch.library.register_fake("lwfm::embedding_weights_backward", _weights_backward_fake)
torch.library.register_fake("lwfm::pixel_matching", _matching_fake)
torch.library.register_fake("lwfm::pixel_matching_backward", _matching_backward_fake)
torch.library.register_autograd("lwfm::embedding_weights", _weights_gradient, setup_context=_weights_setup)
torch.library.register_autograd("lwfm::pixel_matching", _matching_gradient, setup_context=_matching_setup)
for _name, _tensors in (
    ("embedding_weights", 3),
    ("embedding_weights_backward", 6),
    ("pixel_matching", 6),
    ("pixel_matching_backward", 5),
):
    torch.library.register_vmap(f"lwfm::{_name}", batched(getattr(torch.ops.lwfm, _name), _tensors))
refuse_double_backward("embedding_weights", "pixel_matching")
