"""Logits of episodes from their maps: the same as encoding the maps and comparing the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from lwfm.ops.class_lists import ClassLists
from lwfm.ops.compare_maps import compare_maps
from lwfm.ops.encode_maps import encode_maps
from lwfm.ops.episodes import EpisodeOptions, compare_episodes

if TYPE_CHECKING:
    from collections.abc import Sequence

DIMS = (6, 4)
LABELS = (0, 1, 0, 2, 1)
OPTIONS = EpisodeOptions(5.0, 2, mean_over_layers=False, merge_shots=False)
MATCHING_WEIGHT, TEMPERATURE = 0.25, 0.2


def inputs(*, joined: bool, embedded: bool) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Return maps of 5 support images and of 4 queries, and the weights of an embedding."""
    torch.manual_seed(0)
    maps = [[torch.randn(n, C, 3, 3, dtype=torch.float64) for C in DIMS] for n in (len(LABELS), 4)]
    batches = [[torch.cat(layers, dim=1)] for layers in maps] if joined else maps
    shapes = [shape for C in DIMS for shape in ((C // 2, C), (C, C // 2))] if embedded else []
    weights = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    for x in (*(x for batch in batches for x in batch), *weights):
        x.requires_grad_()
    return batches, weights


def compare(
    batches: list[list[Tensor]],
    weights: list[Tensor],
    *,
    options: EpisodeOptions = OPTIONS,
    together: bool = True,
    features: bool = False,
) -> tuple[Tensor, Tensor]:
    return compare_maps(
        batches, DIMS, ClassLists(LABELS), options,
        together=together, weights=weights, matching_weight=MATCHING_WEIGHT, temperature=TEMPERATURE,
        features=features,
    )  # fmt: skip


def random_loss(outputs: Sequence[Tensor]) -> Any:
    return sum(
        (x * torch.randn(x.shape, dtype=x.dtype, generator=torch.manual_seed(1))).sum() for x in outputs
    )


@pytest.mark.parametrize("together", [True, False], ids=["together", "apart"])
@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "plain"])
@pytest.mark.parametrize("joined", [True, False], ids=["joined", "layers"])
@pytest.mark.parametrize("features", [True, False], ids=["features", "no-features"])
@pytest.mark.parametrize("top_k", [2, 0], ids=["matched", "base-alone"])
def test_equals_encoding_and_comparing(
    joined: bool, embedded: bool, together: bool, features: bool, top_k: int
) -> None:
    batches, weights = inputs(joined=joined, embedded=embedded)
    options = OPTIONS._replace(top_k=top_k)
    leaves = [*(x for batch in batches for x in batch), *weights]
    actual = compare(batches, weights, options=options, together=together, features=features)
    images = encode_maps(batches, DIMS, together=together, weights=weights)
    base, matching, means = compare_episodes(images, ClassLists(LABELS), None, options, features=features)
    expected = (base + MATCHING_WEIGHT * matching) / TEMPERATURE, means
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    slopes = torch.autograd.grad(random_loss(actual), leaves)
    torch.testing.assert_close(slopes, torch.autograd.grad(random_loss(expected), leaves), rtol=0, atol=0)


@pytest.mark.parametrize("output", [0, 1], ids=["logits", "features"])
def test_gradient_of_one_output_alone(output: int) -> None:
    batches, weights = inputs(joined=True, embedded=True)
    results = [compare(batches, weights, features=True) for _ in range(2)]
    alone = torch.autograd.grad(results[0][output].sum(), batches[0][0])
    weighed: Any = sum(x.sum() * float(number == output) for number, x in enumerate(results[1]))
    torch.testing.assert_close(alone, torch.autograd.grad(weighed, batches[0][0]))


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "plain"])
@pytest.mark.parametrize("power", [1, 2], ids=["linear", "square"])
def test_is_differentiated_once(embedded: bool, power: int) -> None:
    batches, weights = inputs(joined=True, embedded=embedded)
    logits, _ = compare(batches, weights)
    (slope,) = torch.autograd.grad(logits.pow(power).sum(), batches[0][0], create_graph=True)
    penalty = slope.square().sum() + logits.sum()
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.backward(penalty, retain_graph=True)
    for leaf in (*(x for batch in batches for x in batch), *weights):
        with pytest.raises(RuntimeError, match="can be differentiated once"):
            torch.autograd.grad(penalty, leaf, retain_graph=True)
        with pytest.raises(RuntimeError, match="can be differentiated once"):
            torch.autograd.grad(slope.sum(), leaf, retain_graph=True, allow_unused=True)


def test_weights_modified_in_place_have_no_gradient() -> None:
    batches, weights = inputs(joined=True, embedded=True)
    logits, _ = compare(batches, weights)
    with torch.no_grad():
        weights[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(logits.sum(), batches[0][0])


@pytest.mark.parametrize("record", [True, False], ids=["recorded", "plain"])
@pytest.mark.parametrize("features", [True, False], ids=["features", "no-features"])
def test_opcheck(record: bool, features: bool) -> None:
    batches, weights = inputs(joined=True, embedded=True)
    maps = [batch[0] for batch in batches]
    lists = ClassLists(LABELS)
    if not record:
        maps, weights = ([x.detach() for x in tensors] for tensors in (maps, weights))
    arguments = (maps, list(DIMS), True, True, weights, lists.order, lists.begin, 5.0, 2, False, False)
    torch.library.opcheck(
        torch.ops.lwfm.compare_maps.default,
        (*arguments, MATCHING_WEIGHT, TEMPERATURE, features, record),
    )


def test_gradients_of_other_shapes_are_refused() -> None:
    batches, weights = inputs(joined=True, embedded=True)
    maps, weights = [batch[0].detach() for batch in batches], [x.detach() for x in weights]
    lists = ClassLists(LABELS)
    options = 5.0, 2, False, False, MATCHING_WEIGHT, TEMPERATURE, False
    outputs = torch.ops.lwfm.compare_maps(
        maps, DIMS, True, True, weights, lists.order, lists.begin, *options, True
    )
    logits, _, memory = outputs
    arguments = [
        memory,
        weights,
        lists.order,
        lists.begin,
        [5, 4],
        DIMS,
        [3, 3],
        [3, 3],
        True,
        True,
        *options,
    ]
    backward = torch.ops.lwfm.compare_maps_backward
    with pytest.raises(ValueError, match="gradients must have the shape and the dtype of logits"):
        backward([logits[:1]], *arguments)
    with pytest.raises(ValueError, match="gradients must be those of logits"):
        backward([logits, logits], *arguments)
    for other in (memory[:-1], memory.float(), torch.cat([memory, memory])):
        with pytest.raises(
            ValueError, match=r"memory must be that of the forward pass|of the dtype of the maps"
        ):
            backward([logits.to(other.dtype)], other, *arguments[1:])
