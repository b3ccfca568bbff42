"""Encoding of maps: equal to the expressions; encoded maps can be indexed, joined, moved and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lwfm._common.devices import torch_threads
from lwfm.nn import EncodedMaps, LWFMHead
from lwfm.ops import implementation
from lwfm.ops.encode_maps import EncodeMaps, encode_maps
from tests.helpers.feature_inputs import DIMS, encoding_arguments, leaf, operators, with_gradients

if TYPE_CHECKING:
    from pathlib import Path

LAYOUTS = ["one-tensor", "channels-last", "per-layer"]


def batches_in(layout: str, device: torch.device, dtype: torch.dtype) -> list[list[Tensor]]:
    """Return maps of 3 and of 18 images as leaves: one tensor each, or one per layer."""
    batches = []
    for n in (3, 18):
        if layout == "per-layer":
            batch = [leaf(n, C_l, 2, 4, device=device, dtype=dtype, seed=n + C_l) for C_l in DIMS]
        else:
            batch = [leaf(n, sum(DIMS), 2, 4, device=device, dtype=dtype, seed=n)]
        if layout == "channels-last":
            batch = [x.detach().to(memory_format=torch.channels_last).requires_grad_() for x in batch]
        batches.append(batch)
    return batches


def weights_of(device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    shapes = [shape for C_l in DIMS for shape in ((3, C_l), (C_l, 3))]
    return [leaf(*shape, device=device, dtype=dtype, seed=k) for k, shape in enumerate(shapes)]


def results(images: EncodedMaps, inputs: list[Tensor]) -> list[Tensor]:
    """Return what was encoded, and gradients of positions and embedded positions."""
    outputs = [*images.positions, *images.embedded]
    weights = [torch.linspace(-1, 2, x.numel()).to(x).view_as(x) for x in outputs]
    slopes = torch.autograd.grad([(w * x).sum() for w, x in zip(weights, outputs, strict=True)], inputs)
    return [x.detach() for part in images.parts() for x in part] + list(slopes)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("together", [True, False], ids=["together", "each-layer"])
@pytest.mark.parametrize("embedding", [True, False], ids=["embedding", "plain"])
def test_equals_the_expressions_with_gradients(
    layout: str, together: bool, embedding: bool, device: torch.device, dtype: torch.dtype
) -> None:
    batches = batches_in(layout, device, dtype)
    weights = weights_of(device, dtype) if embedding else []
    inputs = [x for batch in batches for x in batch] + weights
    actual = results(encode_maps(batches, DIMS, together=together, weights=weights), inputs)
    with implementation("expressions"):
        expected = results(encode_maps(batches, DIMS, together=together, weights=weights), inputs)
    for x, y in zip(actual, expected, strict=True):
        scale = max(1.0, float(y.abs().max()))
        torch.testing.assert_close(x, y, atol=50 * torch.finfo(dtype).eps * scale, rtol=0)


@pytest.mark.parametrize("side", [(0, 0), (0, 3)], ids=str)
@pytest.mark.parametrize("record", [False, True], ids=["inference", "recorded"])
def test_maps_without_positions_have_nothing_to_encode(side: tuple[int, int], record: bool) -> None:
    maps = [torch.rand(2, sum(DIMS), *side, dtype=torch.float64)]
    arguments = (maps, list(DIMS), True, True, weights_of(torch.device("cpu"), torch.float64), record)
    encoded = torch.ops.lwfm.encode_maps(*arguments)
    assert [x.shape for x in encoded] == [x.shape for x in EncodeMaps.fake(*arguments)]
    assert not any(x.numel() for x in encoded)


def test_positions_are_centered_over_all_layers_or_their_own() -> None:
    maps = leaf(3, sum(DIMS), 2, 2).detach()
    together, apart = (encode_maps([[maps]], DIMS, together=choice) for choice in (True, False))
    total = torch.cat(together.positions, -1).sum(-1)
    torch.testing.assert_close(total, torch.zeros_like(total))
    for x in apart.positions:
        torch.testing.assert_close(x.sum(-1), torch.zeros_like(x.sum(-1)))
    difference = maps.flatten(2).transpose(1, 2) - torch.cat(together.positions, -1)
    torch.testing.assert_close(difference, maps.mean(1).flatten(1)[..., None].expand_as(difference))


@pytest.mark.parametrize("together", [True, False], ids=["together", "each-layer"])
def test_gradcheck(together: bool) -> None:
    maps, weights = [leaf(2, C, 1, 2, seed=C) for C in DIMS], weights_of(torch.device("cpu"), torch.float64)

    def encode(*inputs: Tensor) -> tuple[Tensor, ...]:
        images = encode_maps([inputs[:2]], DIMS, together=together, weights=inputs[2:])
        return *images.positions, *images.embedded

    assert torch.autograd.gradcheck(encode, [*maps, *weights])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_do_not_depend_on_threads_or_other_images(layout: str) -> None:
    batches = batches_in(layout, torch.device("cpu"), torch.float32)
    weights = weights_of(torch.device("cpu"), torch.float32)
    inputs = [x for batch in batches for x in batch] + weights
    both = []
    for count in (1, 2):
        with torch_threads(count):
            both.append(results(encode_maps(batches, DIMS, together=True, weights=weights), inputs))
    torch.testing.assert_close(both[1], both[0], rtol=0, atol=0)
    images = encode_maps(batches, DIMS, together=True, weights=weights)
    alone = encode_maps(batches[1:], DIMS, together=True, weights=weights)
    torch.testing.assert_close(images[3:].parts(), alone.parts(), rtol=0, atol=0)


def test_threads_do_not_write_over_the_images_of_others() -> None:
    """Gradients of hidden numbers, fewer than channels, take the memory of those of embedded positions."""
    maps = leaf(600, 16, 3, 3, device=torch.device("cpu"), dtype=torch.float32, seed=0)
    weights = [leaf(*shape, device=maps.device, dtype=maps.dtype, seed=1) for shape in ((2, 16), (16, 2))]
    both = []
    for count in (1, 2):
        with torch_threads(count):
            images = encode_maps([[maps]], (16,), together=True, weights=weights)
            both.append(results(images, [maps, *weights]))
    torch.testing.assert_close(both[1], both[0], rtol=0, atol=0)


def test_no_images() -> None:
    images = LWFMHead(DIMS, feature_size=2).encode(torch.rand(0, 11, 2, 2))
    assert len(images) == 0
    assert [x.shape for x in (*images.positions, *images.grams)] == [
        (0, 4, 6), (0, 4, 5), (0, 4, 4), (0, 4, 4),
    ]  # fmt: skip


def test_opcheck_of_joined_maps_without_an_embedding(dtype: torch.dtype) -> None:
    maps = [leaf(n, 11, 2, 3, dtype=dtype) for n in (2, 1)]
    torch.library.opcheck(torch.ops.lwfm.encode_maps.default, (maps, list(DIMS), True, True, [], True))


MAPS = [torch.rand(2, 3, 2, 2), torch.rand(2, 4, 2, 2)]
WEIGHTS = [torch.rand(2, 3), torch.rand(3, 2), torch.rand(2, 4), torch.rand(4, 2)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MAPS, [], False, True, []), "maps must be one tensor, or one of each layer"),
        ((MAPS[:1], [3, 4], False, True, []), "maps must be one tensor, or one of each layer"),
        (([x.half() for x in MAPS], [3, 4], False, True, []), "float32 or float64"),
        (([MAPS[0], MAPS[1].double()], [3, 4], False, True, []), "of one dtype"),
        ((MAPS, [3, 5], False, True, []), "maps must be .B, C_l"),
        (([MAPS[0], MAPS[1][:1]], [3, 4], False, True, []), "maps must be .B, C_l"),
        (([MAPS[0][0], MAPS[1]], [3, 4], False, True, []), "maps must be .B, C_l"),
        ((MAPS[:1], [1, 1], True, True, []), "maps must be .B, C_l"),
        ((MAPS, [3, 4], False, True, WEIGHTS[:2]), "two weights a layer"),
        ((MAPS, [3, 4], False, True, WEIGHTS[::-1]), "weights must be W1"),
        ((MAPS, [3, 4], False, True, [x.double() for x in WEIGHTS]), "of the dtype of the maps"),
        (([MAPS[0], MAPS[1][..., :1]], [3, 4], False, True, []), "must have maps of the same sides"),
    ],
    ids=[
        "no-layers", "layer-missing", "half", "dtypes", "channels", "images", "rank", "joined-channels",
        "weight-missing", "weight-shapes", "weight-dtype", "centered-together-over-other-sides",
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torch.ops.lwfm.encode_maps.default(*arguments, False)


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, lambda x: x[:1], "gradients of positions, and of embedded"),
        (0, lambda x: [y[:1] for y in x], "gradients and recorded tensors must be those"),
        (1, lambda _: [], "at least one layer"),
        (1, lambda x: [x[0], x[1][:3]], "those of the images and heights"),
        (2, lambda x: x[:2], "two weights a layer"),
        (3, lambda x: [y[..., :1] for y in x], "gradients and recorded tensors must be those"),
        (5, lambda _: [1, 1], "images must add up"),
        (6, lambda _: [5, 5], "heights must divide"),
        (6, lambda _: [2], "a height of each layer"),
    ],
    ids=[
        "no-embedded",
        "images",
        "no-layers",
        "images-of-a-layer",
        "weights",
        "hidden",
        "batches",
        "heights",
        "height-missing",
    ],
)
def test_bad_gradients_are_refused(number: int, change: Any, message: str) -> None:
    """Of a direct call, whose tensors no forward pass has checked."""
    operator = torch.ops.lwfm.encode_maps_backward.default
    arguments = list(operators(False, torch.device("cpu"), torch.float64)[operator])
    arguments[number] = change(arguments[number])
    with pytest.raises(ValueError, match=message):
        operator(*arguments)


def encoded(embedding: bool = True) -> EncodedMaps:
    torch.manual_seed(0)
    with torch.no_grad():
        return LWFMHead(DIMS, feature_size=2, embedding=embedding).encode(torch.rand(7, 11, 2, 2))


@pytest.mark.parametrize(
    ("index", "images"),
    [
        ([6, 0, 0], [6, 0, 0]),
        (torch.tensor([2, 5]), [2, 5]),
        (slice(1, 6, 2), [1, 3, 5]),
        ([], []),
    ],
    ids=["list", "tensor", "slice", "none"],
)
def test_images_can_be_selected(index: Any, images: list[int]) -> None:
    pool = encoded()
    some = pool[index]
    assert len(some) == len(images)
    for part, whole in zip(some.parts(), pool.parts(), strict=True):
        for x, y in zip(part, whole, strict=True):
            assert torch.equal(x, torch.stack([y[n] for n in images]) if images else y[:0])


def test_images_out_of_range_are_refused() -> None:
    with pytest.raises(IndexError):
        encoded()[[7]]


def test_concatenation_restores_what_was_divided() -> None:
    pool = encoded()
    again = EncodedMaps.cat([pool[:3], pool[3:3], pool[3:]])
    torch.testing.assert_close(again.parts(), pool.parts(), rtol=0, atol=0)


def test_moved_maps_are_on_their_device() -> None:
    moved = encoded().to("meta")
    assert moved.device.type == "meta"
    assert all(x.is_meta for part in moved.parts() for x in part)


@pytest.mark.parametrize("embedding", [True, False], ids=["embedding", "plain"])
def test_stored_and_read_again(embedding: bool, tmp_path: Path) -> None:
    pool = encoded(embedding)
    save_file(pool.tensors(), tmp_path / "maps.safetensors")
    again = EncodedMaps.from_tensors(load_file(tmp_path / "maps.safetensors"))
    torch.testing.assert_close(again.parts(), pool.parts(), rtol=0, atol=0)
    assert bool(again.embedded) == embedding


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"squares.1": None}, "lack the tensor squares.1"),
        ({"embedded.0": None}, "lack the tensor embedded.0"),
        ({"embedded_squares.0": None}, "lack the tensor embedded_squares.0"),
        ({"positions.0": None}, "lack the tensor"),
        ({"positions.0": None, "positions.1": None}, "lack the tensor positions.0"),
        ({"grams.0": torch.rand(7, 4, 3)}, r"grams.0 has shape \[7, 4, 3\], expected \[7, 4, 4\]"),
        ({"squares.0": torch.rand(6, 4)}, "squares.0 has shape"),
        ({"positions.1": torch.rand(6, 4, 5)}, "1 has shape"),
        ({"positions.0": torch.rand(4)}, "0 has shape"),
        ({"embedded.1": torch.rand(7, 4, 6)}, "embedded.1 has shape"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_damaged_tensors_are_refused(change: dict[str, Tensor | None], message: str) -> None:
    tensors = {**encoded().tensors(), **change}
    with pytest.raises(ValueError, match=message):
        EncodedMaps.from_tensors({name: x for name, x in tensors.items() if x is not None})


def test_gradients_of_one_output_alone() -> None:
    """Those that nothing uses are zeros, not missing."""
    arguments = with_gradients(encoding_arguments(torch.device("cpu"), torch.float64))
    outputs = torch.ops.lwfm.encode_maps.default(*arguments)
    slope = torch.autograd.grad(outputs[1].square().sum(), arguments[0], allow_unused=True)
    assert [float(x.abs().max()) > 0 for x in slope if x is not None] == [False, True] * 2
