"""Matching of all pairs in chunks of queries: bounded memory, equal results, gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

import lwfm.ops.feature_matching
from lwfm.nn import ClassLists, LWFMHead
from lwfm.ops import implementation, semantic_pixel_matching
from lwfm.ops._expressions import raw_correlation

if TYPE_CHECKING:
    from collections.abc import Callable

C = 4


def set_budget(patch: pytest.MonkeyPatch, budget: int) -> None:
    patch.setattr(lwfm.ops.feature_matching, "PAIR_BYTES", budget)


@pytest.mark.parametrize("name", ["kernels", "expressions"])
def test_blocks_of_pairs_stay_within_the_budget(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, sizes = raw_correlation, []

    def watched(support: Tensor, query: Tensor) -> Tensor:
        raw = compute(support, query)
        sizes.append(raw.numel() * raw.element_size())
        return raw

    monkeypatch.setattr(lwfm.ops.feature_matching, "raw_correlation", watched)
    set_budget(monkeypatch, 200_000)
    with implementation(name):
        semantic_pixel_matching(torch.rand(12, 16, C), torch.rand(600, 16, C))
    assert max(sizes) <= 200_000
    assert sum(sizes) == 4 * 600 * 12 * 16 * 16


def gradients_of_matching(function: Callable[..., tuple[Tensor, Tensor]], queries: int) -> list[Tensor]:
    inputs = [torch.rand(n, 4, 5, generator=torch.Generator().manual_seed(n)) for n in (3, queries)]
    for x in inputs:
        x.requires_grad_()
    similarity, assignment = function(*inputs, top_k=2)
    slopes = torch.autograd.grad(similarity.square().sum(), inputs)
    return [similarity, assignment, *slopes]


@pytest.mark.parametrize("budget", [1, 400, 900], ids=lambda budget: f"{budget}B")
def test_chunks_of_queries_change_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = gradients_of_matching(semantic_pixel_matching, 7)
    set_budget(monkeypatch, budget)
    torch.testing.assert_close(gradients_of_matching(semantic_pixel_matching, 7), expected)


@pytest.mark.parametrize("dynamic", [None, False, True], ids=["automatic", "static", "dynamic"])
def test_chunks_compile(dynamic: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    set_budget(monkeypatch, 400)
    compiled = torch.compile(semantic_pixel_matching, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for queries in (7, 6):
        expected = gradients_of_matching(semantic_pixel_matching, queries)
        torch.testing.assert_close(gradients_of_matching(compiled, queries), expected)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "inference"])
def test_nan_is_named_by_the_number_of_its_query_among_all(
    recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_budget(monkeypatch, 1)
    support, query = torch.rand(3, 4, 5, requires_grad=recorded), torch.rand(6, 4, 5)
    query[4, 1, 0] = torch.nan
    with pytest.raises(ValueError, match=r"cost\[4, 0, 0, 1\] is nan .*; features are NaN or infinite"):
        semantic_pixel_matching(support, query)


@pytest.mark.parametrize("name", ["attention_temperature", "matching_weight"])
@pytest.mark.parametrize("dynamic", [None, True], ids=["second-value", "dynamic"])
def test_a_head_compiles_with_symbolic_numbers(dynamic: bool | None, name: str) -> None:
    """Numbers of the head become symbolic: with ``dynamic`` at once, else when they change."""
    head = LWFMHead([C], feature_size=2)
    classes = ClassLists([0, 1, 1])
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.rand(n, C, 2, 2, generator=generator) for n in (3, 4))
    compiled = torch.compile(head, fullgraph=True, backend="eager", dynamic=dynamic)
    for number in (0.5, 0.25):
        setattr(head, name, number)
        both = []
        for call in (head, compiled):
            logits = call(support, classes, query)
            both.append(
                [logits, *torch.autograd.grad(logits.square().sum(), [*head.embeddings.parameters()])]
            )
        torch.testing.assert_close(both[1], both[0])


@pytest.mark.parametrize("changed", ["support", "query", "support_embedded", "query_embedded"])
@pytest.mark.parametrize("budget", [1, 2**20], ids=["chunks", "at-once"])
def test_features_modified_in_place_have_no_gradient(
    changed: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_budget(monkeypatch, budget)
    leaves = {
        name: torch.rand(3, 4, 5, requires_grad=True) for name in ("support_embedded", "query_embedded")
    }
    plain = {name: torch.rand(3, 4, 5) for name in ("support", "query")}
    features: Any = {name: x * 1 for name, x in {**plain, **leaves}.items()}
    similarity, _ = semantic_pixel_matching(**features)
    features[changed].mul_(-1)
    if changed in plain:  # the costs are not read again
        torch.autograd.backward(similarity.sum())
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(similarity.sum())


@pytest.mark.parametrize("matching", [True, False], ids=["matching", "no-matching"])
def test_embeddings_modified_in_place_have_no_gradient(matching: bool) -> None:
    head = LWFMHead([C], feature_size=2, matching_weight=0.25 if matching else 0.0).eval()
    maps = torch.rand(3, C, 2, 2, requires_grad=True)
    logits = head(maps, torch.tensor([0, 1, 1]), torch.rand(4, C, 2, 2))
    with torch.no_grad():
        for weight in head.embeddings.parameters():
            weight.mul_(2)
    if not matching:  # the weights are not read
        torch.autograd.backward(logits.square().sum())
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(logits.square().sum())


def test_head_keeps_its_own_copy_of_the_maps() -> None:
    head = LWFMHead([C], feature_size=2).eval()
    support, query, labels = torch.rand(3, C, 2, 2), torch.rand(4, C, 2, 2), torch.tensor([0, 1, 1])
    slopes = []
    for change in (False, True):
        maps = support.clone().requires_grad_()
        inputs = maps * 1, query.clone()
        logits = head(inputs[0], labels, inputs[1])
        if change:
            for x in inputs:
                x.relu_().mul_(-1)
        slopes.append(torch.autograd.grad(logits.square().sum(), maps)[0])
    torch.testing.assert_close(*slopes, rtol=0, atol=0)


@pytest.mark.parametrize("part", ["positions", "squares", "grams", "embedded"])
def test_encoded_maps_modified_in_place_have_no_gradient(part: str) -> None:
    head = LWFMHead([C], feature_size=2)
    images = head.encode(torch.rand(5, C, 2, 2))
    base = head.compare_episodes(images, torch.tensor([[0, 1]]), torch.tensor([[2]]), [0, 1]).base
    with torch.no_grad():
        getattr(images, part)[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(base.sum())
