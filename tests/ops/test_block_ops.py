"""The fused operators on blocks: equal to the tensor expressions, and everything a torch user expects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import lwfm.ops._expressions
from lwfm.nn import LWFMHead
from lwfm.ops import semantic_pixel_matching
from lwfm.ops._expressions import (
    ScaledBlocks,
    cosine_blocks,
    embedding_weights,
    pair_blocks,
    pixel_matching,
)
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
def test_weights_equal_the_expressions(
    P: int, M: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = random_blocks(P, M, dtype)
    fused = embedding_weights(blocks, 2.0)
    fused_gradients = gradients(fused, blocks)
    monkeypatch.setattr(lwfm.ops._expressions, "is_fused", lambda _: False)
    expected = embedding_weights(blocks, 2.0)
    assert_close(fused, expected)
    assert_close(fused_gradients, gradients(expected, blocks))


@pytest.mark.parametrize("top_k", [1, 2, None], ids=["top1", "top2", "all"])
@pytest.mark.parametrize(("P", "M"), [(9, 9), (4, 7), (7, 4), (3, 40)], ids=str)
def test_matching_equals_the_expressions(
    P: int, M: int, top_k: int | None, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    cosines, compared = random_blocks(P, M, dtype), random_blocks(P, M, dtype, seed=1)
    similarity, assignment = pixel_matching(cosines, compared, top_k)
    fused_gradients = gradients((similarity,), compared)
    monkeypatch.setattr(lwfm.ops._expressions, "is_fused", lambda _: False)
    expected, expected_assignment = pixel_matching(cosines, compared, top_k)
    assert torch.equal(assignment, expected_assignment)
    assert_close((similarity,), (expected,))
    assert_close(fused_gradients, gradients((expected,), compared))


def test_gradcheck_of_the_weights() -> None:
    blocks = [x.detach().clone().requires_grad_() for x in random_blocks(3, 4, torch.float64)]
    assert torch.autograd.gradcheck(lambda *x: embedding_weights(ScaledBlocks(*x), 2.0), blocks)


@pytest.mark.parametrize("gradient", [True, False], ids=["gradient", "plain"])
@pytest.mark.parametrize(("P", "M"), [(4, 5), (5, 4)], ids=["wide", "tall"])
def test_opcheck(P: int, M: int, dtype: torch.dtype, gradient: bool) -> None:
    blocks = tuple(x.detach() for x in random_blocks(P, M, dtype))
    if gradient:
        blocks = tuple(x.clone().requires_grad_() for x in blocks)
    checks = {
        torch.ops.lwfm.embedding_weights.default: (*blocks, 2.0),
        torch.ops.lwfm.pixel_matching.default: (*(x.detach() for x in blocks), *blocks, 2),
    }
    plain = tuple(x.detach() for x in blocks)
    a, b, reached = torch.ops.lwfm.embedding_weights(*plain, 2.0)
    similarity, assignment = torch.ops.lwfm.pixel_matching(*plain, *plain, 2)
    checks[torch.ops.lwfm.embedding_weights_backward.default] = (a, b, reached, *plain, 2.0)
    checks[torch.ops.lwfm.pixel_matching_backward.default] = (similarity, *plain, assignment, 2)
    for operator, arguments in checks.items():
        torch.library.opcheck(operator, arguments)


def test_every_number_of_threads_gives_the_same_bits() -> None:
    episode = random_episode((3, 4), 40, (16, 8), (3, 5))
    head = LWFMHead(episode.dims, feature_size=[3, 5], top_k=2)
    blocks = random_blocks(9, 9, torch.float32)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            outputs = (*embedding_weights(blocks, 5.0), pixel_matching(blocks, blocks, 3)[0])
            results.append((*outputs, *gradients(outputs, blocks)))
            logits = head(episode.support, episode.labels, episode.query)
            assert isinstance(logits, Tensor)
            assert logits.isfinite().all()
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiles_without_graph_breaks(dynamic: bool) -> None:
    def loss(s: Tensor, q: Tensor) -> Tensor:
        blocks = cosine_blocks(s, q)
        a, b, reached = embedding_weights(blocks, 5.0)
        similarity, _ = pixel_matching(blocks, blocks, 2)
        return (a.square().sum() + b.square().sum() + reached.sum() + similarity.sum()).sin()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for Q in (2, 3):
        inputs = [
            torch.rand(n, 4, 6, generator=torch.Generator().manual_seed(n)).requires_grad_() for n in (5, Q)
        ]
        expected = torch.autograd.grad(loss(*inputs), inputs)
        torch.testing.assert_close(torch.autograd.grad(compiled(*inputs), inputs), expected)


def test_vmap() -> None:
    s, q = torch.rand(4, 3, 5, 6), torch.rand(2, 5, 6)

    def similarity(s: Tensor, q: Tensor) -> Tensor:
        blocks = cosine_blocks(s, q)
        return pixel_matching(blocks, blocks, 2)[0].sum() + embedding_weights(blocks, 5.0)[2].sum()

    batched = torch.func.vmap(similarity, in_dims=(0, None))(s, q)
    torch.testing.assert_close(batched, torch.stack([similarity(x, q) for x in s]))


@pytest.mark.parametrize("operator", ["embedding_weights", "pixel_matching"])
def test_double_backward_is_refused(operator: str) -> None:
    blocks = random_blocks(4, 4, torch.float64)
    output = (
        embedding_weights(blocks, 2.0)[0]
        if operator == "embedding_weights"
        else pixel_matching(blocks, blocks, 1)[0]
    )
    slope = torch.autograd.grad(output.square().sum(), blocks.raw, create_graph=True)[0]
    with pytest.raises(RuntimeError, match=f"lwfm::{operator} can be differentiated once"):
        torch.autograd.backward(slope.sum())


def test_empty_batches() -> None:
    blocks = ScaledBlocks(torch.rand(0, 3, 4, 5), torch.rand(0, 3, 4), torch.rand(0, 3, 5))
    a, b, _ = embedding_weights(blocks, 5.0)
    similarity, assignment = pixel_matching(blocks, blocks, 1)
    assert [list(x.shape) for x in (a, b, similarity, assignment)] == [
        [0, 3, 4],
        [0, 3, 5],
        [0, 3],
        [0, 3, 4],
    ]


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
    with pytest.raises(ValueError, match=message):
        pixel_matching(ScaledBlocks(**blocks), ScaledBlocks(**blocks), 1)


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
