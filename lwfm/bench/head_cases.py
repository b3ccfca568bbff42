"""The episodes of the benchmarks of the head, the forms to compare, and a step on an episode."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from lwfm.nn import LWFMHead
from lwfm.ops import implementation

if TYPE_CHECKING:
    from collections.abc import Callable

DIMS = (512, 512)
CPU = torch.device("cpu")
Inputs: TypeAlias = tuple[Tensor, Tensor, Tensor]
Form: TypeAlias = "Callable[[LWFMHead, int], nn.Module]"
"""Build a module that computes what a head does, for maps of F x F."""


class Case(NamedTuple):
    """An episode: classes, support images of each, height and width of the maps, queries of each class."""

    way: int
    shot: int
    size: int
    queries: int = 15

    def __str__(self) -> str:
        return f"{self.way}x{self.shot}xF{self.size}"


CASES = {
    str(case): case
    for case in (
        Case(5, 1, 3), Case(5, 5, 3), Case(20, 5, 3), Case(5, 5, 5), Case(20, 5, 5),
        Case(5, 1, 7), Case(5, 1, 10), Case(5, 1, 14),
    )
}  # fmt: skip


def new_head(head_class: type[nn.Module], size: int) -> nn.Module:
    """Build a head of the benchmark's layers in training mode, with a classifier."""
    return head_class(DIMS, feature_size=size, num_classes=64)


def with_parameters(head_class: type[nn.Module], head: LWFMHead, size: int) -> nn.Module:
    """Build a head of another class with the same parameters."""
    other = new_head(head_class, size)
    other.load_state_dict(head.state_dict())
    return other


class Products(nn.Module):
    """The matrix products of the head by ``torch.matmul``: both correlations and the embedding."""

    def __init__(self, head: LWFMHead) -> None:
        super().__init__()
        self.weights = nn.ParameterList(list(head.embeddings.parameters()))

    def forward(self, support: Tensor, _labels: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply; the returned sums bring every product into the backward pass."""
        maps = [x.flatten(2).transpose(1, 2).contiguous() for x in (support, query)]
        sums = []
        layers = (torch.split_with_sizes(x, list(DIMS), dim=-1) for x in maps)
        for layer, (s, q) in enumerate(zip(*layers, strict=True)):
            s, q = s.reshape(-1, s.shape[-1]), q.reshape(-1, q.shape[-1])
            w1, w2 = self.weights[2 * layer], self.weights[2 * layer + 1]
            embedded = [x @ w1.T @ w2.T for x in (s, q)]
            sums += [(s @ q.T).sum(), (embedded[0] @ embedded[1].T).sum()]
        return torch.stack(sums), sums[0]


class ExpressionHead(nn.Module):
    """The head computed by tensor expressions instead of kernels."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Compute as the head does on a device without kernels."""
        with implementation("expressions"):
            outputs: tuple[Tensor, Tensor] = self.head(*inputs)
        return outputs


FORMS: dict[str, Form] = {
    "products": lambda head, _: Products(head),
    "head": lambda head, _: head,
    "expressions": lambda head, _: ExpressionHead(head),
}
"""The matrix products alone, and the complete head by kernels and by expressions."""


def make_case(case: Case, form: Form, device: torch.device = CPU) -> tuple[nn.Module, Inputs]:
    """Build one form of the head and an episode on a device, the same for equal cases."""
    way, shot, size, queries = case
    torch.manual_seed(0)
    support = torch.rand(way * shot, sum(DIMS), size, size)
    query = torch.rand(way * queries, sum(DIMS), size, size)
    head = form(LWFMHead(DIMS, feature_size=size, num_classes=64), size).to(device)
    support, query = (x.to(device).requires_grad_() for x in (support, query))
    return head, (support, torch.arange(way * shot, device=device) % way, query)


def step(head: nn.Module, inputs: Inputs, *, backward: bool) -> list[Tensor]:
    """Run a forward pass in training mode; with ``backward`` append all gradients to its outputs."""
    with torch.set_grad_enabled(backward):
        outputs = list(head(*inputs))
    if not backward:
        return outputs
    loss = outputs[0].square().mean() + outputs[1].square().mean()
    return outputs + list(torch.autograd.grad(loss, [inputs[0], inputs[2], *head.parameters()]))


def expected_of(case: Case) -> list[Tensor]:
    """Return logits, class logits and gradients of the head on the CPU."""
    head, inputs = make_case(case, lambda head, _: head)
    return [x.detach() for x in step(head, inputs, backward=True)]


def check_agreement(case: Case, name: str, actual: list[Tensor], expected: list[Tensor]) -> None:
    """Raise ``RuntimeError`` unless a form returns the head's logits and, if it computed them, gradients.

    On a GPU products are rounded differently, and a few of thousands of assignments may differ.
    """
    for x, y in zip(actual, expected[: len(actual)], strict=True):
        error = float((x.detach().cpu() - y).norm() / y.norm())
        if not error < (1e-3 if x.device.type == "cpu" else 1e-2):
            raise RuntimeError(f"{case}: {name} and the head differ by {error:.1e}: it was not timed")


def product_flops(case: Case, *, backward: bool, correlations: int = 2) -> float:
    """Count the floating-point operations of :class:`Products`.

    With one correlation instead of two: those of the head, which compares only matched embedded positions.
    """
    P = case.size**2
    s, q = case.way * case.shot * P, case.way * case.queries * P
    forward = sum(2.0 * C * (correlations * s * q + (s + q) * C) for C in DIMS)
    return forward * (3 if backward else 1)
