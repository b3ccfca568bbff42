"""Registration of the operators on features: fakes, autograd and vmap of what csrc/ops computes.

``lwfm::centered_positions`` turns maps into centered positions and their squared norms,
``lwfm::feature_matching`` assigns positions and compares only the matched ones, ``lwfm::class_terms``
compares weighted class means. They exist for tensors of float32 and float64 on the CPU, and on CUDA where
its kernels were built; :mod:`lwfm.ops._expressions`, :mod:`lwfm.nn.positions` and
:mod:`lwfm.nn.class_means` say what happens to others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lwfm.ops._block_ops import refuse_double_backward

if TYPE_CHECKING:
    from collections.abc import Sequence


def _positions_fake(maps: Sequence[Tensor], dims: Sequence[int], together: bool) -> list[Tensor]:  # noqa: ARG001
    layers = [maps[0]] * len(dims) if len(maps) == 1 else maps
    sizes = [(len(x), x.shape[2] * x.shape[3]) for x in layers]
    positions = [x.new_empty(*size, C_l) for x, size, C_l in zip(layers, sizes, dims, strict=True)]
    return positions + [x.new_empty(size) for x, size in zip(layers, sizes, strict=True)]


def _positions_backward_fake(
    grads: Sequence[Tensor],  # noqa: ARG001
    positions: Sequence[Tensor],
    heights: Sequence[int],
    together: bool,  # noqa: ARG001
) -> list[Tensor]:
    channels = [x.shape[2] for x in positions]
    if len(heights) == 1:
        channels = [sum(channels)]
    return [
        x.new_empty(len(x), C, height, x.shape[1] // height)
        for x, C, height in zip(positions, channels, heights, strict=False)
    ]


def _positions_setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    maps, _, ctx.together = inputs
    ctx.heights = [x.shape[2] for x in maps]
    ctx.save_for_backward(*output[: len(output) // 2])


def _positions_gradient(ctx: Any, grads: list[Tensor]) -> tuple[list[Tensor], None, None]:
    operator = torch.ops.lwfm.centered_positions_backward
    return operator(grads, list(ctx.saved_tensors), ctx.heights, ctx.together), None, None


def _matching_fake(
    raw: Tensor,
    row_scale: Tensor,  # noqa: ARG001
    column_scale: Tensor,  # noqa: ARG001
    support: Tensor,  # noqa: ARG001
    query: Tensor,  # noqa: ARG001
    top_k: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor, Tensor]:
    rows = raw.shape[:-1]
    return raw.new_empty(rows[:-1]), raw.new_empty(rows, dtype=torch.int64), raw.new_empty(rows)


def _matching_backward_fake(
    grad: Tensor,  # noqa: ARG001
    support: Tensor,
    query: Tensor,
    assignment: Tensor,  # noqa: ARG001
    cosines: Tensor,  # noqa: ARG001
    top_k: int,  # noqa: ARG001
) -> tuple[Tensor, Tensor]:
    return support.new_empty(support.shape), query.new_empty(query.shape)


def _matching_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *_, support, query, ctx.top_k = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(support, query, *output[1:])


def _matching_gradient(ctx: Any, grad: Tensor, *_others: Any) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.lwfm.feature_matching_backward(grad, *ctx.saved_tensors, ctx.top_k)
    return (None, None, None, *gradients, None)  # none flows through the assignment


def _terms_fake(
    a: Tensor,
    b: Tensor,  # noqa: ARG001
    support: Tensor,  # noqa: ARG001
    query: Tensor,
    images: Tensor,  # noqa: ARG001
    begin: Tensor,
) -> tuple[Tensor, ...]:
    Q, way = len(query), len(begin) - 1
    return (*(a.new_empty(Q, way) for _ in range(3)), a.new_empty(Q, query.shape[2]))


def _terms_backward_fake(*arguments: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape) for x in arguments[4:8])


def _terms_setup(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:  # noqa: ARG001
    ctx.save_for_backward(*inputs)


def _terms_gradient(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return (*torch.ops.lwfm.class_terms_backward(*grads, *ctx.saved_tensors), None, None)


torch.library.register_fake("lwfm::centered_positions", _positions_fake)
torch.library.register_fake("lwfm::centered_positions_backward", _positions_backward_fake)
torch.library.register_fake("lwfm::feature_matching", _matching_fake)
torch.library.register_fake("lwfm::feature_matching_backward", _matching_backward_fake)
torch.library.register_fake("lwfm::class_terms", _terms_fake)
torch.library.register_fake("lwfm::class_terms_backward", _terms_backward_fake)
torch.library.register_autograd(
    "lwfm::centered_positions", _positions_gradient, setup_context=_positions_setup
)
torch.library.register_autograd("lwfm::feature_matching", _matching_gradient, setup_context=_matching_setup)
torch.library.register_autograd("lwfm::class_terms", _terms_gradient, setup_context=_terms_setup)
refuse_double_backward("centered_positions", "feature_matching", "class_terms")
