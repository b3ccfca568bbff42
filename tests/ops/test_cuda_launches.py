"""On a GPU: streams, graphs, determinism, and tensors with more than 2^31 elements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from lwfm.ops import linear_assignment
from lwfm.ops._expressions import ScaledBlocks
from lwfm.ops.embedding_weights import embedding_weights
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
