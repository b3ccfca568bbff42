"""The collapsed head equals the oracle, whatever the episode looks like, and refuses bad input."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lwfm.nn
import lwfm.reference
from tests.helpers.episodes import random_episode
from tests.helpers.heads import assert_equal_with_gradients, both_heads


@settings(max_examples=40, deadline=None)
@given(
    shots=st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple),
    queries=st.integers(1, 3),
    layers=st.lists(st.tuples(st.integers(3, 9), st.integers(1, 4)), min_size=1, max_size=3),
    share_size=st.booleans(),
    top_k=st.sampled_from([1, None]),
    matching_weight=st.sampled_from([0.0, 0.25, 1.0]),
    embedding=st.booleans(),
    dead=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_oracle_on_random_episodes(
    shots: tuple[int, ...],
    queries: int,
    layers: list[tuple[int, int]],
    share_size: bool,
    top_k: int | None,
    matching_weight: float,
    embedding: bool,
    dead: float,
    seed: int,
) -> None:
    dims, sizes = (tuple(column) for column in zip(*layers, strict=True))
    if share_size:
        sizes = sizes[:1] * len(sizes)
    # Centered over all channels, a dead position is not zero but parallel to every other dead one: such
    # ties leave the assignment, and with it the gradient of each position, undetermined.
    dead = 0.0 if share_size else dead
    episode = random_episode(shots, queries, dims, sizes, seed=seed, dtype=torch.float64, dead=dead)
    assert_equal_with_gradients(
        episode,
        feature_size=sizes[0] if share_size else sizes,
        top_k=top_k,
        matching_weight=matching_weight,
        embedding=embedding,
    )


@pytest.mark.parametrize("size", [1, 2, 5, 7, 10, 14], ids=lambda size: f"F{size}")
def test_every_feature_size(size: int) -> None:
    episode = random_episode((1, 2), 2, (6, 4), (size, size), dtype=torch.float64)
    assert_equal_with_gradients(episode, feature_size=size)


@pytest.mark.parametrize("top_k", [1, 2, 5, 9, None])
def test_every_top_k(top_k: int | None) -> None:
    assert_equal_with_gradients(random_episode((2, 1), 3, dtype=torch.float64), top_k=top_k)


@pytest.mark.parametrize("share_size", [True, False], ids=["one-resolution", "own-resolutions"])
def test_without_layer_wise_embedding_and_with_the_mean_of_the_layers(share_size: bool) -> None:
    episode = random_episode((2, 1), 3, (6, 4), (3, 3) if share_size else (2, 3), dtype=torch.float64)
    options: dict[str, Any] = {"feature_size": 3} if share_size else {}
    assert_equal_with_gradients(episode, attention_temperature=None, **options)
    assert_equal_with_gradients(episode, layer_reduction="mean", top_k=None, **options)


@pytest.mark.parametrize("top_k", [1, 4, None])
@pytest.mark.parametrize("shots", [(1,), (3,), (2, 1, 2), (2, 2)], ids=str)
def test_merged_shots(shots: tuple[int, ...], top_k: int | None) -> None:
    episode = random_episode(shots, 3, (6, 4), (3, 2), dtype=torch.float64)
    assert_equal_with_gradients(episode, merge_shots=True, top_k=top_k, layer_reduction="mean")


def test_merged_shots_find_what_is_spread_over_them() -> None:
    parts = torch.eye(8, dtype=torch.float64).view(2, 4, 8).transpose(1, 2).reshape(2, 8, 2, 2)
    other = torch.randn(2, 8, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    query = torch.cat([parts[0, :, 0], parts[1, :, 0]], dim=1).reshape(1, 8, 2, 2)  # half of each shot
    options: dict[str, Any] = {"feature_size": 2, "top_k": None, "matching_weight": 1.0, "embedding": False}
    support, labels = torch.cat([parts, other]), torch.tensor([0, 0, 1, 1])
    apart, merged = (
        lwfm.nn.LWFMHead([8], **options, merge_shots=merge).similarities(support, labels, query).matching
        for merge in (False, True)
    )
    torch.testing.assert_close(merged[0, 0], torch.tensor(1.0, dtype=torch.float64))
    assert apart[0, 0] < 0.6


def test_without_layer_wise_embedding_means_are_plain_means() -> None:
    episode = random_episode((2, 1), 3, (6,), (3,), dtype=torch.float64)
    head = lwfm.nn.LWFMHead([6], attention_temperature=None, matching_weight=0.0, temperature=1.0).double()
    (support,), (query,) = ([x.flatten(2).mean(2) for x in maps] for maps in (episode.support, episode.query))
    support, query = (x - x.mean(1, keepdim=True) for x in (support, query))
    means = torch.stack([support[episode.labels == label].mean(0) for label in range(2)])
    expected = torch.nn.functional.cosine_similarity(query[:, None], means[None], dim=-1)
    torch.testing.assert_close(head.eval()(episode.support, episode.labels, episode.query), expected)


def test_one_shot_beside_nine() -> None:
    assert_equal_with_gradients(random_episode((1, 9), 3, dtype=torch.float64))


def test_duplicated_images_and_constant_maps_give_finite_results() -> None:
    episode = random_episode((2, 2), 2)
    episode.query = [x[:1].expand(2, -1, -1, -1).clone() for x in episode.support]
    episode.support[0][0] = 1.0
    inputs = [x.requires_grad_() for x in (*episode.support, *episode.query)]
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3)
    logits = head(episode.support, episode.labels, episode.query)
    logits.sum().backward()
    assert logits.isfinite().all()
    for x in inputs:
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_all_zero_maps_have_similarity_zero() -> None:
    zero = torch.zeros(2, 8, 3, 3, requires_grad=True)
    logits = lwfm.nn.LWFMHead([8], feature_size=3)(zero, torch.tensor([0, 1]), torch.zeros(3, 8, 3, 3))
    logits.sum().backward()
    assert zero.grad is not None
    torch.testing.assert_close(logits, torch.zeros(3, 2))
    torch.testing.assert_close(zero.grad, torch.zeros_like(zero))


def test_gradcheck() -> None:
    episode = random_episode((2, 1), 2, (4, 3), (2, 3), dtype=torch.float64)
    ours, _ = both_heads(episode, num_classes=3, top_k=None)

    def outputs(*inputs: Tensor) -> Any:
        return ours(inputs[:2], episode.labels, inputs[2:])

    inputs = [x.requires_grad_() for x in (*episode.support, *episode.query)]
    assert torch.autograd.gradcheck(outputs, inputs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_maps_are_computed_in_float32(dtype: torch.dtype) -> None:
    episode = random_episode((2, 2), 3, dtype=dtype)
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3).eval()
    logits = head(episode.support, episode.labels, episode.query)
    expected = head([x.float() for x in episode.support], episode.labels, [x.float() for x in episode.query])
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=0, atol=0)


def test_autocast_changes_nothing() -> None:
    episode = random_episode((2, 2), 3)
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3, num_classes=4)
    plain = head(episode.support, episode.labels, episode.query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = head(episode.support, episode.labels, episode.query)
        class_logits = head.classify(episode.query)
    torch.testing.assert_close(mixed, plain, rtol=0, atol=0)
    torch.testing.assert_close(class_logits, head.classify(episode.query), rtol=0, atol=0)


def test_layouts_of_the_same_maps_agree() -> None:
    episode = random_episode((2, 1), 3)
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3).eval()
    per_layer = head(episode.support, episode.labels, episode.query)
    support, query = torch.cat(episode.support, 1), torch.cat(episode.query, 1)
    channels_last = support.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(head(support, episode.labels, query), per_layer, rtol=0, atol=0)
    torch.testing.assert_close(head(channels_last, episode.labels, query), per_layer, rtol=1e-6, atol=1e-6)


def test_no_queries_give_no_logits() -> None:
    episode = random_episode((1, 1), 0)
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3, num_classes=4)
    logits, class_logits = head(episode.support, episode.labels, episode.query)
    assert (logits.shape, class_logits.shape) == ((0, 2), (0, 4))


def test_training_mode_decides_whether_class_logits_come() -> None:
    episode = random_episode((1, 1), 2)
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3, num_classes=4)
    assert isinstance(head(episode.support, episode.labels, episode.query), tuple)
    assert isinstance(head.eval()(episode.support, episode.labels, episode.query), Tensor)


@pytest.mark.gpu
def test_cuda_equals_cpu() -> None:
    episode = random_episode((2, 3), 4)
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3).eval()
    expected = head(episode.support, episode.labels, episode.query)
    moved = [x.cuda() for x in episode.support], episode.labels.cuda(), [x.cuda() for x in episode.query]
    torch.testing.assert_close(head.cuda()(*moved).cpu(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_dims": []}, "at least one layer"),
        ({"feature_size": [3]}, "one per layer"),
        ({"feature_size": 0}, "feature_size"),
        ({"matching_weight": -0.1}, "matching_weight must be finite and at least 0, got -0.1"),
        ({"matching_weight": math.nan}, "matching_weight must be finite and at least 0, got nan"),
        ({"matching_weight": math.inf}, "matching_weight must be finite and at least 0, got inf"),
        ({"temperature": 0.0}, "temperature must be positive and finite, got 0.0"),
        ({"temperature": math.nan}, "temperature must be positive and finite, got nan"),
        ({"temperature": math.inf}, "temperature must be positive and finite, got inf"),
        ({"attention_temperature": math.nan}, "attention_temperature must be positive, got nan"),
        ({"attention_temperature": -1.0}, "attention_temperature"),
        ({"top_k": 10}, "top_k must be 1 to 9"),
        ({"layer_reduction": "sum"}, "layer_reduction must be max or mean"),
        ({"layer_dims": [1, 8]}, "at least 2 channels"),
    ],
    ids=lambda value: "-".join(f"{name}={x}" for name, x in value.items()) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    arguments = {"layer_dims": [8, 8], "feature_size": 3, **change}
    with pytest.raises(ValueError, match=re.escape(message)):
        lwfm.nn.LWFMHead(**arguments)


LABELS = torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("support", "labels", "query", "message"),
    [
        (torch.rand(2, 7, 3, 3), LABELS, torch.rand(1, 8, 3, 3), "support must be maps [B, 8, F, F]"),
        (torch.rand(2, 8, 3), LABELS, torch.rand(1, 8, 3, 3), "got [2, 8, 3]"),
        (torch.rand(2, 8, 3, 3), LABELS, torch.rand(1, 8, 4, 4), "query must have layers of shape"),
        (torch.rand(2, 8, 3, 3), LABELS, torch.ones(1, 8, 3, 3, dtype=torch.int64), "query must be floating"),
        (torch.rand(2, 8, 3, 3), torch.tensor([0]), torch.rand(1, 8, 3, 3), "need as many labels"),
        (torch.rand(2, 8, 3, 3), torch.tensor([1, 1]), torch.rand(1, 8, 3, 3), "class 0 has no support"),
        (torch.rand(2, 8, 3, 3), torch.tensor([0, -1]), torch.rand(1, 8, 3, 3), "0..way-1, got -1"),
        (torch.rand(2, 8, 3, 3), torch.tensor([0, 2**40]), torch.rand(1, 8, 3, 3), "got 1099511627776: 2"),
        (torch.rand(2, 8, 3, 3), torch.tensor([0, 1j]), torch.rand(1, 8, 3, 3), "must be integers"),
        (torch.rand(2, 8, 3, 3), torch.tensor([0.0, 1.0]), torch.rand(1, 8, 3, 3), "must be integers"),
        (torch.rand(0, 8, 3, 3), LABELS[:0], torch.rand(1, 8, 3, 3), "0 support images"),
        (torch.rand(2, 8, 3, 3).double(), LABELS, torch.rand(1, 8, 3, 3), "mixed dtypes"),
        (torch.rand(2, 8, 3, 3, device="meta"), LABELS, torch.rand(1, 8, 3, 3), "but support on meta"),
    ],
    ids=[
        "channels", "rank", "size", "integer-maps", "label-count", "missing-class", "negative-label",
        "wild-label", "complex-labels", "float-labels", "no-support", "mixed-dtypes", "mixed-devices",
    ],
)  # fmt: skip
def test_bad_maps_and_labels_are_refused(
    support: Tensor, labels: Tensor, query: Tensor, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        lwfm.nn.LWFMHead([8], feature_size=3).eval()(support, labels, query)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.uint16, torch.uint64], ids=str)
def test_labels_of_every_integer_dtype(dtype: torch.dtype) -> None:
    episode = random_episode((1, 2), 3)
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3).eval()
    expected = head(episode.support, episode.labels, episode.query)
    torch.testing.assert_close(head(episode.support, episode.labels.to(dtype), episode.query), expected)


def test_labels_may_be_a_sequence_of_integers() -> None:
    episode = random_episode((1, 2), 3)
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3).eval()
    expected = head(episode.support, episode.labels, episode.query)
    assert torch.equal(head(episode.support, episode.labels.tolist(), episode.query), expected)
    assert torch.equal(head(episode.support, lwfm.nn.ClassLists(episode.labels), episode.query), expected)


def test_baseline_refuses_labels_like_the_head() -> None:
    maps = (torch.rand(2, 4, 2, 2),)
    with pytest.raises(ValueError, match="got 1000000000: 2 support images have at most 2 classes"):
        lwfm.nn.nearest_class_mean(maps, torch.tensor([0, 10**9]), maps)
    with pytest.raises(ValueError, match="class 0 has no support images"):
        lwfm.nn.nearest_class_mean(maps, torch.tensor([1, 1]), maps)


def test_nan_is_named_with_its_pair() -> None:
    episode = random_episode((1, 1, 1), 4)
    episode.query[0][2, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="nan") as error:
        lwfm.nn.LWFMHead(episode.dims, feature_size=3)(episode.support, episode.labels, episode.query)
    assert "2, 0" in str(error.value)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "inference"])
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "each-shot"])
def test_nan_is_named_with_its_pair_or_class(merge: bool, recorded: bool) -> None:
    episode = random_episode((1, 2, 1), 4)
    episode.query[0][2, 0, 0, 0] = torch.nan
    head = lwfm.nn.LWFMHead(episode.dims, feature_size=3, merge_shots=merge)
    with torch.set_grad_enabled(recorded), pytest.raises(ValueError, match=r"cost\[2, 0, .* is nan"):
        head(episode.support, episode.labels, episode.query)


def test_classify_needs_a_classifier() -> None:
    with pytest.raises(ValueError, match="num_classes"):
        lwfm.nn.LWFMHead([8], feature_size=3).classify(torch.rand(2, 8, 3, 3))


@pytest.mark.parametrize("split", ["support", "query"])
def test_one_tensor_beside_one_for_each_layer(split: str) -> None:
    head = lwfm.nn.LWFMHead([3, 5], feature_size=3).eval()
    support, query, labels = torch.rand(4, 8, 3, 3), torch.rand(6, 8, 3, 3), [0, 1, 1, 0]
    expected = head(support, labels, query)
    sides: dict[str, Any] = {"support": support, "query": query}
    sides[split] = sides[split].split([3, 5], dim=1)
    torch.testing.assert_close(head(sides["support"], labels, sides["query"]), expected, rtol=0, atol=0)


def test_a_head_without_values_refuses_maps_with_values() -> None:
    head = lwfm.nn.LWFMHead([4], feature_size=2).to("meta")
    with pytest.raises(ValueError, match="maps are on cpu, but the head on meta"):
        head.encode(torch.rand(2, 4, 2, 2))


def test_images_encoded_differently_are_not_compared() -> None:
    head, plain = (lwfm.nn.LWFMHead([4], feature_size=2, embedding=embedding) for embedding in (True, False))
    maps = torch.rand(2, 4, 2, 2)
    for other in (plain.encode(maps), head.encode(maps.double())):
        with pytest.raises(ValueError, match="encode all by one head"):
            head.compare(head.encode(maps), [0, 1], other)


@pytest.mark.parametrize("merge", [False, True], ids=["each-shot", "merged"])
@pytest.mark.parametrize("name", ["kernels", "expressions"])
def test_class_lists_of_inference_mode_can_be_trained_with(name: Any, merge: bool) -> None:
    head = lwfm.nn.LWFMHead([4], feature_size=2, merge_shots=merge)
    maps = torch.rand(3, 4, 2, 2, requires_grad=True)
    with lwfm.ops.implementation(name):
        with torch.inference_mode():
            classes = lwfm.nn.ClassLists([0, 1, 1])
            head(maps, classes, maps)
        torch.autograd.backward(head(maps, classes, maps).square().sum())
    assert maps.grad is not None


@pytest.mark.parametrize(
    "listed",
    [torch.ones(1, 2, dtype=torch.bool), torch.ones(1, 2, device="meta").long()],
    ids=["bool", "meta"],
)
def test_lists_of_images_are_integers_with_values(listed: Tensor) -> None:
    head = lwfm.nn.LWFMHead([4], feature_size=2)
    images = head.encode(torch.rand(3, 4, 2, 2))
    with pytest.raises(ValueError, match=r"support (must list images|is on meta)"):
        head.compare_episodes(images, listed, torch.tensor([[0]]), [0, 1])


@pytest.mark.parametrize("name", ["kernels", "expressions"])
def test_no_episodes_have_no_similarities(name: Any) -> None:
    head = lwfm.nn.LWFMHead([4], feature_size=2)
    images = head.encode(torch.rand(3, 4, 2, 2))
    none = torch.empty(0, 2, dtype=torch.int64)
    with lwfm.ops.implementation(name):
        results = head.compare_episodes(images, none, none, [0, 1], features=True)
    assert results.query_features is not None
    assert [tuple(x.shape) for x in results if x is not None] == [(0, 2, 2), (0, 2, 2), (0, 2, 4)]
