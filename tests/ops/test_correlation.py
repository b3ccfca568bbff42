"""All pairs of one layer in one operator: equal to the oracle; one kernel on CUDA."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lwfm.reference
from lwfm.nn import ClassShots, LWFMHead
from lwfm.nn.layer import SupportLayer
from lwfm.ops.correlation import PairTerms, correlate, is_one_kernel
from tests.helpers.episodes import random_episode

SHAPES = [(9, 9), (1, 1), (4, 7), (7, 4), (25, 25), (17, 32)]


def features(*shape: int, device: torch.device, dtype: torch.dtype, seed: int) -> Tensor:
    """Draw features as the maps of a backbone are: positions adjacent in memory, channels apart."""
    generator = torch.Generator().manual_seed(seed)
    images, positions, channels = shape
    maps = torch.randn(images, channels, positions, generator=generator, dtype=torch.float64)
    return maps.to(device, dtype).transpose(1, 2)


def expected_terms(s: Tensor, q: Tensor, compared: tuple[Tensor, Tensor], top_k: int) -> PairTerms:
    """Compute the terms pair by pair with the oracle, in float64."""
    s, q, s_compared, q_compared = (x.double().cpu() for x in (s, q, *compared))
    weights = [[lwfm.reference.layer_wise_embedding(x, y, 2.0) for x in s] for y in q]
    a, b = (torch.stack([torch.stack([pair[side] for pair in row]) for row in weights]) for side in (0, 1))
    matched = lwfm.reference.semantic_pixel_matching(
        s, q, support_embedded=s_compared, query_embedded=q_compared, top_k=top_k
    )
    return PairTerms(a, b, *matched)


@pytest.mark.parametrize("embedded", [False, True], ids=["same", "embedded"])
@pytest.mark.parametrize(("P", "M"), SHAPES, ids=[f"{P}x{M}" for P, M in SHAPES])
def test_equals_the_oracle(P: int, M: int, embedded: bool, device: torch.device, dtype: torch.dtype) -> None:
    s, q = (
        features(3, P, 20, device=device, dtype=dtype, seed=0),
        features(4, M, 20, device=device, dtype=dtype, seed=1),
    )
    compared = (
        (
            features(3, P, 6, device=device, dtype=dtype, seed=2),
            features(4, M, 6, device=device, dtype=dtype, seed=3),
        )
        if embedded
        else (s, q)
    )
    top_k = (1 + min(P, M)) // 2
    terms = correlate(
        s, q, support_compared=compared[0], query_compared=compared[1], temperature=2.0, top_k=top_k
    )
    expected = expected_terms(s, q, compared, top_k)
    tolerance = 2000 * torch.finfo(dtype).eps
    for actual, wanted in zip(terms[:3], expected[:3], strict=True):
        torch.testing.assert_close(actual.cpu().double(), wanted, atol=tolerance, rtol=tolerance)
    assert torch.equal(terms.assignment.cpu(), expected.assignment)


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_low_precision_is_summed_in_float32(low: torch.dtype, device: torch.device) -> None:
    s, q = (features(3, 9, 33, device=device, dtype=low, seed=seed) for seed in (0, 1))
    terms = correlate(s, q, temperature=5.0)
    expected = correlate(s.float(), q.float(), temperature=5.0)
    for actual, wanted in zip(terms, expected, strict=True):
        assert actual.dtype == wanted.dtype
        torch.testing.assert_close(actual, wanted)


@pytest.mark.parametrize("embedding", [False, True], ids=["plain", "embedded"])
@pytest.mark.parametrize("matching", [False, True], ids=["base-only", "matching"])
def test_a_layer_in_one_kernel_equals_its_steps(matching: bool, embedding: bool) -> None:
    episode = random_episode((2, 3), 4, (6,), (3,), dead=0.2)
    head = LWFMHead(episode.dims, feature_size=3, embedding=embedding)
    support, query = (head.layout.positions(maps, "maps")[0] for maps in (episode.support, episode.query))
    shots = ClassShots(episode.labels, len(support.features))
    embed = head.embeddings[0] if embedding else None
    layer = SupportLayer(support, shots, embed=embed, matching=matching)
    with torch.no_grad():
        expected = layer.compare(query, 5.0, 2)
        torch.testing.assert_close(layer._compare_in_one_kernel(query, 5.0, 2), expected)


def test_without_matching_there_are_only_weights(device: torch.device) -> None:
    s, q = (features(3, 9, 8, device=device, dtype=torch.float32, seed=seed) for seed in (0, 1))
    terms = correlate(s, q, temperature=5.0, matching=False)
    torch.testing.assert_close(terms[:2], correlate(s, q, temperature=5.0)[:2])
    assert terms.similarity.numel() == terms.assignment.numel() == 0


def test_empty_batches(device: torch.device) -> None:
    s, q = torch.rand(0, 4, 6, device=device), torch.rand(2, 5, 6, device=device)
    shapes = [list(x.shape) for x in correlate(s, q, temperature=5.0)]
    assert shapes == [[2, 0, 4], [2, 0, 5], [2, 0], [2, 0, 4]]


def test_opcheck(device: torch.device, dtype: torch.dtype) -> None:
    s, q = (features(2, 4, 6, device=device, dtype=dtype, seed=seed) for seed in (0, 1))
    for top_k in (0, 2):
        torch.library.opcheck(torch.ops.lwfm.correlation.default, (s, q, s, q, 5.0, top_k))


def test_a_gradient_is_refused(device: torch.device) -> None:
    s, q = torch.rand(2, 4, 6, device=device).requires_grad_(), torch.rand(2, 4, 6, device=device)
    assert not is_one_kernel(s, q)
    with pytest.raises(RuntimeError, match=r"lwfm::correlation is for inference"):
        correlate(s, q, temperature=5.0).similarity.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.gpu
def test_errors_of_the_kernel() -> None:
    s = torch.rand(2, 4, 6, device="cuda")
    for arguments, message in (
        ((s, s[..., :5], s, s), "support and query must be"),
        ((s, s.cpu(), s, s), "must be on the device"),
        ((s, s.double(), s, s), "one dtype"),
        ((torch.rand(2, 33, 6, device="cuda"),) * 4, "1 to 32 positions"),
        ((s.int(),) * 4, "float16, bfloat16"),
    ):
        with pytest.raises(ValueError, match=message):
            torch.ops.lwfm.correlation.default(*arguments, 5.0, 1)
    with pytest.raises(ValueError, match="top_k must be 1 to 4"):
        correlate(s, s, temperature=5.0, top_k=5)
