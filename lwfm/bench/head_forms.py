"""The forms of the head that benchmarks compare: what it computes, in other ways."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from torch import Tensor, nn

from lwfm.bench.head_cases import DIMS, Form, step, with_parameters
from lwfm.nn import LWFMHead
from lwfm.nn.class_means import ClassShots
from lwfm.ops import _expressions as blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lwfm.bench.head_cases import Inputs

    Correlate = Callable[[Tensor, Tensor], Tensor]


GRAPH = "head, CUDA graph"


class Products(nn.Module):
    """The matrix products that the mathematics asks for, by ``torch.matmul``.

    Correlations of the maps and of the embedded maps, and the embedding.
    """

    def __init__(self, head: LWFMHead) -> None:
        super().__init__()
        self.weights = nn.ParameterList(list(head.embeddings.parameters()))

    def forward(self, support: Tensor, _labels: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply; what is returned makes every product take part in the backward pass."""
        maps = [x.flatten(2).transpose(1, 2).contiguous() for x in (support, query)]
        sums = []
        layers = (torch.split_with_sizes(x, list(DIMS), dim=-1) for x in maps)
        for layer, (s, q) in enumerate(zip(*layers, strict=True)):
            s, q = s.reshape(-1, s.shape[-1]), q.reshape(-1, q.shape[-1])
            w1, w2 = self.weights[2 * layer], self.weights[2 * layer + 1]
            embedded = [x @ w1.T @ w2.T for x in (s, q)]
            sums += [(s @ q.T).sum(), (embedded[0] @ embedded[1].T).sum()]
        return torch.stack(sums), sums[0]


def correlate_by_einsum(support: Tensor, query: Tensor) -> Tensor:
    """As :func:`lwfm.ops._expressions.raw_correlation`, by ``torch.einsum``: R [Q, S, P, M]."""
    return torch.einsum("spc,qmc->qspm", support, query)


def correlate_by_distances(support: Tensor, query: Tensor) -> Tensor:
    """As :func:`lwfm.ops._expressions.raw_correlation`, by ``torch.cdist`` and norms: R [Q, S, P, M]."""
    (S, P, _), (Q, M, _) = support.shape, query.shape
    squares = [x.square().sum(-1).flatten() for x in (query, support)]
    distances = torch.cdist(query.flatten(0, 1), support.flatten(0, 1))  # [Q M, S P]
    product = (squares[0][:, None] + squares[1] - distances.square()) / 2
    return product.view(Q, M, S, P).permute(0, 2, 3, 1)


@contextlib.contextmanager
def tensor_expressions(correlate: Correlate) -> Iterator[None]:
    """Use no fused operator but the assignment's, and ``correlate`` to multiply positions."""

    def never(*_: object) -> bool:
        return False

    with (
        mock.patch("lwfm.ops._expressions.is_fused", never),
        mock.patch("lwfm.ops._expressions.has_pair_kernels", never),
        mock.patch("lwfm.nn.layer.is_one_kernel", never),
        mock.patch("lwfm.ops._expressions.raw_correlation", correlate),
        mock.patch("lwfm.nn.layer.raw_correlation", correlate),
    ):
        yield


class ExpressionHead(nn.Module):
    """The head through tensor expressions, compiled on request."""

    def __init__(self, head: LWFMHead, size: int, correlate: Correlate, *, compiled: bool = False) -> None:
        super().__init__()
        self.head = with_parameters(LWFMHead, head, size)
        self._correlate = correlate
        self._call: Callable[..., Any] = torch.compile(self.head, dynamic=False) if compiled else self.head

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute as the head does on a device without fused operators."""
        with tensor_expressions(self._correlate):
            outputs: tuple[Tensor, Tensor] = self._call(*inputs)
        return outputs


class CapturedHead(nn.Module):
    """The head with labels that were checked before: what a CUDA graph can hold."""

    def __init__(self, head: LWFMHead) -> None:
        super().__init__()
        self.head = head
        self._shots: ClassShots | None = None

    def forward(self, support: Tensor, labels: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Compute as the head does; the labels of the first call stay."""
        self._shots = shots = self._shots or ClassShots(labels, len(support))
        with mock.patch("lwfm.nn.head.ClassShots", return_value=shots):
            outputs: tuple[Tensor, Tensor] = self.head(support, labels, query)
        return outputs


def prepared_step(head: nn.Module, inputs: Inputs, *, backward: bool) -> Callable[[], list[Tensor]]:
    """Return a call that makes a step; for a :class:`CapturedHead` the replay of a CUDA graph."""

    def call() -> list[Tensor]:
        return step(head, inputs, backward=backward)

    return captured(call) if isinstance(head, CapturedHead) else call


def captured(call: Callable[[], list[Tensor]]) -> Callable[[], list[Tensor]]:
    """Capture what a call does on the current CUDA device; it must not wait for the device."""
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


def expressions(correlate: Correlate, *, compiled: bool = False) -> Form:
    """Return the form of the head that is made of tensor expressions."""
    return lambda head, size: ExpressionHead(head, size, correlate, compiled=compiled)


FORMS: dict[str, Form] = {
    "products": lambda head, _: Products(head),
    "head": lambda head, _: head,
    "expressions": expressions(blocks.raw_correlation),
}
"""What is compared on every device; products by ``torch.matmul``, the rest complete heads."""

CUDA_FORMS: dict[str, Form] = {
    **FORMS,
    "expressions, compiled": expressions(blocks.raw_correlation, compiled=True),
    GRAPH: lambda head, _: CapturedHead(head),
}

OTHER_PRODUCTS: dict[str, Form] = {
    "einsum": expressions(correlate_by_einsum),
    "einsum, compiled": expressions(correlate_by_einsum, compiled=True),
    "cdist": expressions(correlate_by_distances),
    "cdist, compiled": expressions(correlate_by_distances, compiled=True),
}
"""Tensor expressions that multiply positions in the ways that programs commonly do."""
