"""The episodes that benchmarks of the head share, and the forms of the head that they compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from unittest import mock

import torch
from torch import Tensor, nn

from lwfm.nn import LWFMHead

if TYPE_CHECKING:
    from collections.abc import Callable

DIMS = (512, 512)
QUERIES = 15  # per class
Inputs: TypeAlias = tuple[Tensor, Tensor, Tensor]
Form: TypeAlias = "Callable[[LWFMHead, int], nn.Module]"
"""Makes a module that computes what a head does, for maps of F x F."""


class Case(NamedTuple):
    """An episode: classes, support pictures of each, height and width of the maps."""

    way: int
    shot: int
    size: int

    def __str__(self) -> str:
        return f"{self.way}x{self.shot}xF{self.size}"


CASES = {
    str(case): case
    for case in (
        Case(5, 1, 3), Case(5, 5, 3), Case(20, 5, 3), Case(5, 5, 5), Case(20, 5, 5),
        Case(5, 1, 7), Case(5, 1, 10), Case(5, 1, 14),
    )
}  # fmt: skip


class ExpressionHead(LWFMHead):
    """The head through the tensor expressions that serve other devices."""

    def forward(self, *arguments: Any) -> Tensor | tuple[Tensor, Tensor]:
        """Compute as the base class does on a device without fused operators."""
        with mock.patch("lwfm.blocks.is_fused", return_value=False):
            return super().forward(*arguments)


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


FORMS: dict[str, Form] = {
    "products": lambda head, _: Products(head),
    "head": lambda head, _: head,
    "expressions": lambda head, size: with_parameters(ExpressionHead, head, size),
}


def new_head(head_class: type[nn.Module], size: int) -> nn.Module:
    """Build a head of the benchmark's layers in training mode, with a classifier."""
    return head_class(DIMS, feature_size=size, num_classes=64)


def with_parameters(head_class: type[nn.Module], head: LWFMHead, size: int) -> nn.Module:
    """Build a head of another class with the same parameters."""
    other = new_head(head_class, size)
    other.load_state_dict(head.state_dict())
    return other


def make_case(case: Case, form: Form) -> tuple[nn.Module, Inputs]:
    """Build one form of the head and an episode; equal for equal cases."""
    way, shot, size = case
    torch.manual_seed(0)
    support = torch.rand(way * shot, sum(DIMS), size, size).requires_grad_()
    query = torch.rand(way * QUERIES, sum(DIMS), size, size).requires_grad_()
    head = LWFMHead(DIMS, feature_size=size, num_classes=64)
    return form(head, size), (support, torch.arange(way * shot) % way, query)


def step(head: nn.Module, inputs: Inputs, *, backward: bool) -> list[Tensor]:
    """One forward pass in training mode, and the gradients of all inputs and parameters."""
    with torch.set_grad_enabled(backward):
        outputs = list(head(*inputs))
    if not backward:
        return outputs
    loss = outputs[0].square().mean() + outputs[1].square().mean()
    return outputs + list(torch.autograd.grad(loss, [inputs[0], inputs[2], *head.parameters()]))


def check_agreement(case: Case, forms: dict[str, Form]) -> None:
    """Raise ``RuntimeError`` unless all forms give the same logits and gradients."""
    expected = step(*make_case(case, FORMS["head"]), backward=True)
    for name in forms.keys() - {"products", "head"}:
        for actual, value in zip(step(*make_case(case, forms[name]), backward=True), expected, strict=True):
            error = float((actual.detach() - value.detach()).norm() / value.detach().norm())
            if not error < 1e-3:
                raise RuntimeError(f"{case}: {name} and head differ by {error:.1e}: nothing was timed")


def product_flops(case: Case, *, backward: bool) -> float:
    """Floating-point operations of :class:`Products`."""
    P = case.size**2
    s, q = case.way * case.shot * P, case.way * QUERIES * P
    forward = sum(2.0 * C * (2 * s * q + (s + q) * C) for C in DIMS)
    return forward * (3 if backward else 1)
