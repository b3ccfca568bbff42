"""What the head writes in inference: no tensor grows with queries x images x positions x positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import lwfm.ops._correlation
import lwfm.ops._expressions
from lwfm.nn import LWFMHead
from lwfm.ops import semantic_pixel_matching
from lwfm.ops._correlation import ONE_KERNEL_PRODUCTS, is_one_kernel
from lwfm.ops._expressions import PAIR_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches what operators return, and keeps the size of the largest tensor in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return result


def largest_bytes(call: Callable[[], object]) -> int:
    watch = LargestTensor()
    with torch.inference_mode(), watch:
        call()
    return watch.bytes


S, F, C = 12, 4, 4
P = F * F


@pytest.mark.parametrize("form", ["head", "operator"])
@pytest.mark.parametrize("fused", [True, False], ids=["kernels", "expressions"])
def test_blocks_of_pairs_stay_within_the_budget(
    form: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU with more products than the one kernel takes: R is written, in chunks of queries."""
    budget = 200_000
    monkeypatch.setattr(lwfm.ops._expressions, "PAIR_BYTES", budget)
    if not fused:
        monkeypatch.setattr(lwfm.ops._expressions, "is_fused", lambda _: False)
    head = LWFMHead([C], feature_size=F).eval()
    labels = torch.arange(S) % 3

    def call(queries: int) -> object:
        if form == "head":
            return head(torch.rand(S, C, F, F), labels, torch.rand(queries, C, F, F))
        return semantic_pixel_matching(torch.rand(S, P, C), torch.rand(queries, P, C))

    few, many = (largest_bytes(lambda n=queries: call(n)) for queries in (20, 600))  # type: ignore[misc]
    blocks = 4 * 600 * S * P * P  # bytes of all blocks at once: 7.4 MB
    assert few <= budget
    assert many <= max(budget, 8 * 600 * S * P)  # features [Q, P, C] and assignments [Q, S, P] do grow
    assert many < blocks / 6


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"queries": ONE_KERNEL_PRODUCTS // (4 * 16 * 16) + 1}, False),
        ({"queries": ONE_KERNEL_PRODUCTS // (4 * 16 * 16)}, True),
        ({"positions": 33, "queries": 2}, False),
        ({"device": "cpu"}, False),
        ({"recorded": True}, False),
        ({"kernels": False}, False),
    ],
    ids=["small", "more-products", "as-many-products", "33-positions", "cpu", "gradients", "no-kernels"],
)
def test_when_one_kernel_does_it_all(
    change: dict[str, Any], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = {"queries": 5, "positions": 16, "device": "cuda", "recorded": False, "kernels": True, **change}
    kinds = {"cpu", "cuda"} if case["kernels"] else {"cpu"}
    monkeypatch.setattr(lwfm.ops._correlation, "PAIR_KERNELS", frozenset(kinds))
    with FakeTensorMode():
        s = torch.empty(4, case["positions"], 8, device=case["device"], requires_grad=case["recorded"])
        q = torch.empty(case["queries"], case["positions"], 8, device=case["device"])
        assert is_one_kernel(s, q) == expected
        with torch.no_grad():
            assert is_one_kernel(s, q) == (expected or case["recorded"])


def test_what_the_one_kernel_leaves_to_others_is_less_than_the_budget() -> None:
    assert (
        ONE_KERNEL_PRODUCTS * 8 < PAIR_BYTES
    )  # the blocks of the largest case, were they written in float64
