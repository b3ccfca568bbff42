"""The head on awkward episodes: ties, duplicates, zero maps, uneven shots; bounded memory; fixed bits."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lwfm.nn
import lwfm.reference
from lwfm._common.devices import torch_threads
from lwfm.ops import layer_wise_embedding, semantic_pixel_matching
from tests.helpers.episodes import Episode, random_episode

EXAMPLES = int(os.environ.get("LWFM_EXAMPLES", "30"))
"""Random episodes compared with the oracle; 1000 before a release."""


def plant(episode: Episode, kind: str) -> None:
    """Make images equal, positions equal or whole maps zero."""
    for s, q in zip(episode.support, episode.query, strict=True):
        if kind == "duplicated images":
            s[-1] = s[0]
            q[:] = s[0]
        elif kind == "tied positions":
            s[..., :] = s[..., :1]
            q[..., :1, :] = q[..., -1:, -1:]
        elif kind == "zero maps":
            s[0], q[-1] = 0, 0


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    shots=st.one_of(st.just((1, 9)), st.lists(st.integers(1, 3), min_size=1, max_size=4).map(tuple)),
    queries=st.integers(1, 3),
    layers=st.lists(st.tuples(st.integers(3, 9), st.integers(1, 4)), min_size=1, max_size=3),
    kind=st.sampled_from(["plain", "duplicated images", "tied positions", "zero maps"]),
    embedding=st.booleans(),
    top_k=st.sampled_from([1, None]),
    seed=st.integers(0, 2**16),
)
def test_logits_equal_the_oracle_on_awkward_episodes(
    shots: tuple[int, ...],
    queries: int,
    layers: list[tuple[int, int]],
    kind: str,
    embedding: bool,
    top_k: int | None,
    seed: int,
) -> None:
    dims, sizes = (tuple(column) for column in zip(*layers, strict=True))
    episode = random_episode(shots, queries, dims, sizes, seed=seed, dtype=torch.float64)
    plant(episode, kind)
    torch.manual_seed(seed)
    arguments: dict[str, Any] = {"feature_size": list(sizes), "embedding": embedding, "top_k": top_k}
    ours = lwfm.nn.LWFMHead(dims, num_classes=3, **arguments).double()
    oracle = lwfm.reference.LWFMHead(dims, num_classes=3, **arguments).double()
    oracle.load_state_dict(ours.state_dict())
    actual = ours(episode.support, episode.labels, episode.query)
    expected = oracle(episode.support, episode.labels, episode.query)
    # Positions that are equal compare alike whichever is assigned, with and without the embedding.
    torch.testing.assert_close(actual, expected, atol=1e-8, rtol=1e-7)


def outputs_with_gradients() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    s, q = (torch.rand(n, 9, 64, generator=generator).requires_grad_() for n in (25, 75))
    similarity, assignment = semantic_pixel_matching(s, q, top_k=3)
    a, b = layer_wise_embedding(s, q)
    episode = random_episode((5,) * 5, 75, (64, 32), (3, 3))
    inputs = [x.requires_grad_() for x in (*episode.support, *episode.query)]
    torch.manual_seed(0)
    head = lwfm.nn.LWFMHead((64, 32), feature_size=3)
    logits = head(inputs[:2], episode.labels, inputs[2:])
    assert isinstance(logits, Tensor)
    loss = similarity.square().sum() + a.square().sum() + b.square().sum() + logits.square().sum()
    return [similarity, assignment, a, b, logits, *torch.autograd.grad(loss, [s, q, *inputs])]


def test_every_number_of_threads_gives_the_same_bits() -> None:
    results = []
    for count in (1, 2, 3):
        with torch_threads(count):
            results.append(outputs_with_gradients())
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=0, atol=0)


def peak_of(way: int, queries: int, size: int) -> int:
    """Growth of the peak memory of this process by one training step of the head; for a fresh process."""
    torch.set_num_threads(1)
    head = lwfm.nn.LWFMHead([4], feature_size=size)
    support = torch.rand(way, 4, size, size)

    def step(queries: int) -> None:
        logits = head(support, torch.arange(way), torch.rand(queries, 4, size, size))
        torch.autograd.backward(logits.sum())

    step(2)  # what torch loads for a step is not ours to count
    before = peak_bytes()
    step(queries)
    return peak_bytes() - before


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("way", "queries", "size"), [(200, 250, 7), (8, 450, 14)], ids=["200-classes", "196-positions"]
)
def test_memory_does_not_grow_with_the_blocks_of_pairs(way: int, queries: int, size: int) -> None:
    blocks = way * queries * size**4 * 4
    assert blocks > 400 * 2**20
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        peak = pool.submit(peak_of, way, queries, size).result()
    assert peak < 240 * 2**20  # of which the backward pass may use 128 MiB for the products of a chunk


def test_operators_can_be_exported() -> None:
    class Matching(torch.nn.Module):
        def forward(self, support: Tensor, query: Tensor) -> tuple[Tensor, ...]:
            return (
                *semantic_pixel_matching(support, query, top_k=2),
                *layer_wise_embedding(support, query),
            )

    example = torch.rand(3, 4, 5), torch.rand(2, 4, 5)
    queries = torch.export.Dim("queries", min=1, max=64)
    program = torch.export.export(Matching(), example, dynamic_shapes=(None, {0: queries}))
    for Q in (2, 7):
        inputs = example[0], torch.rand(Q, 4, 5)
        torch.testing.assert_close(program.module()(*inputs), Matching()(*inputs))
