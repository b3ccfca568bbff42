"""On a GPU: encoded maps and episodes equal those of the CPU, with gradients, and wait for no device."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lwfm.nn import ClassLists, LWFMHead
from lwfm.ops.episodes import products_in_kernel
from tests.helpers.feature_inputs import leaf
from tests.ops.test_episodes import FORMS, OPTIONS, SHAPES, Case

pytestmark = pytest.mark.gpu


def on_the_gpu(case: Case) -> Case:
    """Move a case to the GPU, in place."""
    case.head.cuda()
    case.maps = [x.detach().cuda().requires_grad_() for x in case.maps]
    if case.lists is not None:
        case.lists = case.lists[0].cuda(), case.lists[1].cuda()
    return case


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_equals_the_cpu_with_gradients(options: str, shape: str, form: str) -> None:
    expected = Case(shape, OPTIONS[options], form).results()
    actual = on_the_gpu(Case(shape, OPTIONS[options], form)).results()
    torch.testing.assert_close([x.cpu() for x in actual], expected, atol=1e-9, rtol=1e-7)


NOT_FUSED = ("all-matches-merged", "merged-no-embedding")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [each for each in SHAPES if each != "64-positions"])
@pytest.mark.parametrize("options", [each for each in OPTIONS if each not in NOT_FUSED])
def test_products_in_the_kernel(options: str, shape: str, form: str, dtype: torch.dtype) -> None:
    expected = Case(shape, OPTIONS[options], form, dtype).compare()
    case = on_the_gpu(Case(shape, OPTIONS[options], form, dtype))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    for in_kernel in (True, False):
        with products_in_kernel(in_kernel):
            torch.testing.assert_close(
                [x.cpu() for x in case.compare()], expected, atol=tolerance, rtol=tolerance
            )


@torch.no_grad()
def test_products_in_the_kernel_follow_the_setting_of_tf32() -> None:
    case = on_the_gpu(Case("unequal-shots-17-queries", {}, dtype=torch.float32))
    with products_in_kernel(True):
        exact = case.compare()[0]
        before = torch.backends.cuda.matmul.fp32_precision
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        try:
            rounded = case.compare()[0]
        finally:
            torch.backends.cuda.matmul.fp32_precision = before
    assert torch.allclose(exact, rounded, atol=1e-2)
    if torch.cuda.get_device_capability() >= (8, 0):
        assert not torch.allclose(exact, rounded, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("options", "shape"), [({"merge_shots": True}, "tiny"), ({}, "64-positions")])
def test_what_the_kernel_cannot_multiply_is_refused(options: dict[str, bool], shape: str) -> None:
    case = on_the_gpu(Case(shape, options))
    message = "at most 32 positions, matched shot by shot"
    with torch.no_grad(), products_in_kernel(True), pytest.raises(RuntimeError, match=message):
        case.compare()
    with products_in_kernel(True):
        case.results()  # with gradients the products are matrices


@pytest.mark.parametrize("form", FORMS)
def test_gradients_repeat_bit_by_bit(form: str) -> None:
    case = on_the_gpu(Case("unequal-shots-17-queries", {"top_k": 2}, form, torch.float32))
    expected = case.results()
    for _ in range(3):
        assert all(torch.equal(x, y) for x, y in zip(case.results(), expected, strict=True))


def test_training_does_not_wait_for_the_device() -> None:
    head = LWFMHead([6, 5], num_classes=3).cuda().train()
    maps = [leaf(5, C, 3, 3, device=torch.device("cuda"), dtype=torch.float32) for C in (6, 5)]
    classes = ClassLists([1, 0], device="cuda")

    def step() -> Tensor:
        logits, of_classes = head([x[:2] for x in maps], classes, [x[2:] for x in maps])
        loss: Tensor = logits.sum() + of_classes.sum()
        torch.autograd.backward(loss)
        return loss

    step()  # the first call may load libraries
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
