"""Comparison of the weighted class means of one layer: what it contributes to the base term."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lwfm.ops._implementation import has_kernels
from lwfm.ops._register import register


class ClassTerms(NamedTuple):
    """Contribution of one layer to the base term, which compares weighted class means."""

    inner: Tensor
    """[Q, way]: inner product of the support's and the query's weighted means."""
    square_s: Tensor
    """[Q, way]: squared norm of the support's."""
    square_q: Tensor
    """[Q, way]: squared norm of the query's."""
    features: Tensor
    """[Q, C_l]: the query's, averaged over the classes."""


def class_terms(
    a: Tensor, b: Tensor, support: Tensor, query: Tensor, images: Tensor, begin: Tensor
) -> ClassTerms:
    """Compare weighted class means.

    ``a`` [Q, S, P] and ``b`` [Q, S, M] are the LWE weights of support [S, P, C] and query [Q, M, C].
    ``images`` [S] lists the support images class by class, ``begin`` [way + 1] is where classes begin in
    that list. Pooling is the mean over positions, a class's weights are averaged over its shots.
    """
    if has_kernels(a, b, support, query):
        return ClassTerms(*torch.ops.lwfm.class_terms.default(a, b, support, query, images, begin))
    counts = begin.diff()  # [way]
    of_class = torch.arange(len(counts), device=a.device).repeat_interleave(counts)  # [S], of images
    member = of_class.unsqueeze(1) == torch.arange(len(counts), device=a.device)
    share = member.to(a.dtype) / counts.unsqueeze(0) / b.shape[-1]  # [S, way]
    b = torch.einsum("qsm,sw->qwm", b[:, images], share)
    mean_q = b @ query  # [Q, way, C]
    padded = images.new_zeros(len(counts), int(counts.max()))  # image 0 where there are fewer shots
    rank = torch.arange(len(images), device=a.device) - begin[of_class]
    padded[of_class, rank] = images
    valid = torch.arange(padded.shape[1], device=a.device) < counts.unsqueeze(1)  # [way, K]
    weight = valid.to(a.dtype) / counts.unsqueeze(1) / a.shape[-1]
    a = (a[:, padded] * weight[:, :, None]).flatten(2).transpose(0, 1)  # [way, Q, K P]
    mean_s = (a @ support[padded].flatten(1, 2)).transpose(0, 1)  # [Q, way, C]
    return ClassTerms(
        (mean_s * mean_q).sum(-1), mean_s.square().sum(-1), mean_q.square().sum(-1), mean_q.mean(1)
    )


@register
class ClassTermsOperator:
    """``lwfm::class_terms``."""

    name = "class_terms"

    @staticmethod
    def fake(
        a: Tensor, _b: Tensor, _support: Tensor, query: Tensor, _images: Tensor, begin: Tensor
    ) -> tuple[Tensor, ...]:
        """Allocate the three products of each query and class, and the features of each query."""
        Q, way = len(query), len(begin) - 1
        return (*(a.new_empty(Q, way) for _ in range(3)), a.new_empty(Q, query.shape[2]))

    @staticmethod
    def backward_fake(*arguments: Tensor) -> tuple[Tensor, ...]:
        """Allocate the gradients of the weights and features, which follow those of the four outputs."""
        return tuple(x.new_empty(x.shape) for x in arguments[4:8])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Any) -> None:  # noqa: ARG004
        """Keep the inputs; the backward operator recomputes the means."""
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate with respect to the weights and features."""
        operator = torch.ops.lwfm.class_terms_backward.default
        return (*operator(*grads, *ctx.saved_tensors), None, None)
