"""Other forms of the head: tensor expressions, compiled ones, a CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from unittest import mock

import torch
from torch import Tensor, nn

from lwfm.bench.head_cases import ExpressionHead, with_parameters
from lwfm.nn import GraphedHead, LWFMHead, graphed

if TYPE_CHECKING:
    from collections.abc import Callable

    from lwfm.bench.head_cases import Form

    Correlate = Callable[[Tensor, Tensor], Tensor]


def correlate_by_einsum(support: Tensor, query: Tensor) -> Tensor:
    """Compute ``raw_correlation`` by ``torch.einsum``: R [Q, S, P, M]."""
    return torch.einsum("spc,qmc->qspm", support, query)


def correlate_by_distances(support: Tensor, query: Tensor) -> Tensor:
    """Compute ``raw_correlation`` by ``torch.cdist`` and norms: R [Q, S, P, M]."""
    (S, P, _), (Q, M, _) = support.shape, query.shape
    squares = [x.square().sum(-1).flatten() for x in (query, support)]
    distances = torch.cdist(query.flatten(0, 1), support.flatten(0, 1))  # [Q M, S P]
    product = (squares[0][:, None] + squares[1] - distances.square()) / 2
    return product.view(Q, M, S, P).permute(0, 2, 3, 1)


class OtherProducts(ExpressionHead):
    """The head by tensor expressions that multiply positions in another way."""

    def __init__(self, head: nn.Module, correlate: Correlate) -> None:
        super().__init__(head)
        self._correlate = correlate

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute as the head does on a device without kernels."""
        with (
            mock.patch("lwfm.ops._expressions.raw_correlation", self._correlate),
            mock.patch("lwfm.ops.episodes.raw_correlation", self._correlate),
        ):
            return super().forward(*inputs)


class CapturedHead(nn.Module):
    """The head as a CUDA graph, captured in the first call."""

    def __init__(self, head: LWFMHead) -> None:
        super().__init__()
        self.head = head
        self._graph: GraphedHead | None = None

    def forward(self, support: Tensor, labels: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Compute as the head does, with the labels of the first call, which later ones do not wait for."""
        if self._graph is None:
            self._graph = graphed(self.head, support, labels, query)
        outputs = self._graph(support, self._graph.classes, query)
        return cast("tuple[Tensor, Tensor]", outputs)


def compiled(head: LWFMHead, size: int) -> nn.Module:
    """Return a compiled copy of the head."""
    copy = with_parameters(LWFMHead, head, size)
    copy.compile(dynamic=False)
    return copy


EXPRESSIONS: dict[str, Form] = {
    "einsum": lambda head, _: OtherProducts(head, correlate_by_einsum),
    "cdist": lambda head, _: OtherProducts(head, correlate_by_distances),
}
"""Tensor expressions that multiply positions in the ways that programs commonly do."""

CUDA_FORMS: dict[str, Form] = {
    "expressions, compiled": lambda head, size: ExpressionHead(compiled(head, size)),
    "einsum, compiled": lambda head, size: OtherProducts(compiled(head, size), correlate_by_einsum),
    "cdist, compiled": lambda head, size: OtherProducts(compiled(head, size), correlate_by_distances),
    "head, CUDA graph": lambda head, _: CapturedHead(head),
}
"""What takes long to compile or needs a CUDA device."""
