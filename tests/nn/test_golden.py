"""The oracle and the head reproduce the published code's outputs and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import lwfm.nn
import lwfm.reference
from tests.helpers.episodes import GOLDEN_NAMES, golden_case

HEADS = [pytest.param(lwfm.reference.LWFMHead, id="reference"), pytest.param(lwfm.nn.LWFMHead, id="nn")]


def relative_error(actual: Tensor | None, expected: Tensor) -> float:
    assert actual is not None, "no gradient arrived"
    return float((actual - expected).norm() / expected.norm())


def test_all_golden_files_are_here() -> None:
    assert GOLDEN_NAMES == ["3way2shot_no_embedding", "5way1shot", "5way5shot", "matching_off"]


@pytest.mark.parametrize("name", GOLDEN_NAMES)
@pytest.mark.parametrize("head_class", HEADS)
def test_outputs_and_gradients(name: str, head_class: type[nn.Module]) -> None:
    case = golden_case(name)
    head = case.head(head_class)
    support = case.tensors["support"].clone().requires_grad_()
    query = case.tensors["query"].clone().requires_grad_()

    logits, class_logits = head(support, case.labels, query)
    torch.testing.assert_close(logits, case.tensors["logits"], atol=1e-5, rtol=0)
    torch.testing.assert_close(class_logits, case.tensors["aux_logits"], atol=1e-5, rtol=0)

    torch.autograd.backward(
        [logits, class_logits], [case.tensors["grad_logits"], case.tensors["grad_aux_logits"]]
    )
    assert relative_error(support.grad, case.tensors["grad_support"]) < 1e-4
    assert relative_error(query.grad, case.tensors["grad_query"]) < 1e-4
    parameters = dict(head.named_parameters())
    for ours, theirs in {"classifier.weight": "fc_weight", **case.embedding_names()}.items():
        if f"grad_{theirs}" in case.tensors:
            assert relative_error(parameters[ours].grad, case.tensors[f"grad_{theirs}"]) < 1e-4, ours


@pytest.mark.parametrize("name", GOLDEN_NAMES)
def test_logits_do_not_depend_on_the_order_of_support_images(name: str) -> None:
    case = golden_case(name)
    head = case.head(lwfm.nn.LWFMHead).eval()
    order = torch.randperm(len(case.labels), generator=torch.Generator().manual_seed(0))
    logits = head(case.tensors["support"][order], case.labels[order], case.tensors["query"])
    torch.testing.assert_close(logits, case.tensors["logits"], atol=1e-5, rtol=0)
