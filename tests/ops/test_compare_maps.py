"""Episodes compared from their maps: the same as encoding the maps and comparing the images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lwfm.ops.class_lists import ClassLists
from lwfm.ops.compare_maps import compare_maps
from lwfm.ops.encode_maps import encode_maps
from lwfm.ops.episodes import EpisodeOptions, compare_episodes

DIMS = (6, 4)
LABELS = (0, 1, 0, 2, 1)
OPTIONS = EpisodeOptions(5.0, 2, mean_over_layers=False, merge_shots=False)


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


@pytest.mark.parametrize("together", [True, False], ids=["together", "apart"])
@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "plain"])
@pytest.mark.parametrize("joined", [True, False], ids=["joined", "layers"])
@pytest.mark.parametrize("features", [True, False], ids=["features", "no-features"])
def test_equals_encoding_and_comparing(joined: bool, embedded: bool, together: bool, features: bool) -> None:
    batches, weights = inputs(joined=joined, embedded=embedded)
    classes = ClassLists(LABELS)
    leaves = [*(x for batch in batches for x in batch), *weights]
    actual = compare_maps(
        batches, DIMS, classes, OPTIONS, together=together, weights=weights, features=features
    )
    images = encode_maps(batches, DIMS, together=together, weights=weights)
    expected = compare_episodes(images, classes, None, OPTIONS, features=features)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)
    loss = [(x * torch.randn(x.shape, dtype=x.dtype, generator=torch.manual_seed(1))).sum() for x in actual]
    same = [(x * torch.randn(x.shape, dtype=x.dtype, generator=torch.manual_seed(1))).sum() for x in expected]
    slopes = torch.autograd.grad(sum(loss), leaves)  # type: ignore[arg-type]
    torch.testing.assert_close(slopes, torch.autograd.grad(sum(same), leaves), rtol=0, atol=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("output", [0, 1, 2], ids=["base", "matching", "features"])
def test_gradient_of_one_output_alone(output: int) -> None:
    batches, weights = inputs(joined=True, embedded=True)
    results = [
        compare_maps(
            batches, DIMS, ClassLists(LABELS), OPTIONS, together=True, weights=weights, features=True
        )
        for _ in range(2)
    ]
    alone = torch.autograd.grad(results[0][output].sum(), batches[0][0])
    weighed = sum(x.sum() * float(number == output) for number, x in enumerate(results[1]))
    torch.testing.assert_close(alone, torch.autograd.grad(weighed, batches[0][0]))  # type: ignore[arg-type]


@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "plain"])
@pytest.mark.parametrize("power", [1, 2], ids=["linear", "square"])
def test_is_differentiated_once(embedded: bool, power: int) -> None:
    batches, weights = inputs(joined=True, embedded=embedded)
    base, _, _ = compare_maps(
        batches, DIMS, ClassLists(LABELS), OPTIONS, together=True, weights=weights, features=False
    )
    (slope,) = torch.autograd.grad(base.pow(power).sum(), batches[0][0], create_graph=True)
    penalty = slope.square().sum() + base.sum()
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.backward(penalty, retain_graph=True)
    for leaf in (*(x for batch in batches for x in batch), *weights):
        with pytest.raises(RuntimeError, match="can be differentiated once"):
            torch.autograd.grad(penalty, leaf, retain_graph=True)
        with pytest.raises(RuntimeError, match="can be differentiated once"):
            torch.autograd.grad(slope.sum(), leaf, retain_graph=True, allow_unused=True)


def test_weights_modified_in_place_have_no_gradient() -> None:
    batches, weights = inputs(joined=True, embedded=True)
    _, matching, _ = compare_maps(
        batches, DIMS, ClassLists(LABELS), OPTIONS, together=True, weights=weights, features=False
    )
    with torch.no_grad():
        weights[0].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(matching.sum(), batches[0][0])
