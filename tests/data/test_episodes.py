"""Episode sampling: the images of an episode, and what they depend on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lwfm.data.episodes import EpisodeSampler, SeededSampler, ShuffledSampler, episode_labels
from lwfm.errors import UserError

SHAPES = st.tuples(st.integers(2, 5), st.integers(1, 4), st.integers(1, 4))
SEEDS = st.integers(0, 2**70)


def draw_labels(data: st.DataObject, way: int, least: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Shuffled labels of classes of at least `least` images; some class numbers are not in use."""
    numbers = data.draw(st.sets(st.integers(0, 20), min_size=way, max_size=8))
    counts = {number: data.draw(st.integers(least, least + 4)) for number in numbers}
    labels = np.repeat(list(counts), list(counts.values())).astype(np.int64)
    np.random.default_rng(0).shuffle(labels)
    return labels


@settings(max_examples=60, deadline=None)
@given(st.data(), SHAPES, SEEDS)
def test_an_episode_is_shot_major_and_repeats_no_image(
    data: st.DataObject, shape: tuple[int, int, int], seed: int
) -> None:
    way, shot, queries = shape
    labels = draw_labels(data, way, shot + queries)
    sampler = EpisodeSampler(labels, way=way, shot=shot, queries=queries, episodes=3, seed=seed)
    episodes = list(sampler)
    assert len(episodes) == len(sampler) == 3
    for episode in episodes:
        assert len(episode) == len(set(episode)) == way * (shot + queries)
        rows = labels[episode].reshape(shot + queries, way)
        assert (rows == rows[0]).all()
        assert len(set(rows[0])) == way


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(0, 1000), st.permutations(range(5)))
def test_an_episode_depends_on_seed_epoch_and_index_alone(seed: int, epoch: int, order: list[int]) -> None:
    labels = np.arange(120) % 12
    sampler = EpisodeSampler(labels, shot=1, queries=3, episodes=5, seed=seed)
    sampler.set_epoch(epoch)
    in_turn = list(sampler)
    other = EpisodeSampler(labels, shot=1, queries=3, episodes=100, seed=seed)
    assert {index: other.episode(index, epoch=epoch) for index in order} == dict(enumerate(in_turn))
    sampler.set_epoch(epoch + 1)
    assert list(sampler) != in_turn


def test_every_class_and_image_comes_up_equally_often() -> None:
    labels = np.arange(60) % 10
    sampler = EpisodeSampler(labels, way=3, shot=1, queries=1, episodes=4000, seed=5)
    counts = np.bincount(np.concatenate(list(sampler)), minlength=60)  # 400 each; deviation about 19
    assert abs(counts - 400).max() < 100


def test_the_first_episode_does_not_change_between_releases() -> None:
    sampler = EpisodeSampler(np.arange(40) % 8, way=3, shot=1, queries=1, episodes=1, seed=7)
    assert sampler.episode(0) == [14, 2, 13, 22, 10, 5]


def test_set_epoch_leaves_an_iteration_under_way_alone() -> None:
    sampler = EpisodeSampler(np.arange(40) % 8, shot=1, queries=2, episodes=3, seed=0)
    expected = list(sampler)
    iterator = iter(sampler)
    first = next(iterator)
    sampler.set_epoch(4)
    assert [first, *iterator] == expected


def test_state_survives_json_and_continues() -> None:
    labels = np.arange(40) % 8
    sampler = EpisodeSampler(labels, shot=1, queries=2, episodes=3, seed=11)
    sampler.set_epoch(6)
    resumed = EpisodeSampler(labels, shot=1, queries=2, episodes=3, seed=0)
    resumed.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert list(resumed) == list(sampler)
    with pytest.raises(UserError, match="resume with queries=2"):
        EpisodeSampler(labels, shot=1, queries=3, episodes=3, seed=0).load_state_dict(sampler.state_dict())


def test_labels_follow_the_order() -> None:
    assert episode_labels(5, 2).tolist() == [0, 1, 2, 3, 4] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"way": 9}, "9-way episodes need at least 9 classes, but there are only 4", id="way"),
        pytest.param({"way": 1}, "way must be at least 2, not 1", id="one-way"),
        pytest.param({"shot": 0}, "shot must be at least 1", id="shot"),
        pytest.param({"queries": 0}, "queries must be at least 1", id="queries"),
        pytest.param({"episodes": 0}, "episodes must be at least 1", id="episodes"),
        pytest.param({"seed": -1}, "seed must be at least 0", id="seed"),
        pytest.param(
            {"queries": 6},
            "class 'few' has 3 images, but an episode with shot=1 and queries=6 takes 7 of each class "
            r"\(3 of 4 classes have too few\): lower shot or queries until their sum is at most 3",
            id="images",
        ),
    ],
)
def test_episodes_that_cannot_be_drawn(options: dict[str, int], message: str) -> None:
    labels = [0] * 6 + [1] * 3 + [2] * 6 + [3] * 7
    with pytest.raises(UserError, match=message):
        EpisodeSampler(
            labels,
            **{"way": 4, "shot": 1, "queries": 2, "episodes": 1, "seed": 0, **options},
            classes=["zero", "few", "two", "three"],
        )


@pytest.mark.parametrize("labels", [[0.5, 1.5], [[0, 1], [1, 0]]])
def test_labels_must_be_a_row_of_integers(labels: list[int]) -> None:
    with pytest.raises(UserError, match="one row of integers"):
        EpisodeSampler(labels, way=2, shot=1, queries=1, episodes=1, seed=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 8), SEEDS)
def test_shuffled_batches_are_full_and_even(count: int, size: int, batches: int, seed: int) -> None:
    sampler = ShuffledSampler(count, batch_size=size, batches=batches, seed=seed)
    drawn = list(sampler)
    assert [len(batch) for batch in drawn] == [size] * batches == [size] * len(sampler)
    times = np.bincount(np.concatenate(drawn), minlength=count)
    assert len(times) == count
    assert times.max() - times.min() <= 1
    assert list(sampler) == drawn


def test_shuffled_order_changes_with_the_epoch() -> None:
    sampler = ShuffledSampler(100, batch_size=10, batches=3, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_every_image_of_an_epoch_has_a_seed_of_its_own() -> None:
    sampler = ShuffledSampler(10, batch_size=20, batches=5, seed=0)
    seeded = SeededSampler(sampler, seed=3)
    batches = list(seeded)
    assert [[index for index, _ in batch] for batch in batches] == list(sampler)
    seeds = {seed for batch in batches for _, seed in batch}
    assert len(seeds) == 100
    sampler.set_epoch(1)
    assert not seeds & {seed for batch in seeded for _, seed in batch}


@pytest.mark.parametrize("processes", [1, 2])
def test_joined_batches_keep_their_seeds_and_are_shared_whole(processes: int) -> None:
    """Seven batches, joined by threes: two, and the seventh is left out."""
    sampler = ShuffledSampler(30, batch_size=2, batches=7, seed=0)
    single = list(SeededSampler(sampler, seed=3))
    shards = [
        SeededSampler(sampler, seed=3, together=3, process=process, processes=processes)
        for process in range(processes)
    ]
    assert [len(shard) for shard in shards] == [2 // processes] * processes
    joined = [batch for shard in shards for batch in shard]
    assert joined == [[item for batch in single[k : k + 3] for item in batch] for k in (0, 3)]
