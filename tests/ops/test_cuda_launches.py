"""On a GPU: streams, graphs, determinism, and tensors with more than 2^31 elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from lwfm.nn import ClassLists, LWFMHead
from lwfm.ops import linear_assignment
from lwfm.ops._expressions import ScaledBlocks
from lwfm.ops.embedding_weights import embedding_weights
from lwfm.ops.episodes import products_in_kernel
from lwfm.ops.feature_matching import feature_matching
from tests.helpers.feature_inputs import operators

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.gpu
NAMES = [name + suffix for name in ("feature_matching", "encode_maps", "episodes")
         for suffix in ("", "_backward")]  # fmt: skip
ROOMY = torch.cuda.is_available() and torch.cuda.get_device_properties(0).total_memory > 60 * 2**30


def named(name: str, device: str = "cuda") -> Callable[[], list[Tensor]]:
    """Return a call of an operator that always has the same arguments."""
    calls = operators(False, torch.device(device), torch.float32)
    operator = getattr(torch.ops.lwfm, name).default
    arguments = calls[operator]

    def call() -> list[Tensor]:
        result: Any = operator(*arguments)
        return list(result)

    return call


@pytest.mark.parametrize("name", NAMES)
def test_captured_in_a_graph(name: str) -> None:
    call = named(name)
    expected = call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        actual = call()
    for x in actual:
        x.fill_(7)
    graph.replay()
    assert all(torch.equal(x, y) for x, y in zip(actual, expected, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_of_ones_own(name: str) -> None:
    call = named(name)
    expected = call()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        actual = call()
    stream.synchronize()
    assert all(torch.equal(x, y) for x, y in zip(actual, expected, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", NAMES)
def test_the_second_device(name: str) -> None:
    """Its tensors decide, not the current device."""
    expected = named(name)()
    with torch.cuda.device(0):
        actual = named(name, "cuda:1")()
    assert all(x.device == torch.device("cuda:1") for x in actual)
    assert all(torch.equal(x.cpu(), y.cpu()) for x, y in zip(actual, expected, strict=True))


LIBRARY = {"aten::bmm", "aten::mm", "aten::index_select", "aten::cat", "aten::embedding_dense_backward"}


def launches(function: Callable[[], Any]) -> int:
    """Count the kernels of this package that a call launches, and the calls of libraries."""
    activities = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activities.CPU, activities.CUDA]) as profile:
        function()
        torch.cuda.synchronize()
    return sum(
        event.name in LIBRARY or (str(event.device_type) == "DeviceType.CUDA" and "lwfm" in event.name)
        for event in profile.events()
    )


@pytest.mark.parametrize("in_kernel", [False, True], ids=["matrix-products", "products-in-the-kernel"])
def test_few_launches(in_kernel: bool) -> None:
    """Of two equal layers with an embedding; the bounds of docs/kernel_tests.md."""
    head = LWFMHead([16, 16]).cuda().eval()
    maps = torch.rand(12, 32, 3, 3, device="cuda", requires_grad=True)
    classes = ClassLists([0, 1] * 2, device="cuda")
    encoded = head.encode(maps.detach())
    support, query = encoded[:4], encoded[4:]
    with products_in_kernel(in_kernel):
        with torch.no_grad():
            head.compare(support, classes, query)  # the first call may load libraries
            # Less the concatenation of both sides, a tensor for each layer and part.
            assert launches(lambda: head.compare(support, classes, query)) - 5 * 2 <= (1 if in_kernel else 5)
            assert launches(lambda: head(maps[:4], classes, maps[4:])) <= 12
        logits = head(maps[:4], classes, maps[4:])
        assert launches(lambda: torch.autograd.backward(logits.sum())) <= 24


@pytest.mark.skipif(not ROOMY, reason="needs a GPU of more than 60 GiB")
@pytest.mark.parametrize("P", [9, 40], ids=["warps", "blocks"])
def test_more_elements_than_32_bits_count(P: int) -> None:
    """The results of repeated pairs are repeated, at the very end too."""
    few = 1000
    repeats = 2**31 // (few * P * P) + 1
    raw = torch.rand(few, P, P, generator=torch.Generator().manual_seed(0)).cuda()
    scale = torch.ones(few, P, device="cuda")

    def results(times: int) -> list[Tensor]:
        blocks = ScaledBlocks(raw.repeat(times, 1, 1), scale.repeat(times, 1), scale.repeat(times, 1))
        assignment = linear_assignment(blocks.raw)
        features = raw[:, :, :4].repeat(times, 1, 1)
        return [assignment, *embedding_weights(blocks, 2.0), *feature_matching(blocks, features, features, 1)]

    expected = results(1)
    for x, y in zip(results(repeats), expected, strict=True):
        assert torch.equal(x.view(repeats, *y.shape), y.expand(repeats, *y.shape))
