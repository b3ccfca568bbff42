"""Centering by the task: equal to the oracle, episode by episode, and applied by all who compare."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lwfm._common.devices import torch_threads
from lwfm.nn import LWFMHead, task_centering
from lwfm.nn.explain import explain_pair
from tests.helpers.episodes import random_episode
from tests.helpers.heads import assert_equal_with_gradients, both_heads

CENTRES = ["task", "episode"]


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("embedding", [True, False], ids=["embedding", "no-embedding"])
@pytest.mark.parametrize("merge_shots", [False, True], ids=["each-shot", "merged"])
def test_equals_the_oracle_with_gradients(centre: str, embedding: bool, merge_shots: bool) -> None:
    episode = random_episode((2, 1, 3), 3, (6, 4), (3, 2), dtype=torch.float64)
    assert_equal_with_gradients(episode, centre=centre, embedding=embedding, merge_shots=merge_shots, top_k=2)


@pytest.mark.parametrize("centre", CENTRES)
@pytest.mark.parametrize("options", [{"matching_weight": 0.0}, {"attention_temperature": None}], ids=str)
def test_equals_the_oracle_at_one_resolution(centre: str, options: dict[str, Any]) -> None:
    episode = random_episode((2, 2), 2, (6, 4), (3, 3), dtype=torch.float64)
    assert_equal_with_gradients(episode, feature_size=3, centre=centre, **options)


def test_of_one_position_and_no_matching_is_the_centered_class_mean() -> None:
    support, query = torch.rand(6, 8, 1, 1), torch.rand(4, 8, 1, 1)
    labels = torch.arange(6) % 2
    head = LWFMHead([8], feature_size=1, matching_weight=0.0, temperature=1.0, centre="task").eval()
    s, q = ((x - x.mean(1, keepdim=True)).flatten(1) for x in (support, query))
    means = torch.stack([(s - s.mean(0))[labels == label].mean(0) for label in range(2)])
    expected = torch.nn.functional.cosine_similarity((q - s.mean(0))[:, None], means[None], dim=-1)
    torch.testing.assert_close(head(support, labels, query), expected)


@pytest.fixture(params=CENTRES)
def centered(request: pytest.FixtureRequest) -> tuple[LWFMHead, Tensor]:
    torch.manual_seed(0)
    return LWFMHead([6, 4], feature_size=2, centre=request.param).eval(), torch.rand(30, 10, 2, 2)


@pytest.mark.parametrize("copied", [1, 1 << 25], ids=["one-episode-at-a-time", "all-at-once"])
@pytest.mark.parametrize("threads", [1, 2])
def test_episodes_are_tasks_of_their_own(
    centered: tuple[LWFMHead, Tensor], copied: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, maps = centered
    monkeypatch.setitem(task_centering._COPIED_BYTES, "cpu", copied)
    lists = torch.randint(30, (7, 12), generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2, 2])
    with torch_threads(threads), torch.no_grad():
        several = head.compare_episodes(head.encode(maps), lists[:, :4], lists[:, 4:], labels, features=True)
        for number, row in enumerate(lists):
            one = head.similarities(maps[row[:4]], labels, maps[row[4:]], features=True)
            assert torch.equal(several.base[number], one.base)
            assert torch.equal(several.matching[number], one.matching)
            of_several = several.query_features
            assert of_several is not None
            torch.testing.assert_close(of_several[number], one.query_features)


def test_no_episodes_have_no_similarities(centered: tuple[LWFMHead, Tensor]) -> None:
    head, maps = centered
    none = torch.zeros(0, 4, dtype=torch.int64)
    assert head.compare_episodes(head.encode(maps), none, none, [0, 1, 0, 1]).base.shape == (0, 4, 2)


def test_classifier_sees_positions_that_are_centered_over_channels_alone() -> None:
    episode = random_episode((1, 1), 3, (6,), (2,))
    options: dict[str, Any] = {"feature_size": 2, "attention_temperature": None}
    features = [
        LWFMHead([6], **options, centre=centre)
        .similarities(episode.support, episode.labels, episode.query, features=True)
        .query_features
        for centre in ("channels", "task")
    ]
    torch.testing.assert_close(*features)


def test_a_given_task_replaces_the_support_images(centered: tuple[LWFMHead, Tensor]) -> None:
    head, maps = centered
    images = head.encode(maps)
    task = images[:4]
    whole = head.compare(task, [0, 1, 2, 3], images[4:6], task=task)
    part = head.compare(task[:2], [0, 1], images[4:6], task=task)
    torch.testing.assert_close(part.base, whole.base[:, :2])
    assert not torch.allclose(head.compare(task[:2], [0, 1], images[4:6]).base, whole.base[:, :2])


@pytest.mark.parametrize("embedding", [True, False], ids=["embedding", "no-embedding"])
def test_explanations_are_of_the_task(embedding: bool) -> None:
    episode = random_episode((1, 1), 1, (6,), (2,), dtype=torch.float64)
    head, _ = both_heads(episode, embedding=embedding, centre="task", top_k=None, matching_weight=1.0)
    support, query = episode.support, episode.query
    pair = [x[:1] for x in support], query
    (match,) = explain_pair(head, *pair, task=head.encode(support))
    similarity = head.similarities(support, episode.labels, query).matching[0, 0]
    torch.testing.assert_close(match.similarities.mean(), similarity.detach())
    assert not torch.allclose(explain_pair(head, *pair)[0].support_weights, match.support_weights)


def test_refuses_another_centre() -> None:
    with pytest.raises(ValueError, match="centre must be channels, task or episode, got 'none'"):
        LWFMHead([4], centre="none")  # type: ignore[arg-type]
