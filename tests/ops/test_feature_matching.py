"""Semantic-pixel matching as an operator: equal to the oracle, differentiable, strict about its input."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lwfm.reference
from lwfm.nn import LWFMHead, SemanticPixelMatching
from lwfm.nn.explain import explain_pair
from lwfm.ops import implementation, paired_pixel_matching, semantic_pixel_matching
from tests.helpers.episodes import random_episode


def features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


@settings(max_examples=40, deadline=None)
@given(
    S=st.integers(1, 3),
    Q=st.integers(1, 3),
    P=st.integers(1, 7),
    M=st.integers(1, 7),
    C=st.integers(3, 9),
    embedded=st.booleans(),
    all_pairs=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_equals_the_oracle(
    S: int, Q: int, P: int, M: int, C: int, embedded: bool, all_pairs: bool, seed: int
) -> None:
    support, query = features(S, P, C, seed=seed), features(Q, M, C, seed=seed + 1)
    arguments: dict[str, Any] = {"top_k": None if all_pairs else 1 + seed % min(P, M)}
    if embedded:
        arguments["support_embedded"] = features(S, P, C + 1, seed=seed + 2)
        arguments["query_embedded"] = features(Q, M, C + 1, seed=seed + 3)
    expected = lwfm.reference.semantic_pixel_matching(support, query, **arguments)
    torch.testing.assert_close(semantic_pixel_matching(support, query, **arguments), expected)


@pytest.mark.parametrize("top_k", [1, 2, None], ids=["top1", "top2", "all"])
@pytest.mark.parametrize(("P", "M"), [(4, 4), (3, 5), (5, 3)], ids=["square", "wide", "tall"])
def test_paired_is_the_diagonal_of_all_pairs(P: int, M: int, top_k: int | None) -> None:
    support, query = features(4, P, 6), features(4, M, 6, seed=1)
    similarity, assignment = paired_pixel_matching(support, query, top_k=top_k)
    all_similarity, all_assignment = semantic_pixel_matching(support, query, top_k=top_k)
    torch.testing.assert_close(similarity, all_similarity.diagonal())
    index = torch.arange(4)
    assert torch.equal(assignment, all_assignment[index, index])
    expected = lwfm.reference.paired_pixel_matching(support, query, top_k=top_k)
    torch.testing.assert_close((similarity, assignment), expected)


@pytest.mark.parametrize("top_k", [1, 2, None], ids=["top1", "top2", "all"])
def test_gradcheck(top_k: int | None) -> None:
    shapes = [(2, 3, 4), (2, 4, 4), (2, 3, 5), (2, 4, 5)]
    inputs = [features(*shape, seed=seed).requires_grad_() for seed, shape in enumerate(shapes)]

    def similarity(s: Tensor, q: Tensor, es: Tensor, eq: Tensor) -> Tensor:
        return semantic_pixel_matching(s, q, support_embedded=es, query_embedded=eq, top_k=top_k)[0]

    assert torch.autograd.gradcheck(similarity, inputs)
    assert torch.autograd.gradcheck(
        lambda s, q: paired_pixel_matching(s, q, top_k=top_k)[0], (inputs[0], inputs[1])
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_low_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    support, query = features(3, 9, 16, dtype=dtype), features(2, 9, 16, seed=1, dtype=dtype)
    similarity, assignment = semantic_pixel_matching(support, query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = semantic_pixel_matching(support, query)
    expected = lwfm.reference.semantic_pixel_matching(support.float(), query.float())
    assert similarity.dtype == torch.float32
    torch.testing.assert_close((similarity, assignment), expected)
    torch.testing.assert_close(mixed, similarity, rtol=0, atol=0)


def test_non_contiguous_features() -> None:
    support, query = features(3, 6, 9).transpose(1, 2), features(2, 6, 9, seed=1).transpose(1, 2)
    expected = semantic_pixel_matching(support.contiguous(), query.contiguous())
    torch.testing.assert_close(semantic_pixel_matching(support, query), expected)


@pytest.mark.parametrize(("S", "Q"), [(0, 2), (2, 0), (0, 0)])
def test_empty_batches(S: int, Q: int) -> None:
    similarity, assignment = semantic_pixel_matching(torch.rand(S, 4, 5), torch.rand(Q, 4, 5))
    assert (similarity.shape, assignment.shape) == ((Q, S), (Q, S, 4))


def test_zero_features_have_similarity_zero_and_no_gradient() -> None:
    support = torch.zeros(1, 4, 5, requires_grad=True)
    similarity, _ = semantic_pixel_matching(support, torch.rand(2, 4, 5))
    torch.autograd.backward(similarity.sum())
    assert support.grad is not None
    torch.testing.assert_close((similarity, support.grad), (torch.zeros(2, 1), torch.zeros(1, 4, 5)))


def test_compiles_without_graph_breaks() -> None:
    support, query = features(3, 4, 5, dtype=torch.float32), features(2, 4, 5, seed=1, dtype=torch.float32)
    compiled = torch.compile(semantic_pixel_matching, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(support, query), semantic_pixel_matching(support, query))


@pytest.mark.parametrize("embedding", [True, False], ids=["embedded", "plain"])
def test_module_equals_the_operator(embedding: bool) -> None:
    torch.manual_seed(0)
    module = SemanticPixelMatching(6, embedding=embedding, top_k=None)
    support, query = torch.rand(3, 6, 2, 2), torch.rand(2, 6, 3, 3)
    s, q = support.flatten(2).transpose(1, 2), query.flatten(2).transpose(1, 2)
    arguments = (
        {"support_embedded": module.embedding(s), "query_embedded": module.embedding(q)}
        if module.embedding is not None
        else {}
    )
    expected, _ = lwfm.reference.semantic_pixel_matching(s, q, top_k=None, **arguments)
    torch.testing.assert_close(module(support, query), expected)


def test_explanation_adds_up_to_the_head() -> None:
    episode = random_episode((1,), 1)
    head = LWFMHead(episode.dims, feature_size=3, matching_weight=1.0).eval()
    matches = explain_pair(head, episode.support, episode.query)
    best = max(float(match.similarities.max()) for match in matches)
    similarities = head.similarities(episode.support, episode.labels, episode.query)
    torch.testing.assert_close(similarities.matching.item(), best)
    for match in matches:
        torch.testing.assert_close(match.support_weights.sum(), torch.tensor(9.0))
        assert sorted(match.assignment.tolist()) == list(range(9))


def test_explanation_under_autocast_is_that_of_the_head() -> None:
    episode = random_episode((1,), 1)
    head = LWFMHead(episode.dims, feature_size=3).eval()
    expected = explain_pair(head, episode.support, episode.query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        matches = explain_pair(head, episode.support, episode.query)
    for match, other in zip(matches, expected, strict=True):
        torch.testing.assert_close(vars(match), vars(other), rtol=0, atol=0)


X = torch.rand(2, 4, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"support": X[0], "query": X}, "support must be a floating tensor"),
        ({"support": X, "query": X.int()}, "query must be a floating tensor"),
        ({"support": X, "query": X[..., :4]}, "support has 5 channels, but query has 4"),
        ({"support": X, "query": X.double()}, "query is torch.float64"),
        ({"support": X, "query": X.to("meta")}, "on meta"),
        ({"support": X, "query": X, "top_k": 0}, "top_k must be 1 to 4"),
        ({"support": X, "query": X, "top_k": 5}, "top_k must be 1 to 4"),
        ({"support": X, "query": X[:, :0]}, "and query [2, 0, 5]"),
        ({"support": X[:, :0], "query": X}, "images need at least one position, got support [2, 0, 5]"),
        ({"support": X, "query": X, "support_embedded": X}, "both support_embedded and query_embedded"),
        (
            {"support": X, "query": X, "support_embedded": X[:1], "query_embedded": X},
            "support_embedded has shape [1, 4, 5], but its images have [2, 4, 5]",
        ),
        (
            {"support": X, "query": X, "support_embedded": X, "query_embedded": X[..., :2]},
            "support_embedded has 5 channels, but query_embedded has 2",
        ),
        ({"support": X, "query": X.index_fill(2, torch.tensor(3), torch.nan)}, "cost[0, 0, 0, 0] is nan"),
    ],
    ids=[
        "rank", "dtype", "channels", "mixed-dtypes", "devices", "top_k-low", "top_k-high",
        "no-query-positions", "no-positions", "half-embedded", "embedded-shape", "embedded-channels", "nan",
    ],
)  # fmt: skip
@pytest.mark.parametrize("function", [semantic_pixel_matching, paired_pixel_matching])
def test_bad_input_is_refused(function: Any, arguments: dict[str, Any], message: str) -> None:
    if function is paired_pixel_matching:
        message = message.replace("cost[0, 0, 0, 0]", "cost[0, 0, 0]")
    with pytest.raises(ValueError, match=re.escape(message)):
        function(**arguments)


EYE = torch.eye(3)[None]


@pytest.mark.parametrize("name", ["kernels", "expressions"])
@pytest.mark.parametrize(
    ("support", "query"),
    [(EYE * 1e20, EYE), (EYE, EYE * 1e20), (EYE, EYE * torch.inf), (EYE.double(), EYE.double() * 1e200)],
    ids=["support", "query", "infinite", "float64"],
)
def test_squares_that_overflow_are_named(support: Tensor, query: Tensor, name: Any) -> None:
    dtype = re.escape(str(support.dtype))
    with implementation(name):
        for function in (semantic_pixel_matching, paired_pixel_matching):
            with pytest.raises(ValueError, match=rf"is nan .* whose square overflows {dtype}"):
                function(support, query)
    if support.dtype == torch.float32 and query.isfinite().all():
        assert semantic_pixel_matching(support.double(), query.double())[0].item() == 1


@pytest.mark.parametrize("name", ["kernels", "expressions"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e20], ids=str)
@pytest.mark.parametrize("top_k", [1, 2, None], ids=["top1", "top2", "all"])
def test_bad_embedded_features_make_their_own_similarity_nan(
    name: Any, bad: float, top_k: int | None
) -> None:
    x, embedded = features(2, 3, 4, dtype=torch.float32), features(2, 3, 5, seed=1, dtype=torch.float32)
    expected = semantic_pixel_matching(x, x, support_embedded=embedded, query_embedded=embedded, top_k=top_k)
    changed = embedded.clone()
    changed[1, 2] = bad
    with implementation(name):
        similarity, assignment = semantic_pixel_matching(
            x, x, support_embedded=embedded, query_embedded=changed, top_k=top_k
        )
        paired, _ = paired_pixel_matching(
            x, x, support_embedded=embedded, query_embedded=changed, top_k=top_k
        )
    assert torch.equal(assignment, expected[1])
    torch.testing.assert_close(similarity[0], expected[0][0])
    assert similarity[1].isnan().all()
    assert paired.isnan().tolist() == [False, True]


@pytest.mark.parametrize("name", ["kernels", "expressions"])
def test_norms_below_the_smallest_count_as_that(name: Any) -> None:
    with implementation(name):
        similarity, _ = semantic_pixel_matching(EYE * 1e-9, EYE)
    torch.testing.assert_close(similarity, torch.tensor([[0.1]]))


def test_unequal_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 1 images"):
        paired_pixel_matching(X, X[:1])


def test_explanation_is_after_the_embedding_also_without_matching() -> None:
    episode = random_episode((1,), 1)
    head = LWFMHead(episode.dims, feature_size=3).eval()
    expected = explain_pair(head, episode.support, episode.query)
    head.matching_weight = 0.0
    for match, other in zip(explain_pair(head, episode.support, episode.query), expected, strict=True):
        torch.testing.assert_close(vars(match), vars(other), rtol=0, atol=0)
