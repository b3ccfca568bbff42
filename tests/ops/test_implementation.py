"""Kernels or tensor expressions: equal results, also compiled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lwfm.nn import LWFMHead
from lwfm.ops import implementation, layer_wise_embedding
from lwfm.ops._implementation import has_kernels
from tests.helpers.episodes import random_episode


def test_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="must be kernels or expressions, got 'cuda'"):  # noqa: SIM117
        with implementation("cuda"):  # type: ignore[arg-type]
            pass


def test_blocks_nest_and_restore() -> None:
    x = torch.rand(3)
    with implementation("expressions"):
        with implementation("kernels"):
            assert has_kernels(x, operator="episodes")
        assert not has_kernels(x, operator="episodes")
        with pytest.raises(RuntimeError, match="inside"), implementation("kernels"):
            raise RuntimeError("inside")
        assert not has_kernels(x, operator="episodes")
    assert has_kernels(x, operator="episodes")


@pytest.mark.parametrize("merge", [False, True], ids=["each-shot", "merged"])
def test_the_head_by_either(merge: bool) -> None:
    episode = random_episode((2, 1, 3), 5, (6, 8), (3, 2), dtype=torch.float64)
    head = LWFMHead(episode.dims, feature_size=[3, 2], num_classes=4, merge_shots=merge).double()

    def results() -> list[Tensor]:
        logits, class_logits = head(episode.support, episode.labels, episode.query)
        loss = logits.square().mean() + class_logits.square().mean()
        return [logits, class_logits, *torch.autograd.grad(loss, list(head.parameters()))]

    expected = results()
    with implementation("expressions"):
        torch.testing.assert_close(results(), expected)


def test_compiled_code_follows() -> None:
    compiled = torch.compile(layer_wise_embedding, fullgraph=True, backend="aot_eager")
    s, q = torch.rand(2, 4, 6), torch.rand(3, 5, 6)
    expected = layer_wise_embedding(s, q)
    torch.testing.assert_close(compiled(s, q), expected)
    s.requires_grad_()
    with implementation("expressions"):
        outputs = compiled(s, q)
        torch.testing.assert_close(outputs, expected)
        slope = torch.autograd.grad(layer_wise_embedding(s, q)[0].square().sum(), s, create_graph=True)[0]
        torch.autograd.backward(slope.square().sum())  # twice, as only expressions can be
    slope = torch.autograd.grad(layer_wise_embedding(s, q)[0].square().sum(), s, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.backward(slope.square().sum())
