"""The head beside the oracle's, with the same parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import lwfm.nn
import lwfm.reference

if TYPE_CHECKING:
    from tests.helpers.episodes import Episode


def both_heads(episode: Episode, **arguments: Any) -> tuple[lwfm.nn.LWFMHead, lwfm.reference.LWFMHead]:
    """Build our head and the oracle's with the same random parameters, in float64."""
    torch.manual_seed(0)
    arguments = {"feature_size": list(episode.sizes), **arguments}
    ours = lwfm.nn.LWFMHead(episode.dims, **arguments).double()
    oracle = lwfm.reference.LWFMHead(episode.dims, **arguments).double()
    oracle.load_state_dict(ours.state_dict())
    return ours, oracle


def assert_equal_with_gradients(episode: Episode, **arguments: Any) -> None:
    """Compare logits, class logits and all gradients with the oracle's."""
    ours, oracle = both_heads(episode, num_classes=7, **arguments)
    results = []
    for head in (ours, oracle):
        inputs = [x.clone().requires_grad_() for x in (*episode.support, *episode.query)]
        layers = len(episode.dims)
        logits, class_logits = head(inputs[:layers], episode.labels, inputs[layers:])
        weight = torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view_as(logits)
        ((logits * weight).sum() + class_logits.square().sum()).backward()
        gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in (*inputs, *head.parameters())]
        results.append([logits, class_logits, *gradients])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-7)
