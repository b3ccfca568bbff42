"""Operators and head under torch's transforms: derivatives of torch.func, vmap, meta tensors, export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from lwfm.nn import ClassLists, LWFMHead, SemanticPixelMatching
from lwfm.ops import (
    implementation,
    layer_wise_embedding,
    linear_assignment,
    paired_pixel_matching,
    semantic_pixel_matching,
)

if TYPE_CHECKING:
    from collections.abc import Callable

LABELS = torch.tensor([1, 0, 1])


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head_of(**options: Any) -> LWFMHead:
    torch.manual_seed(0)
    return LWFMHead([4, 3], feature_size=2, **options).double().eval()


def functions() -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Differentiable functions of one tensor, and where each is evaluated."""
    q, maps = normal(2, 4, 3, seed=1), normal(3, 7, 2, 2, seed=3)
    head, merged = head_of(), head_of(merge_shots=True)
    return {
        "matching": (lambda s: semantic_pixel_matching(s, q, top_k=2)[0], normal(2, 4, 3, seed=0)),
        "paired": (lambda s: paired_pixel_matching(s, q, top_k=None)[0], normal(2, 4, 3, seed=0)),
        "embedding": (lambda s: torch.cat(layer_wise_embedding(s, q)), normal(2, 4, 3, seed=0)),
        "head": (lambda s: head(s, LABELS, maps), normal(3, 7, 2, 2, seed=2)),
        "merged": (lambda s: merged(s, LABELS, maps), normal(3, 7, 2, 2, seed=2)),
    }


@pytest.mark.parametrize("name", functions())
def test_forward_mode_derivatives(name: str) -> None:
    """Kernels have none, and torch would take zero in silence."""
    function, x = functions()[name]
    expected = torch.autograd.functional.jacobian(function, x)  # type: ignore[no-untyped-call]
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(torch.func.jacfwd(function)(x), expected)
    direction = normal(*x.shape, seed=9)
    tangent = torch.func.jvp(function, (x,), (direction,))[1]
    torch.testing.assert_close(
        tangent, torch.einsum("...a,a->...", expected.flatten(-x.ndim), direction.flatten())
    )


def test_forward_mode_derivatives_of_parameters() -> None:
    head, maps = head_of(matching_weight=1.0), normal(3, 7, 2, 2, seed=2)
    parameters = {name: x.detach() for name, x in head.named_parameters()}

    def logits(parameters: dict[str, Tensor]) -> Any:
        return torch.func.functional_call(head, parameters, (maps, LABELS, maps.flip(0)))

    with implementation("expressions"):
        expected = torch.func.jacrev(logits)(parameters)
    assert max(x.abs().max() for x in expected.values()) > 0.001
    torch.testing.assert_close(torch.func.jacfwd(logits)(parameters), expected)


@pytest.mark.parametrize("name", functions())
def test_functional_derivatives_by_expressions(name: str) -> None:
    function, x = functions()[name]
    expected = torch.autograd.functional.jacobian(function, x)  # type: ignore[no-untyped-call]
    with implementation("expressions"):
        torch.testing.assert_close(torch.func.jacrev(function)(x), expected)
        assert torch.func.hessian(lambda x: function(x).square().sum())(x).isfinite().all()


def test_head_under_vmap_by_expressions() -> None:
    head, support, queries = head_of(), normal(3, 7, 2, 2, seed=0), normal(5, 2, 7, 2, 2, seed=1)
    expected = torch.stack([head(support, LABELS, query) for query in queries])
    with implementation("expressions"):
        logits = torch.vmap(lambda query: head(support, LABELS, query))(queries)
    torch.testing.assert_close(logits, expected)


class Classifier(nn.Module):
    """A head with the classes of its support images fixed."""

    def __init__(self, *, merge_shots: bool) -> None:
        super().__init__()
        self.head, self.classes = head_of(merge_shots=merge_shots), ClassLists(LABELS)

    def forward(self, support: Tensor, query: Tensor) -> Any:
        return self.head(support, self.classes, query)


@pytest.mark.parametrize("merge", [False, True], ids=["each-shot", "merged"])
@pytest.mark.parametrize("how", ["export", "compile"])
def test_head_with_fixed_classes_is_one_graph(how: str, merge: bool) -> None:
    support, query = normal(3, 7, 2, 2, seed=0), normal(5, 7, 2, 2, seed=1)
    classifier = Classifier(merge_shots=merge)
    expected = head_of(merge_shots=merge)(support, LABELS, query)
    if how == "export":
        logits = torch.export.export(classifier, (support, query)).module()(support, query)
    else:
        logits = torch.compile(classifier, fullgraph=True, backend="aot_eager")(support, query)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("name", ["kernels", "expressions"])
@pytest.mark.parametrize("P", [4, 700], ids=["small", "large"])
def test_meta_tensors_give_shapes(name: Any, P: int) -> None:
    s, q = torch.empty(2, P, 3, device="meta"), torch.empty(5, 6, 3, device="meta").half()
    with implementation(name):
        similarity, assignment = semantic_pixel_matching(s, q.float(), top_k=None)
        a, b = layer_wise_embedding(s.half(), q)
        paired, matches = paired_pixel_matching(
            s, q[:2].float(), support_embedded=s, query_embedded=q[:2].float()
        )
        columns = linear_assignment(s)
    shapes = {
        (5, 2): similarity, (5, 2, P): a, (5, 2, 6): b, (2,): paired, (2, P): matches,
    }  # fmt: skip
    assert all(x.is_meta and x.shape == shape and x.dtype != torch.float16 for shape, x in shapes.items())
    assert (assignment.shape, assignment.dtype) == ((5, 2, P), torch.int64)
    assert (columns.shape, columns.is_meta) == ((2, P), True)


@pytest.mark.parametrize("merge", [False, True], ids=["each-shot", "merged"])
@pytest.mark.parametrize("name", ["kernels", "expressions"])
def test_meta_maps_give_logits_on_meta(name: Any, merge: bool) -> None:
    with torch.device("meta"), implementation(name):
        head = LWFMHead([4, 3], feature_size=2, num_classes=9, merge_shots=merge)
        support, query = torch.empty(3, 7, 2, 2), torch.empty(5, 7, 2, 2)
        logits, class_logits = head(support, LABELS, query)
        torch.autograd.backward(logits.sum() + class_logits.sum())
        with pytest.raises(ValueError, match="keep them on the CPU"):
            head(support, LABELS.to("meta"), query)
    assert [(x.shape, x.is_meta) for x in (logits, class_logits)] == [((5, 2), True), ((5, 9), True)]
    for parameter in head.parameters():
        assert parameter.grad is not None
        assert (parameter.grad.shape, parameter.grad.is_meta) == (parameter.shape, True)


def test_meta_maps_of_a_matching_module() -> None:
    with torch.device("meta"):
        similarity = SemanticPixelMatching(4)(torch.empty(3, 4, 2, 2), torch.empty(5, 4, 3, 3))
    assert (similarity.shape, similarity.is_meta) == ((5, 3), True)
