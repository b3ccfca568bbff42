"""Weights of layer-wise embedding: equal to the oracle, and a complete torch operator."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import lwfm.reference
from lwfm._common.devices import torch_threads
from lwfm.nn import LWFMHead
from lwfm.ops import implementation, layer_wise_embedding
from lwfm.ops._expressions import ScaledBlocks, cosine_blocks, pair_blocks
from lwfm.ops.embedding_weights import embedding_weights
from tests.helpers.episodes import random_episode

SHAPES = [(9, 9), (1, 1), (4, 7), (7, 4), (25, 25), (3, 40)]
SHAPE_IDS = [f"{P}x{M}" for P, M in SHAPES]


def random_blocks(
    P: int, M: int, dtype: torch.dtype, *, seed: int = 0, gradient: bool = True
) -> ScaledBlocks:
    """Blocks of 2 queries and 3 support images, as views of one product and expanded factors."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        x = torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)
        return x.requires_grad_(gradient)

    raw = leaf(3 * P, 2 * M).view(3, P, 2, M).permute(2, 0, 1, 3)
    return pair_blocks(raw, leaf(3, P), leaf(2, M))


def gradients(outputs: tuple[Tensor, ...], blocks: ScaledBlocks) -> tuple[Tensor, ...]:
    """Gradients of the blocks of a sum that weighs every output differently."""
    weights = [torch.linspace(-1, 2, x.numel(), dtype=x.dtype).view_as(x) for x in outputs]
    return torch.autograd.grad([(w * x).sum() for w, x in zip(weights, outputs, strict=True)], list(blocks))


def assert_close(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """Compare tensors up to rounding that grows with the sums behind them."""
    for x, y in zip(actual, expected, strict=True):
        scale = float(y.detach().abs().max())
        tolerance = 500 * torch.finfo(x.dtype).eps * (1 + scale)
        torch.testing.assert_close(x, y, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("P", "M"), SHAPES, ids=SHAPE_IDS)
def test_weights_equal_the_expressions(P: int, M: int, dtype: torch.dtype) -> None:
    blocks = random_blocks(P, M, dtype)
    fused = embedding_weights(blocks, 2.0)
    fused_gradients = gradients(fused, blocks)
    with implementation("expressions"):
        expected = embedding_weights(blocks, 2.0)
    assert_close(fused, expected)
    assert_close(fused_gradients, gradients(expected, blocks))


def test_gradcheck_of_the_weights() -> None:
    blocks = [x.detach().clone().requires_grad_() for x in random_blocks(3, 4, torch.float64)]
    assert torch.autograd.gradcheck(lambda *x: embedding_weights(ScaledBlocks(*x), 2.0), blocks)


@pytest.mark.parametrize("gradient", [True, False], ids=["gradient", "plain"])
@pytest.mark.parametrize(("P", "M"), [(4, 5), (5, 4)], ids=["wide", "tall"])
def test_opcheck(P: int, M: int, dtype: torch.dtype, gradient: bool) -> None:
    blocks = tuple(x.detach() for x in random_blocks(P, M, dtype))
    if gradient:
        blocks = tuple(x.clone().requires_grad_() for x in blocks)
    torch.library.opcheck(torch.ops.lwfm.embedding_weights.default, (*blocks, 2.0))
    plain = tuple(x.detach() for x in blocks)
    a, b = torch.ops.lwfm.embedding_weights.default(*plain, 2.0)
    torch.library.opcheck(torch.ops.lwfm.embedding_weights_backward.default, (a, b, *plain, 2.0))


def test_every_number_of_threads_gives_the_same_bits() -> None:
    episode = random_episode((3, 4), 40, (16, 8), (3, 5))
    head = LWFMHead(episode.dims, feature_size=[3, 5], top_k=2)
    blocks = random_blocks(9, 9, torch.float32)
    results = []
    for count in (1, 2, 5):
        with torch_threads(count):
            outputs = embedding_weights(blocks, 5.0)
            results.append((*outputs, *gradients(outputs, blocks)))
            logits = head(episode.support, episode.labels, episode.query)
            assert isinstance(logits, Tensor)
            assert logits.isfinite().all()
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiles_without_graph_breaks(dynamic: bool) -> None:
    def loss(s: Tensor, q: Tensor) -> Tensor:
        blocks = cosine_blocks(s, q)
        a, b = embedding_weights(blocks, 5.0)
        return (a.square().sum() + b.square().sum()).sin()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for Q in (2, 3):
        inputs = [
            torch.rand(n, 4, 6, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (5, Q)
        ]
        expected = torch.autograd.grad(loss(*inputs), inputs)
        torch.testing.assert_close(torch.autograd.grad(compiled(*inputs), inputs), expected)


@pytest.mark.parametrize("name", ["kernels", "expressions"])
@pytest.mark.parametrize("scales", [(1e20, 1.0), (1.0, 1e20), (1e20, 1e20)], ids=["support", "query", "both"])
def test_weights_are_nan_where_squares_overflow(name: Any, scales: tuple[float, float]) -> None:
    s, q = torch.eye(3)[None] * scales[0], torch.eye(3)[None] * scales[1]
    with implementation(name):
        assert all(x.isnan().all() for x in layer_wise_embedding(s, q))
        assert all(x.isfinite().all() for x in layer_wise_embedding(s.double(), q.double()))


@pytest.mark.parametrize("dynamic", [None, True], ids=["second-value", "dynamic"])
def test_compiles_with_a_symbolic_temperature(dynamic: bool | None) -> None:
    compiled = torch.compile(layer_wise_embedding, fullgraph=True, backend="eager", dynamic=dynamic)
    s, q = (torch.rand(n, 4, 6, generator=torch.Generator().manual_seed(n)) for n in (2, 3))
    for temperature in (5.0, 2.0, 0.5, math.inf):
        expected = layer_wise_embedding(s, q, temperature=temperature)
        torch.testing.assert_close(compiled(s, q, temperature=temperature), expected)


def test_double_backward_is_refused() -> None:
    blocks = random_blocks(4, 4, torch.float64)
    output = embedding_weights(blocks, 2.0)[0]
    slope = torch.autograd.grad(output.square().sum(), blocks.raw, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="lwfm::embedding_weights can be differentiated once"):
        torch.autograd.backward(slope.sum())


def test_empty_batches() -> None:
    blocks = ScaledBlocks(torch.rand(0, 3, 4, 5), torch.rand(0, 3, 4), torch.rand(0, 3, 5))
    assert [list(x.shape) for x in embedding_weights(blocks, 5.0)] == [[0, 3, 4], [0, 3, 5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raw": torch.rand(3)}, "raw must be"),
        ({"raw": torch.rand(2, 4, 5).half()}, "float32 or float64"),
        ({"raw": torch.rand(2, 0, 5)}, "at least one position"),
        ({"row_scale": torch.rand(2, 5)}, "row_scale of raw"),
        ({"column_scale": torch.rand(3, 5)}, "column_scale of raw"),
        ({"column_scale": torch.rand(2, 5).double()}, "column_scale of raw"),
    ],
    ids=["rank", "dtype", "no-positions", "row-scale", "batch", "mixed-dtypes"],
)
def test_bad_blocks_are_refused(change: dict[str, Tensor], message: str) -> None:
    blocks: dict[str, Any] = {
        "raw": torch.rand(2, 4, 5),
        "row_scale": torch.rand(2, 4),
        "column_scale": torch.rand(2, 5),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        embedding_weights(ScaledBlocks(**blocks), 5.0)


def test_layer_wise_embedding_equals_the_oracle() -> None:
    generator = torch.Generator().manual_seed(0)
    support, query = (torch.randn(n, P, 6, generator=generator).double() for n, P in ((3, 4), (2, 5)))
    a, b = layer_wise_embedding(support, query, temperature=2.0)
    for q in range(2):
        for s in range(3):
            expected = lwfm.reference.layer_wise_embedding(support[s], query[q], 2.0)
            torch.testing.assert_close((a[q, s], b[q, s]), expected)


def test_bad_temperature_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        layer_wise_embedding(torch.rand(2, 4, 5), torch.rand(2, 4, 5), temperature=0.0)
