"""Centered positions, feature matching, class terms: equal to expressions, complete operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lwfm.nn.positions import MapLayout
from lwfm.ops import implementation
from lwfm.ops._expressions import cosine_blocks, paired_blocks
from lwfm.ops.centered_positions import centered_positions
from lwfm.ops.class_terms import class_terms
from lwfm.ops.feature_matching import feature_matching
from tests.helpers.feature_inputs import DIMS, leaf, maps_in, operators, terms_inputs


def gradients(outputs: list[Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a sum that weighs every output differently."""
    weights = [torch.linspace(-1, 2, x.numel()).to(x).view_as(x) for x in outputs]
    return torch.autograd.grad([(w * x).sum() for w, x in zip(weights, outputs, strict=True)], inputs)


@pytest.mark.parametrize("layout", ["one-tensor", "channels-last", "per-layer"])
@pytest.mark.parametrize("together", [True, False], ids=["together", "each-layer"])
def test_positions_are_centered(
    layout: str, together: bool, device: torch.device, dtype: torch.dtype
) -> None:
    maps = maps_in(layout, device, dtype)
    features, squares = centered_positions(maps, DIMS, together)
    actual = [*features, *squares]
    layers = maps if len(maps) > 1 else list(torch.split_with_sizes(maps[0], list(DIMS), 1))
    features = [x.flatten(2).transpose(1, 2) for x in layers]
    if together:
        mean = torch.cat(features, -1).mean(-1, keepdim=True)
        features = [x - mean for x in features]
    else:
        features = [x - x.mean(-1, keepdim=True) for x in features]
    expected = features + [x.square().sum(-1) for x in features]
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients(actual, maps), gradients(expected, maps), atol=1e-5, rtol=1e-5)
    with implementation("expressions"):
        features, squares = centered_positions(maps, DIMS, together)
    torch.testing.assert_close([*features, *squares], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("top_k", [1, 3, None], ids=["top1", "top3", "all"])
@pytest.mark.parametrize(
    ("P", "M"), [(4, 4), (3, 7), (7, 3), (3, 50)], ids=["square", "wide", "tall", "wider-than-a-warp"]
)
@pytest.mark.parametrize("paired", [False, True], ids=["all-pairs", "paired"])
def test_matching_equals_the_expressions(
    P: int, M: int, top_k: int | None, paired: bool, device: torch.device
) -> None:
    shapes = [(P, 60), (M, 60), (P, 40), (M, 40)]
    s, q, es, eq = (leaf(9, *shape, device=device, seed=seed) for seed, shape in enumerate(shapes))
    blocks = (paired_blocks if paired else cosine_blocks)(s.detach(), q.detach())
    similarity, assignment = feature_matching(blocks, es, eq, top_k)
    slopes = gradients([similarity], [es, eq])
    with implementation("expressions"):
        expected, expected_assignment = feature_matching(blocks, es, eq, top_k)
    torch.testing.assert_close((similarity, assignment), (expected, expected_assignment))
    torch.testing.assert_close(slopes, gradients([expected], [es, eq]))


def test_tiny_and_zero_features(device: torch.device) -> None:
    es, eq = leaf(1, 3, 4, device=device), leaf(1, 3, 4, device=device, seed=1)
    with torch.no_grad():
        es[0, 0] = 0
        es[0, 1] *= 1e-10  # shorter than the smallest norm a cosine divides by
    blocks = cosine_blocks(*(leaf(1, 3, 4, device=device, seed=seed).detach() for seed in (2, 3)))
    similarity, _ = feature_matching(blocks, es, eq, None)
    slopes = gradients([similarity], [es, eq])
    with implementation("expressions"):
        expected, _ = feature_matching(blocks, es, eq, None)
    torch.testing.assert_close(similarity, expected)
    torch.testing.assert_close(slopes, gradients([expected], [es, eq]))


@pytest.mark.parametrize("C", [37, 600])
def test_class_terms_equal_the_expressions(C: int, device: torch.device, dtype: torch.dtype) -> None:
    inputs, shots = terms_inputs(device, dtype, C)
    a, b, s, q = inputs
    actual = list(class_terms(a, b, s, q, shots.order, shots.begin))
    slopes = gradients(actual, inputs)
    with implementation("expressions"):
        expected = list(class_terms(a, b, s, q, shots.order, shots.begin))
    tolerance = 1e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(slopes, gradients(expected, inputs), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("gradient", [True, False], ids=["gradient", "plain"])
def test_opcheck(device: torch.device, dtype: torch.dtype, gradient: bool) -> None:
    for operator, arguments in operators(gradient, device, dtype).items():
        torch.library.opcheck(operator, arguments)


def test_gradcheck(device: torch.device) -> None:
    maps = maps_in("per-layer", device, torch.float64)
    assert torch.autograd.gradcheck(
        lambda *x: tuple(torch.ops.lwfm.centered_positions(list(x), list(DIMS), True)), maps
    )
    s, q = leaf(2, 3, 9, device=device), leaf(2, 3, 9, device=device, seed=1)
    cosines = cosine_blocks(s.detach(), q.detach())
    assert torch.autograd.gradcheck(lambda s, q: feature_matching(cosines, s, q, 2)[0], (s, q))
    inputs, shots = terms_inputs(device, C=3)
    operator = torch.ops.lwfm.class_terms
    assert torch.autograd.gradcheck(lambda *x: operator(*x, shots.order, shots.begin), inputs)


def test_empty_batches(device: torch.device) -> None:
    layers = MapLayout(DIMS, 2).positions(torch.rand(0, 11, 2, 2, device=device), "query")
    assert [list(x.features.shape) for x in layers] == [[0, 4, 6], [0, 4, 5]]
    s, q = torch.rand(3, 4, 5, device=device), torch.rand(0, 6, 5, device=device)
    similarity, assignment = feature_matching(cosine_blocks(s, q), s, q, 1)
    assert (similarity.shape, assignment.shape) == ((0, 3), (0, 3, 4))


@pytest.mark.parametrize("operator", ["centered_positions", "feature_matching", "class_terms"])
def test_double_backward_is_refused(operator: str) -> None:
    name = getattr(torch.ops.lwfm, operator).default
    arguments = operators(True, torch.device("cpu"), torch.float64)[name]
    leaves = [x for x in tree_leaves(arguments) if isinstance(x, Tensor) and x.requires_grad]
    output = name(*arguments)[0]
    slope = torch.autograd.grad(output.square().sum(), leaves[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match=f"lwfm::{operator} can be differentiated once"):
        torch.autograd.backward(slope.sum())


MAPS = torch.rand(2, 3, 2, 2)
WEIGHTS, IMAGES = torch.rand(2, 2, 3), torch.rand(2, 3, 4)
COSINES = cosine_blocks(IMAGES, IMAGES)


@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        ("centered_positions", ([MAPS], [2], True), "maps must be"),
        ("centered_positions", ([MAPS.half()], [3], True), "float32 or float64"),
        ("centered_positions", ([MAPS, MAPS], [3], True), "one tensor or one per layer"),
        ("feature_matching", (*COSINES, *[torch.rand(2, 4, 4)] * 2, 1), "support must be"),
        ("feature_matching", (*COSINES, IMAGES, IMAGES, 4), "top_k must be 1 to 3"),
        ("class_terms", (*[WEIGHTS] * 2, *[IMAGES] * 2, [0, 1], [0, 1]), "list every class"),
        ("class_terms", (*[WEIGHTS] * 2, *[IMAGES] * 2, [0, 2], [0, 2]), "list every class"),
        ("class_terms", (*[WEIGHTS[:, :1]] * 2, *[IMAGES] * 2, [0, 1], [0, 2]), "a must be"),
    ],
    ids=["channels", "half", "layers", "positions", "top_k", "classes", "images", "weights"],
)
def test_bad_arguments_are_refused(operator: str, arguments: tuple[Any, ...], message: str) -> None:
    if operator == "class_terms":
        arguments = (*arguments[:4], *(torch.tensor(x) for x in arguments[4:]))
    with pytest.raises(ValueError, match=message):
        getattr(torch.ops.lwfm, operator)(*arguments)


GRADIENT: dict[str, Any] = {  # of one support image of 3 positions with each of two queries of 4
    "grad": torch.ones(2, 1),
    "support": torch.rand(1, 3, 5),
    "query": torch.rand(2, 4, 5),
    "assignment": torch.tensor([[[0, 1, 2]], [[3, 2, 1]]]),
    "cosines": torch.rand(2, 1, 3),
    "top_k": 2,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grad": torch.ones(3, 1)}, "grad must have"),
        ({"grad": torch.ones(2)}, "as many support images as queries"),
        ({"grad": torch.ones(2, 1).double()}, "grad must have"),
        ({"query": torch.rand(2, 4, 6)}, "support must be"),
        ({"query": torch.rand(4, 5)}, "support must be"),
        ({"support": torch.rand(1, 4, 5)}, "assignment and cosines must be"),
        ({"support": torch.rand(1, 3, 5).half()}, "float32 or float64"),
        ({"assignment": GRADIENT["assignment"][:1]}, "assignment and cosines must be"),
        ({"assignment": GRADIENT["assignment"].int()}, "assignment and cosines must be"),
        ({"cosines": torch.rand(2, 1, 2)}, "assignment and cosines must be"),
        ({"top_k": 0}, "top_k must be 1 to 3"),
        ({"top_k": 4}, "top_k must be 1 to 3"),
    ],
    ids=[
        "pairs", "paired", "dtype", "channels", "rank", "positions", "half", "queries", "int32", "cosines",
        "top_k-low", "top_k-high",
    ],
)  # fmt: skip
def test_bad_gradients_of_matching_are_refused(
    change: dict[str, Any], message: str, device: torch.device
) -> None:
    """Of a direct call, whose tensors no forward pass has checked."""
    arguments = {**GRADIENT, **change}
    with pytest.raises(ValueError, match=message):
        torch.ops.lwfm.feature_matching_backward(
            *(x.to(device) if isinstance(x, Tensor) else x for x in arguments.values())
        )


@pytest.mark.parametrize("columns", [[0, 1, 4], [0, -1, -1]], ids=["outside", "too-few"])
def test_assignments_of_other_matches_have_no_gradient(columns: list[int]) -> None:
    """On the CPU; on CUDA tensors this would have to wait for the device."""
    arguments = {**GRADIENT, "assignment": torch.tensor([[[0, 1, 2]], [columns]])}
    with pytest.raises(ValueError, match="assignment must have top_k positions"):
        torch.ops.lwfm.feature_matching_backward(*arguments.values())
    slopes = torch.ops.lwfm.feature_matching_backward(*GRADIENT.values())
    assert [x.shape for x in slopes] == [(1, 3, 5), (2, 4, 5)]
