"""Kernels: registered for every operator, and on a GPU the same results as on the CPU.

Without a GPU the kernels are executed under emulation by tests/simt; here only their registration is seen.
"""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from lwfm import _ops
from lwfm.nn import LWFMHead
from lwfm.ops._expressions import ScaledBlocks, pair_blocks
from lwfm.ops._implementation import KERNEL_DEVICES
from lwfm.ops.embedding_weights import embedding_weights
from lwfm.ops.feature_matching import feature_matching
from tests.helpers.episodes import random_episode

SHAPES = [(9, 9), (1, 1), (4, 7), (7, 4), (25, 25), (3, 40), (49, 49), (120, 110)]


def has_kernel(operator: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator, key)


def random_blocks(P: int, M: int, dtype: torch.dtype, *, seed: int = 0) -> ScaledBlocks:
    """Draw blocks of 2 queries and 3 support images, as views of one product and expanded factors."""
    generator = torch.Generator().manual_seed(seed)
    leaves = [
        torch.rand(*shape, generator=generator, dtype=torch.float64).to(dtype)
        for shape in ((3 * P, 2 * M), (3, P), (2, M))
    ]
    return pair_blocks(leaves[0].view(3, P, 2, M).permute(2, 0, 1, 3), leaves[1], leaves[2])


def on(device: str | torch.device, blocks: ScaledBlocks) -> ScaledBlocks:
    """Copy blocks to a device, to be differentiated there."""
    return ScaledBlocks(*(x.detach().to(device).requires_grad_() for x in blocks))


def results(blocks: ScaledBlocks, top_k: int | None) -> list[Tensor]:
    """Return everything that the operators on pairs and their backward passes write, on the CPU."""
    Q, S, P, M = blocks.raw.shape
    generator = torch.Generator().manual_seed(1)
    features = [
        torch.randn(*shape, 20, generator=generator, dtype=torch.float64).to(blocks.raw).requires_grad_()
        for shape in ((S, P), (Q, M))
    ]
    weights = embedding_weights(blocks, 2.0)
    cosines = ScaledBlocks(*(x.detach() for x in blocks))
    similarity, assignment = feature_matching(cosines, features[0], features[1], top_k)
    outputs = [*weights, similarity]
    loss = torch.stack([(x * torch.linspace(-1, 2, x.numel()).to(x).view_as(x)).sum() for x in outputs]).sum()
    slopes = torch.autograd.grad(loss, [*blocks, *features])
    return [x.detach().cpu() for x in (*outputs, *slopes, assignment)]


def assert_close(actual: list[Tensor], expected: list[Tensor]) -> None:
    for x, y in zip(actual, expected, strict=True):
        eps = torch.finfo(y.dtype).eps if y.is_floating_point() else 0.0
        scale = 1 + float(y.abs().max()) if y.numel() else 1.0
        torch.testing.assert_close(x, y, atol=500 * eps * scale, rtol=0)


def test_an_operator_and_its_backward_are_on_the_same_devices() -> None:
    for operator, devices in KERNEL_DEVICES.items():
        assert "cpu" in devices, operator
        for device in ("cpu", "cuda"):
            names = [f"lwfm::{operator}", f"lwfm::{operator}_backward"]
            kernels = [has_kernel(name, device.upper()) for name in names]
            assert kernels == [device in devices] * 2, operator


def test_a_build_with_kernels_names_their_architectures() -> None:
    built = any("cuda" in devices for devices in KERNEL_DEVICES.values())
    assert built == bool(re.search(r"sm_\d+", _ops.cuda_kernels))


@pytest.mark.gpu
@pytest.mark.parametrize("top_k", [1, None], ids=["top1", "all"])
@pytest.mark.parametrize(("P", "M"), SHAPES, ids=[f"{P}x{M}" for P, M in SHAPES])
def test_equals_the_cpu(P: int, M: int, top_k: int | None, dtype: torch.dtype) -> None:
    blocks = random_blocks(P, M, dtype)
    assert_close(results(on("cuda", blocks), top_k), results(on("cpu", blocks), top_k))


@pytest.mark.gpu
def test_gradcheck_and_opcheck() -> None:
    blocks = [x.clone().requires_grad_() for x in on("cuda", random_blocks(3, 4, torch.float64))]

    assert torch.autograd.gradcheck(lambda *x: embedding_weights(ScaledBlocks(*x), 2.0), blocks)
    torch.library.opcheck(torch.ops.lwfm.embedding_weights.default, (*blocks, 2.0))


@pytest.mark.gpu
def test_tensors_of_another_device_are_refused() -> None:
    blocks = on("cuda", random_blocks(4, 5, torch.float32))
    with pytest.raises(ValueError, match="row_scale of raw must be on the device"):
        embedding_weights(blocks._replace(row_scale=blocks.row_scale.cpu()), 2.0)


@pytest.mark.gpu
def test_a_stream_of_ones_own() -> None:
    blocks = on("cuda", random_blocks(9, 9, torch.float32))
    expected = results(blocks, 1)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    with torch.cuda.stream(stream):
        actual = results(blocks, 1)
    stream.synchronize()
    assert_close(actual, expected)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_device() -> None:
    blocks = random_blocks(9, 9, torch.float32)
    assert_close(results(on("cuda:1", blocks), 1), results(on("cuda:0", blocks), 1))


@pytest.mark.gpu
@pytest.mark.parametrize("grad", [True, False], ids=["training", "inference"])
def test_the_head_equals_the_cpu(grad: bool) -> None:
    episode = random_episode((2, 3, 1), 6, (32, 48), (3, 3))
    head = LWFMHead(episode.dims, top_k=2).eval()
    with torch.set_grad_enabled(grad):
        expected = head(episode.support, episode.labels, episode.query)
        moved = [[x.cuda() for x in side] for side in (episode.support, episode.query)]
        actual = head.cuda()(moved[0], episode.labels.cuda(), moved[1])
    torch.testing.assert_close(actual.cpu(), expected, atol=1e-4, rtol=1e-4)
