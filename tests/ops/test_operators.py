"""Feature matching equals the expressions; every operator is complete."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lwfm.ops import implementation
from lwfm.ops._expressions import cosine_blocks, paired_blocks
from lwfm.ops.feature_matching import feature_matching
from tests.helpers.feature_inputs import leaf, operators


def gradients(outputs: list[Tensor], inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a sum that weighs every output differently."""
    weights = [torch.linspace(-1, 2, x.numel()).to(x).view_as(x) for x in outputs]
    return torch.autograd.grad([(w * x).sum() for w, x in zip(weights, outputs, strict=True)], inputs)


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


@pytest.mark.parametrize("gradient", [True, False], ids=["gradient", "plain"])
def test_opcheck(device: torch.device, dtype: torch.dtype, gradient: bool) -> None:
    for operator, arguments in operators(gradient, device, dtype).items():
        torch.library.opcheck(operator, arguments)


def test_gradcheck(device: torch.device) -> None:
    s, q = leaf(2, 3, 9, device=device), leaf(2, 3, 9, device=device, seed=1)
    cosines = cosine_blocks(s.detach(), q.detach())
    assert torch.autograd.gradcheck(lambda s, q: feature_matching(cosines, s, q, 2)[0], (s, q))


def test_empty_batches(device: torch.device) -> None:
    s, q = torch.rand(3, 4, 5, device=device), torch.rand(0, 6, 5, device=device)
    similarity, assignment = feature_matching(cosine_blocks(s, q), s, q, 1)
    assert (similarity.shape, assignment.shape) == ((0, 3), (0, 3, 4))


@pytest.mark.parametrize("operator", ["feature_matching", "encode_maps", "episodes"])
def test_double_backward_is_refused(operator: str) -> None:
    name = getattr(torch.ops.lwfm, operator).default
    arguments = operators(True, torch.device("cpu"), torch.float64)[name]
    leaves = [x for x in tree_leaves(arguments) if isinstance(x, Tensor) and x.requires_grad]
    output = name(*arguments)[0]
    slope = torch.autograd.grad(output.square().sum(), leaves[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match=f"lwfm::{operator} can be differentiated once"):
        torch.autograd.backward(slope.sum())


IMAGES = torch.rand(2, 3, 4)
COSINES = cosine_blocks(IMAGES, IMAGES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*COSINES, *[torch.rand(2, 4, 4)] * 2, 1), "support must be"),
        ((*COSINES, IMAGES, IMAGES, 4), "top_k must be 1 to 3"),
    ],
    ids=["positions", "top_k"],
)
def test_bad_arguments_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torch.ops.lwfm.feature_matching(*arguments)


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
