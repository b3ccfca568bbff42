"""Episodes in one operator: equal to the expressions and the oracle, whatever their number and order."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import lwfm.reference
from lwfm._common.devices import torch_threads
from lwfm.nn import EncodedMaps, LWFMHead
from lwfm.ops import implementation
from tests.helpers.feature_inputs import episode_arguments, leaf, operators, with_gradients

OPTIONS: dict[str, dict[str, Any]] = {
    "paper": {},
    "all-matches-merged": {"merge_shots": True, "top_k": None},
    "mean-of-layers-top2": {"layer_reduction": "mean", "top_k": 2},
    "no-lwe": {"attention_temperature": None, "top_k": 3},
    "no-embedding": {"embedding": False},
    "merged-no-embedding": {"embedding": False, "merge_shots": True, "layer_reduction": "mean"},
    "no-matching": {"matching_weight": 0.0},
}
SHAPES: dict[str, tuple[list[int], int, tuple[int, ...], int | list[int]]] = {
    "tiny": ([0, 1], 2, (4, 3), 2),
    "unequal-shots-17-queries": ([1, 0, 1, 1, 2], 17, (6, 5), 3),
    "own-resolutions": ([0, 1, 1], 3, (4, 6), [3, 2]),
    "64-positions": ([1, 0, 1], 2, (5,), 8),
    "no-queries": ([1, 0], 0, (4, 3), 2),
}
# Gradients of its products, 20 queries x 12 images x 64 x 64 float64, are computed in three chunks.
THREE_CHUNKS = "20-queries-of-64-positions"
ALL_SHAPES = SHAPES | {THREE_CHUNKS: ([0, 1, 2] * 4, 20, (5,), 8)}
FORMS = ["one", "listed"]


class Case:
    """A head, a pool of maps and episodes of them: all, or three lists that share and repeat images."""

    def __init__(
        self, shape: str, options: dict[str, Any], form: str = "one", dtype: torch.dtype = torch.float64
    ) -> None:
        self.labels, queries, self.dims, self.sizes = ALL_SHAPES[shape]
        torch.manual_seed(0)
        self.head = LWFMHead(self.dims, feature_size=self.sizes, num_classes=3, **options).to(dtype)
        sides = [self.sizes] * len(self.dims) if isinstance(self.sizes, int) else self.sizes
        S = len(self.labels)
        self.maps = [
            leaf(S + queries, C, F, F, dtype=dtype, seed=k)
            for k, (C, F) in enumerate(zip(self.dims, sides, strict=True))
        ]
        generator = torch.Generator().manual_seed(1)
        self.lists: tuple[Tensor, Tensor] | None = None
        if form == "listed":
            lists = torch.randint(S + queries, (3, S + queries), generator=generator)
            self.lists = lists[:, :S].contiguous(), lists[:, S:].contiguous()

    def compare(self, lists: tuple[Tensor, Tensor] | None = None) -> list[Tensor]:
        """Compute base, matching and features of all episodes."""
        lists = self.lists if lists is None else lists
        S = len(self.labels)
        if lists is None:
            support, query = ([x[side] for x in self.maps] for side in (slice(S), slice(S, None)))
            results = self.head.similarities(support, self.labels, query, features=True)
        else:
            images = self.head.encode(self.maps)
            results = self.head.compare_episodes(images, *lists, self.labels, features=True)
        assert results.query_features is not None
        return [results.base, results.matching, results.query_features]

    def inputs(self) -> list[Tensor]:
        return [*self.maps, *self.head.embeddings.parameters()]

    def results(self) -> list[Tensor]:
        """Compute outputs and gradients."""
        outputs = self.compare()
        weights = [torch.linspace(-1, 2, x.numel()).to(x).view_as(x) for x in outputs]
        # By expressions a matching that is off needs no gradient.
        loss = [(w * x).sum() for w, x in zip(weights, outputs, strict=True) if x.requires_grad]
        slopes = torch.autograd.grad(loss, self.inputs(), allow_unused=True)
        return [*(x.detach() for x in outputs), *(x for x in slopes if x is not None)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_the_expressions_with_gradients(options: str, shape: str, form: str) -> None:
    case = Case(shape, OPTIONS[options], form)
    actual = case.results()
    with implementation("expressions"):
        expected = case.results()
    torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("options", ["paper", "all-matches-merged", "no-embedding"])
def test_chunks_of_queries_equal_the_expressions(options: str, form: str) -> None:
    test_equals_the_expressions_with_gradients(options, THREE_CHUNKS, form)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", ["unequal-shots-17-queries", "64-positions"])
def test_float32_is_as_accurate_as_the_expressions(shape: str, form: str) -> None:
    case = Case(shape, {"top_k": None}, form, torch.float32)
    actual = case.results()
    with implementation("expressions"):
        expected = case.results()
    for x, y in zip(actual, expected, strict=True):
        torch.testing.assert_close(x, y, atol=1e-5 * max(1.0, float(y.abs().max())), rtol=0)


@settings(max_examples=100, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=1, max_size=5),
    queries=st.integers(1, 3),
    episodes=st.integers(1, 3),
    layers=st.lists(st.tuples(st.integers(3, 7), st.integers(1, 3)), min_size=1, max_size=2),
    merge=st.booleans(),
    top_k=st.sampled_from([1, None]),
    embedding=st.booleans(),
    reduction=st.sampled_from(["max", "mean"]),
    temperature=st.sampled_from([None, 2.0]),
    seed=st.integers(0, 2**16),
)
def test_equals_the_oracle_on_random_episodes(
    labels: list[int],
    queries: int,
    episodes: int,
    layers: list[tuple[int, int]],
    merge: bool,
    top_k: int | None,
    embedding: bool,
    reduction: str,
    temperature: float | None,
    seed: int,
) -> None:
    labels = [sorted(set(labels)).index(label) for label in labels]
    dims, sizes = (list(column) for column in zip(*layers, strict=True))
    options: dict[str, Any] = {
        "feature_size": sizes, "embedding": embedding, "merge_shots": merge, "top_k": top_k,
        "layer_reduction": reduction, "attention_temperature": temperature,
    }  # fmt: skip
    torch.manual_seed(seed)
    head = LWFMHead(dims, **options).double().eval()
    oracle = lwfm.reference.LWFMHead(dims, **options).double().eval()
    oracle.load_state_dict(head.state_dict())
    n = 6
    maps = [torch.rand(n, C, F, F, dtype=torch.float64) for C, F in layers]
    lists = torch.randint(n, (episodes, len(labels) + queries))
    support, query = lists[:, : len(labels)], lists[:, len(labels) :]
    results = head.compare_episodes(head.encode(maps), support, query, labels)
    expected = [
        oracle([x[s] for x in maps], torch.tensor(labels), [x[q] for x in maps])
        for s, q in zip(support, query, strict=True)
    ]
    logits = (results.base + results.matching) / head.temperature
    torch.testing.assert_close(logits, torch.stack(expected), atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("listed", [False, True], ids=FORMS)
@pytest.mark.parametrize("merge", [False, True], ids=["each-shot", "merged"])
def test_gradcheck(listed: bool, merge: bool) -> None:
    """Of the encoding and the comparison together: squares and Grams have no gradients of their own."""
    head = LWFMHead([3, 2], feature_size=[2, 1], top_k=1, merge_shots=merge).double()
    maps = [leaf(4, 3, 2, 2), leaf(4, 2, 1, 1, seed=1)]
    lists = torch.tensor([[0, 1, 2], [3, 0, 0]])

    def compare(*maps: Tensor) -> Any:
        images = head.encode(list(maps))
        if listed:
            return head.compare_episodes(images, lists[:, :2], lists[:, 2:], [0, 1], features=True)[:3]
        return head.compare(images[:2], [0, 1], images[2:], features=True)[:3]

    assert torch.autograd.gradcheck(compare, maps)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", ["unequal-shots-17-queries", "64-positions", "own-resolutions"])
def test_bits_do_not_depend_on_the_number_of_threads(shape: str, options: str) -> None:
    case = Case(shape, OPTIONS[options], "listed", torch.float32)
    results = []
    for count in (1, 2):
        with torch_threads(count):
            results.append(case.results())
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("shape", ["unequal-shots-17-queries", "64-positions", "own-resolutions"])
def test_bits_of_an_episode_do_not_depend_on_the_others(shape: str, options: str) -> None:
    case = Case(shape, OPTIONS[options], "listed", torch.float32)
    assert case.lists is not None
    together = case.compare()
    for e in range(3):
        alone = case.compare((case.lists[0][e : e + 1], case.lists[1][e : e + 1]))
        images = case.head.encode(case.maps)
        support, query = images[case.lists[0][e]], images[case.lists[1][e]]
        unlisted = case.head.compare(support, case.labels, query, features=True)
        weights = [torch.linspace(-1, 2, x[e].numel()).view_as(x[e]) for x in together]
        slopes = []
        for outputs in ([x[e] for x in together], [x[0] for x in alone], list(unlisted[:3])):
            torch.testing.assert_close(outputs, [x[e] for x in together], rtol=0, atol=0)
            loss = [(w * x).sum() for w, x in zip(weights, outputs, strict=True)]  # type: ignore[operator]
            slopes.append(torch.autograd.grad(loss, case.inputs(), retain_graph=True, allow_unused=True))
        torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(slopes[2], slopes[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("listed", [False, True], ids=FORMS)
def test_opcheck_without_and_with_lists(listed: bool, dtype: torch.dtype) -> None:
    arguments = episode_arguments(torch.device("cpu"), dtype, listed=listed)
    torch.library.opcheck(torch.ops.lwfm.episodes.default, arguments)
    positions, embedded = with_gradients(arguments[0]), with_gradients(arguments[3])
    arguments = (positions, *arguments[1:3], embedded, *arguments[4:])
    torch.library.opcheck(torch.ops.lwfm.episodes.default, arguments)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("merge", [False, True], ids=["each-shot", "merged"])
def test_nan_is_named_by_episode_query_and_support_image(layer: int, merge: bool) -> None:
    head = LWFMHead([4, 3], feature_size=2, merge_shots=merge)
    maps = [leaf(6, C, 2, 2, dtype=torch.float32).detach() for C in (4, 3)]
    maps[layer][5, 0, 1, 1] = torch.nan
    images = head.encode(maps)
    support, query = torch.tensor([[0, 1, 2], [0, 5, 2]]), torch.tensor([[3, 4], [4, 3]])
    with pytest.raises(ValueError, match=r"cost\[1, 0, 1, 3, 0\] is nan"):
        head.compare_episodes(images, support, query, [1, 0, 1])
    with pytest.raises(ValueError, match=r"cost\[1, \d, .* is nan"):
        head.compare(images[[0, 1, 2]], [1, 0, 1], images[[3, 5]])


def changed(**changes: Any) -> tuple[Any, ...]:
    names = [
        "positions", "squares", "grams", "embedded", "embedded_squares", "support", "query", "order", "begin",
        "temperature", "top_k", "mean", "merge", "features", "record",
    ]  # fmt: skip
    arguments = dict(zip(names, episode_arguments(torch.device("cpu"), torch.float32), strict=True))
    for name, change in changes.items():
        arguments[name] = change(arguments[name])
    return tuple(arguments.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"support": lambda x: x + 5}, "lists of images must name images of the pool"),
        ({"query": lambda x: x - 4}, "lists of images must name images of the pool"),
        ({"query": lambda _: None}, "belong together"),
        ({"query": lambda x: x[:1]}, "must have E rows"),
        ({"support": lambda x: x[:, :2].contiguous()}, "as many support images as there are labels"),
        ({"support": lambda x: x.int()}, "must be contiguous int64"),
        ({"order": lambda x: x + 1}, "order must list images 0..S-1"),
        ({"order": lambda x: x.float()}, "order .S. and begin .way . 1. must be contiguous int64"),
        ({"begin": lambda x: x + 1}, "begin must ascend from 0 to S"),
        ({"begin": lambda x: x.flip(0)}, "begin must ascend from 0 to S"),
        ({"begin": lambda x: x[:1]}, "at least one class"),
        ({"temperature": lambda _: 0.0}, "temperature must be positive"),
        ({"temperature": lambda _: float("nan")}, "temperature must be positive"),
        ({"top_k": lambda _: 5}, "top_k must be 1 to 4"),
        ({"top_k": lambda _: -2}, "top_k must be 1 to 4"),
        ({"positions": lambda _: []}, "at least one layer"),
        ({"positions": lambda x: [y.half() for y in x]}, "float32 or float64"),
        ({"positions": lambda x: [x[0], x[1][:2]]}, "positions must have the dtype, the images"),
        ({"squares": lambda x: x[:1]}, "an entry for each layer"),
        ({"squares": lambda x: [y[:, :1] for y in x]}, "squares .n, P. must have"),
        ({"grams": lambda x: [y.double() for y in x]}, "grams .n, P, P. must have"),
        ({"embedded": lambda x: x[:1]}, "an entry for each layer"),
        ({"embedded": lambda x: [y[1:] for y in x]}, "embedded must have"),
        ({"embedded_squares": lambda x: [y[0] for y in x]}, "embedded squares .n, P. must have"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_bad_arguments_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torch.ops.lwfm.episodes.default(*changed(**changes))


def test_more_support_images_than_images_are_refused() -> None:
    arguments = changed(
        **{name: (lambda x: [y[:2] for y in x])
           for name in ("positions", "squares", "grams", "embedded", "embedded_squares")},
        support=lambda _: None, query=lambda _: None,
    )  # fmt: skip
    with pytest.raises(ValueError, match="fewer images than support images"):
        torch.ops.lwfm.episodes.default(*arguments)


@pytest.mark.parametrize("number", [0, 1, 2, -1], ids=["grads", "positions", "squares", "recorded"])
def test_bad_gradients_are_refused(number: int) -> None:
    """Of a direct call, whose tensors no forward pass has checked."""
    operator = torch.ops.lwfm.episodes_backward.default
    arguments = list(operators(False, torch.device("cpu"), torch.float64)[operator])
    at = 10 if number == -1 else number
    arguments[at] = [x[:1] for x in arguments[at]]
    with pytest.raises(ValueError, match=r"must (have|be)"):
        operator(*arguments)


@pytest.mark.parametrize(
    ("support", "query", "message"),
    [
        ([[0, 1]], [[7]], "query must list images 0..3, got 7"),
        ([[0, -1]], [[2]], "support must list images 0..3, got -1"),
        ([[0, 1]], [[2], [3]], "support lists 1 episodes, query 2"),
        ([0, 1], [[2]], "support must list images, integers [episodes, images], got torch.int64 [2]"),
        ([[0, 1]], [[2.0]], "query must list images, integers"),
        ([[0, 1, 2]], [[2]], "3 support images need as many labels, got 2"),
    ],
    ids=["too-high", "negative", "episodes", "rank", "floats", "labels"],
)
def test_lists_that_make_no_episodes_are_refused(support: Any, query: Any, message: str) -> None:
    head = LWFMHead([3], feature_size=1)
    images = head.encode(torch.rand(4, 3, 1, 1))
    with pytest.raises(ValueError, match=re.escape(message)):
        head.compare_episodes(images, torch.tensor(support), torch.tensor(query), [0, 1])


def test_images_encoded_by_another_head_are_refused() -> None:
    small, large = (LWFMHead([3], feature_size=F).encode(torch.rand(4, 3, F, F)) for F in (1, 2))
    with pytest.raises((ValueError, RuntimeError)):
        EncodedMaps.cat([small, large])


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64], ids=str)
def test_lists_of_every_integer_dtype(dtype: torch.dtype) -> None:
    head = LWFMHead([3], feature_size=2)
    images = head.encode(torch.rand(5, 3, 2, 2))
    lists = torch.tensor([[0, 1, 2, 4], [4, 1, 3, 3]])
    expected = head.compare_episodes(images, lists[:, :2], lists[:, 2:], [0, 1]).base
    lists = lists.to(dtype)
    assert torch.equal(head.compare_episodes(images, lists[:, :2], lists[:, 2:], [0, 1]).base, expected)
