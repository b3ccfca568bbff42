"""Dispatched operators of the head: few, however many layers, classes and queries there are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lwfm.nn import ClassLists, LWFMHead
from tests.helpers.episodes import random_episode

INFERENCE, TRAINING_STEP = 10, 40


class Dispatched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lists the operators that are dispatched, in order."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture(params=[((1, 1), 2, (8,), (1,)), ((5,) * 5, 75, (16, 24), (3, 3))], ids=["tiny", "5w5s"])
def episode(request: pytest.FixtureRequest) -> Any:
    return random_episode(*request.param)


@pytest.fixture
def head(episode: Any) -> LWFMHead:
    return LWFMHead(episode.dims, feature_size=episode.sizes[0], num_classes=4)


@pytest.mark.parametrize("labels", ["lists", "tensor"])
def test_inference(head: LWFMHead, episode: Any, labels: str) -> None:
    classes = ClassLists(episode.labels) if labels == "lists" else episode.labels
    support, query = torch.cat(episode.support, 1), torch.cat(episode.query, 1)
    with torch.no_grad(), Dispatched() as watch:
        head.eval()(support, classes, query)
    assert len(watch.names) <= INFERENCE, watch.names


def test_comparison_of_encoded_images(head: LWFMHead, episode: Any) -> None:
    with torch.no_grad():
        images = head.eval().encode(episode.query)
        lists = torch.zeros(100, len(episode.labels), dtype=torch.int64)
        with Dispatched() as watch:
            head.compare_episodes(images, lists, lists, ClassLists(episode.labels))
    assert len(watch.names) <= INFERENCE, watch.names


def test_training_step(head: LWFMHead, episode: Any) -> None:
    classes = ClassLists(episode.labels)
    support, query = (torch.cat(maps, 1).requires_grad_() for maps in (episode.support, episode.query))
    with Dispatched() as watch:
        logits, class_logits = head(support, classes, query)
        torch.autograd.backward(logits.sum() + class_logits.sum())
    assert len(watch.names) <= TRAINING_STEP, watch.names
    assert sum("lwfm" in name for name in watch.names) == 2
