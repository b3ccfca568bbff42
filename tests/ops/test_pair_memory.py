"""Memory of the head in inference: no tensor grows with queries x images x positions x positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lwfm.ops._expressions
import lwfm.ops._implementation
from lwfm.nn import ClassShots, LWFMHead
from lwfm.ops import implementation, semantic_pixel_matching
from lwfm.ops._expressions import PAIR_BYTES
from lwfm.ops.correlation import ONE_KERNEL_PRODUCTS, is_one_kernel
from tests.helpers.episodes import random_episode

if TYPE_CHECKING:
    from collections.abc import Callable

    from lwfm.ops._implementation import Implementation


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches what operators return, and keeps the size of the largest tensor in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return result


def largest_bytes(call: Callable[[], object]) -> int:
    watch = LargestTensor()
    with torch.inference_mode(), watch:
        call()
    return watch.bytes


S, F, C = 12, 4, 4
P = F * F


@pytest.mark.parametrize("form", ["head", "operator"])
@pytest.mark.parametrize("name", ["kernels", "expressions"])
def test_blocks_of_pairs_stay_within_the_budget(
    form: str, name: Implementation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU with more products than the one kernel takes: R is written, in chunks of queries."""
    budget = 200_000
    monkeypatch.setattr(lwfm.ops._expressions, "PAIR_BYTES", budget)
    head = LWFMHead([C], feature_size=F).eval()
    labels = torch.arange(S) % 3

    def call(queries: int) -> object:
        if form == "head":
            return head(torch.rand(S, C, F, F), labels, torch.rand(queries, C, F, F))
        return semantic_pixel_matching(torch.rand(S, P, C), torch.rand(queries, P, C))

    with implementation(name):
        few, many = (largest_bytes(lambda n=queries: call(n)) for queries in (20, 600))  # type: ignore[misc]
    blocks = 4 * 600 * S * P * P  # bytes of all blocks at once: 7.4 MB
    assert few <= budget
    assert many <= max(budget, 8 * 600 * S * P)  # features [Q, P, C] and assignments [Q, S, P] do grow
    assert many < blocks / 6


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"queries": ONE_KERNEL_PRODUCTS // (4 * 16 * 16) + 1}, False),
        ({"queries": ONE_KERNEL_PRODUCTS // (4 * 16 * 16)}, True),
        ({"positions": 33, "queries": 2}, False),
        ({"device": "cpu"}, False),
        ({"recorded": True}, False),
        ({"kernels": False}, False),
    ],
    ids=["small", "more-products", "as-many-products", "33-positions", "cpu", "gradients", "no-kernels"],
)
def test_when_one_kernel_does_it_all(
    change: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = {"queries": 5, "positions": 16, "device": "cuda", "recorded": False, "kernels": True, **change}
    kinds = {"cpu", "cuda"} if case["kernels"] else {"cpu"}
    monkeypatch.setattr(lwfm.ops._implementation, "KERNEL_DEVICES", frozenset(kinds))
    with FakeTensorMode():
        s = torch.empty(4, case["positions"], 8, device=case["device"], requires_grad=case["recorded"])
        q = torch.empty(case["queries"], case["positions"], 8, device=case["device"])
        assert is_one_kernel(s, q) == expected
        with torch.no_grad():
            assert is_one_kernel(s, q) == (expected or case["recorded"])


def test_what_the_one_kernel_leaves_to_others_is_less_than_the_budget() -> None:
    assert (
        ONE_KERNEL_PRODUCTS * 8 < PAIR_BYTES
    )  # the blocks of the largest case, were they written in float64


def outputs_and_gradients(head: LWFMHead, *, queries: int) -> list[Tensor]:
    episode = random_episode((2, 3), queries, (6, 4), (3, 2), dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (*episode.support, *episode.query)]
    logits, class_logits = head(episode.support, episode.labels, episode.query)
    slopes = torch.autograd.grad(
        logits.square().sum() + class_logits.square().sum(), [*inputs, *head.parameters()]
    )
    return [logits, class_logits, *slopes]


@pytest.mark.parametrize("budget", [1, 4000, 9000], ids=lambda budget: f"{budget}B")
def test_chunks_of_queries_change_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    head = LWFMHead((6, 4), feature_size=[3, 2], num_classes=3, top_k=None).double()
    expected = outputs_and_gradients(head, queries=7)
    support, query = torch.rand(3, 4, 5), torch.rand(6, 4, 5)
    matched = semantic_pixel_matching(support, query)
    for name in ("PAIR_BYTES", "RECORDED_PAIR_BYTES"):
        monkeypatch.setattr(lwfm.ops._expressions, name, budget)
    torch.testing.assert_close(outputs_and_gradients(head, queries=7), expected)
    torch.testing.assert_close(semantic_pixel_matching(support, query), matched)
    episode = random_episode((2, 3), 7, (6, 4), (3, 2), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(semantic_pixel_matching(support, query), matched)
        logits = head(episode.support, episode.labels, episode.query)
    torch.testing.assert_close(list(logits), [x.detach() for x in expected[:2]])


def gradients_of_matching(function: Callable[..., tuple[Tensor, Tensor]], queries: int) -> list[Tensor]:
    inputs = [torch.rand(n, 4, 5, generator=torch.Generator().manual_seed(n)) for n in (3, queries)]
    for x in inputs:
        x.requires_grad_()
    similarity, assignment = function(*inputs, top_k=2)
    slopes = torch.autograd.grad(similarity.square().sum(), inputs)
    return [similarity, assignment, *slopes]


@pytest.mark.parametrize("dynamic", [None, False, True], ids=["automatic", "static", "dynamic"])
def test_chunks_compile(dynamic: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lwfm.ops._expressions, "RECORDED_PAIR_BYTES", 400)
    compiled = torch.compile(semantic_pixel_matching, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for queries in (7, 6):
        expected = gradients_of_matching(semantic_pixel_matching, queries)
        torch.testing.assert_close(gradients_of_matching(compiled, queries), expected)


def random_maps(images: int) -> Tensor:
    return torch.rand(images, 4, 2, 2, generator=torch.Generator().manual_seed(images))


@pytest.mark.parametrize("name", ["attention_temperature", "matching_weight"])
@pytest.mark.parametrize("dynamic", [None, True], ids=["second-value", "dynamic"])
def test_chunks_of_a_head_compile(dynamic: bool | None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of the head become symbolic: with ``dynamic`` at once, else when they change."""
    monkeypatch.setattr(lwfm.ops._expressions, "RECORDED_PAIR_BYTES", 400)
    head = LWFMHead([4], feature_size=2)
    shots = ClassShots(torch.tensor([0, 1, 1]), 3)
    support, query = random_maps(3), random_maps(4)
    compiled = torch.compile(head, fullgraph=True, backend="eager", dynamic=dynamic)
    for number in (0.5, 0.25):
        setattr(head, name, number)
        both = []
        for call in (head, compiled):
            logits = call(support, shots, query)
            both.append(
                [logits, *torch.autograd.grad(logits.square().sum(), [*head.embeddings.parameters()])]
            )
        torch.testing.assert_close(both[1], both[0])


@pytest.mark.parametrize("changed", ["support", "query", "support_embedded", "query_embedded"])
@pytest.mark.parametrize("budget", [1, 2**20], ids=["chunks", "at-once"])
def test_features_modified_in_place_have_no_gradient(
    changed: str, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are recomputed in the backward pass: of other numbers, if nothing compared versions."""
    monkeypatch.setattr(lwfm.ops._expressions, "RECORDED_PAIR_BYTES", budget)
    leaves = {
        name: torch.rand(3, 4, 5, requires_grad=True) for name in ("support_embedded", "query_embedded")
    }
    plain = {name: torch.rand(3, 4, 5) for name in ("support", "query")}
    features: Any = {name: x * 1 for name, x in {**plain, **leaves}.items()}
    similarity, _ = semantic_pixel_matching(**features)
    features[changed].mul_(-1)
    if budget > 1 and changed in plain:  # the costs are not read again
        torch.autograd.backward(similarity.sum())
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.backward(similarity.sum())


@pytest.mark.parametrize("matching", [True, False], ids=["matching", "no-matching"])
@pytest.mark.parametrize("budget", [1, 2**20], ids=["chunks", "at-once"])
def test_embeddings_modified_in_place_have_no_gradient(
    budget: int, matching: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lwfm.ops._expressions, "RECORDED_PAIR_BYTES", budget)
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


def test_head_keeps_its_own_copy_of_the_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lwfm.ops._expressions, "RECORDED_PAIR_BYTES", 1)
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
