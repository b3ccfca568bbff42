"""The head as a CUDA graph: what it refuses, and on a GPU that it computes as the head does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lwfm.nn import ClassLists, GraphedHead, LWFMHead, graphed
from tests.helpers.feature_inputs import leaf

LABELS = [0, 1, 1]
CPU = torch.device("cpu")


def maps_of(n: int, *, seed: int = 0, device: torch.device = CPU) -> Tensor:
    return leaf(n, 11, 3, 3, device=device, dtype=torch.float32, seed=seed)


def head_of(device: torch.device = CPU) -> LWFMHead:
    torch.manual_seed(0)
    return LWFMHead([6, 5], num_classes=4).to(device)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> GraphedHead:
    """Return a head whose calls are replayed by the head itself, so that a CPU is enough."""
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda head, *_args, **_options: head)
    return GraphedHead(head_of(), maps_of(3), ClassLists(LABELS), maps_of(2))


def test_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="needs maps on a CUDA device, but they are on cpu"):
        graphed(head_of(), maps_of(3), LABELS, maps_of(2))


@pytest.mark.parametrize(
    "labels", [LABELS, torch.tensor(LABELS), ClassLists(LABELS)], ids=["list", "tensor", "lists"]
)
def test_the_same_labels_in_any_form(captured: GraphedHead, labels: Any) -> None:
    expected = captured.head(maps_of(3), LABELS, maps_of(2))
    torch.testing.assert_close(captured(maps_of(3), labels, maps_of(2)), expected)


@pytest.mark.parametrize(
    "apart", [(True, True), (True, False), (False, True)], ids=["both", "support", "query"]
)
def test_layers_apart(captured: GraphedHead, apart: tuple[bool, bool]) -> None:
    support, query = (
        torch.split_with_sizes(maps_of(n), [6, 5], dim=1) if split else maps_of(n)
        for n, split in zip((3, 2), apart, strict=True)
    )
    graph = GraphedHead(captured.head, support, captured.classes, query)
    expected = captured(maps_of(3), LABELS, maps_of(2))
    torch.testing.assert_close(graph(support, LABELS, query), expected)


def test_another_shape_is_refused(captured: GraphedHead) -> None:
    with pytest.raises(ValueError, match=r"float32 \[2, 11, 3, 3\] on cpu, got .*\[4, 11, 3, 3\]"):
        captured(maps_of(3), LABELS, maps_of(4))
    with pytest.raises(ValueError, match=r"captured for maps .* got float64"):
        captured(maps_of(3).double(), LABELS, maps_of(2).double())


@pytest.mark.parametrize("labels", [[0, 0, 1], ClassLists([1, 0, 0])], ids=["list", "ClassLists"])
def test_other_labels_are_refused(captured: GraphedHead, labels: Any) -> None:
    with pytest.raises(ValueError, match=r"captured for the labels \[0, 1, 1\], got"):
        captured(maps_of(3), labels, maps_of(2))


def test_another_mode_is_refused(captured: GraphedHead) -> None:
    captured.head.eval()
    with pytest.raises(RuntimeError, match="captured in training mode, and the head is in the other"):
        captured(maps_of(3), LABELS, maps_of(2))


def test_gradients_that_were_not_captured_are_refused(captured: GraphedHead) -> None:
    with pytest.raises(ValueError, match="other maps require a gradient"):
        captured(maps_of(3).detach(), LABELS, maps_of(2))
    with torch.no_grad():
        captured(maps_of(3).detach(), LABELS, maps_of(2))  # where there are none, it does not matter
        inference = GraphedHead(captured.head, maps_of(3), captured.classes, maps_of(2))
        inference(maps_of(3), LABELS, maps_of(2))
    with pytest.raises(RuntimeError, match="captured without gradients: call it inside"):
        inference(maps_of(3), LABELS, maps_of(2))


@pytest.mark.gpu
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_equals_the_head_with_gradients(training: bool) -> None:
    device = torch.device("cuda")
    head = head_of(device).train(training)
    fast = graphed(head, maps_of(3, device=device), LABELS, maps_of(2, device=device))
    classes = ClassLists(LABELS, device=device)

    def results(call: Any, seed: int) -> list[Tensor]:
        support, query = maps_of(3, seed=seed, device=device), maps_of(2, seed=seed + 1, device=device)
        outputs = call(support, classes, query)
        outputs = list(outputs) if training else [outputs]
        loss = torch.stack([x.square().sum() for x in outputs]).sum()
        inputs = [support, query, *head.embeddings.parameters()]
        return [*outputs, *torch.autograd.grad(loss, inputs)]

    for seed in (1, 5):
        torch.testing.assert_close(results(fast, seed), results(head, seed))


@pytest.mark.gpu
def test_results_of_inference_stay() -> None:
    """They are not in the memory that the next call writes, and follow changes of parameters."""
    device = torch.device("cuda")
    head = head_of(device).eval()
    with torch.no_grad():
        fast = graphed(head, maps_of(3, device=device), LABELS, maps_of(2, device=device))
        episodes = [(maps_of(3, seed=n, device=device), maps_of(2, seed=-n, device=device)) for n in (1, 2)]
        results = [fast(support, fast.classes, query) for support, query in episodes]
        expected = [head(support, LABELS, query) for support, query in episodes]
        torch.testing.assert_close(results, expected)
        for parameter in head.parameters():
            parameter.mul_(2)
        support, query = episodes[0]
        torch.testing.assert_close(fast(support, LABELS, query), head(support, LABELS, query))
