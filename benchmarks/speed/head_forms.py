"""Other forms of the head: tensor expressions, compiled ones, a CUDA graph."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import torch
from torch import Tensor, nn

from lwfm.bench.head_cases import ExpressionHead, with_parameters
from lwfm.nn import ClassLists, LWFMHead

if TYPE_CHECKING:
    from collections.abc import Callable

    from lwfm.bench.head import Step
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
    """The head with labels checked beforehand, as a CUDA graph needs it."""

    def __init__(self, head: LWFMHead) -> None:
        super().__init__()
        self.head = head
        self._classes: ClassLists | None = None

    def forward(self, support: Tensor, labels: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Compute as the head does, with the labels of the first call."""
        self._classes = self._classes or ClassLists(labels, len(support))
        outputs: tuple[Tensor, Tensor] = self.head(support, self._classes, query)
        return outputs


def prepare(head: nn.Module, call: Step) -> Step:
    """Return the step of a form; of a :class:`CapturedHead` the replay of its CUDA graph."""
    return captured(call) if isinstance(head, CapturedHead) else call


def captured(call: Step) -> Step:
    """Capture a call on the current CUDA device; it must not wait for the device."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
        torch.cuda.set_sync_debug_mode("error")  # a call that waits fails here, not while it is captured
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()

    def replay() -> list[Tensor]:
        graph.replay()
        return outputs

    return replay


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
