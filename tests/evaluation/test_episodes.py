"""Batches of episodes: the answers of single episodes, each image encoded once, memory within its budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import lwfm.reference
from lwfm.data import EpisodeSampler, episode_labels
from lwfm.evaluation import episodes as runner
from lwfm.evaluation.cached_maps import CachedMaps
from lwfm.evaluation.episodes import accuracy_of, run_episodes
from lwfm.evaluation.methods import HeadOnMaps, NearestClassMean
from lwfm.nn import ClassLists, LWFMHead, nearest_class_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

DIMS, IMAGES, CLASSES, WAY, QUERIES, EPISODES = (6, 10), 40, 5, 4, 2, 7
OPTIONS: dict[str, Any] = {"feature_size": 2, "top_k": 2}


def _head() -> LWFMHead:
    torch.manual_seed(2)
    return LWFMHead(DIMS, **OPTIONS).eval()


def _maps(device: str = "cpu", dtype: torch.dtype = torch.float32) -> CachedMaps:
    """Encode images of five classes that overlap: accuracies are neither chance nor trivial."""
    random = torch.Generator().manual_seed(1)
    means = torch.rand(CLASSES, sum(DIMS), 1, 1, generator=random)
    pixels = torch.rand(IMAGES, sum(DIMS), 2, 2, generator=random) + 0.5 * means.repeat(
        IMAGES // CLASSES, 1, 1, 1
    )
    layers = torch.split(pixels.to(device, dtype), list(DIMS), dim=1)
    return CachedMaps.build(tuple(layers), range(IMAGES), IMAGES)


def _draw(shot: int, way: int = WAY) -> list[list[int]]:
    labels = [image % CLASSES for image in range(IMAGES)]
    return list(EpisodeSampler(labels, way=way, shot=shot, queries=QUERIES, episodes=EPISODES, seed=shot))


DRAWN = {(WAY, 1): _draw(1), (WAY, 3): _draw(3), (2, 3): _draw(3, way=2)}


def _single(episode: list[int], way: int, shot: int) -> tuple[Sequence[Tensor], Tensor, Sequence[Tensor]]:
    maps, supports = _maps(), way * shot
    return maps.select(episode[:supports]), episode_labels(way, shot), maps.select(episode[supports:])


@torch.no_grad()
def _oracle(episode: list[int], way: int, shot: int) -> dict[str, Tensor]:
    """Compute the scores of each method on one episode, pair by pair."""
    scores = {"nearest_class_mean": nearest_class_mean(*_single(episode, way, shot))}
    for name, changed in (
        ("lwfm", {}),
        ("base", {"matching_weight": 0.0}),
        ("merged", {"merge_shots": True}),
    ):
        head = lwfm.reference.LWFMHead(DIMS, **{**OPTIONS, **changed})
        head.load_state_dict(_head().state_dict())
        support, labels, query = _single(episode, way, shot)
        logits = head.eval()(support, labels, query)
        scores[name] = logits * head.temperature
    scores["matching"] = scores["lwfm"] - scores["base"]
    return scores


@pytest.fixture(scope="module")
def expected() -> dict[tuple[int, int], dict[str, Tensor]]:
    """Scores [E, Q, way] of each method, episode by episode."""
    found = {}
    for (way, shot), episodes in DRAWN.items():
        several = [_oracle(episode, way, shot) for episode in episodes]
        found[way, shot] = {name: torch.stack([each[name] for each in several]) for name in several[0]}
    return found


def _merged() -> HeadOnMaps:
    head = LWFMHead(DIMS, **OPTIONS, merge_shots=True).eval()
    head.load_state_dict(_head().state_dict())
    return HeadOnMaps(head, (0, 1), "merged")


def _check(answers: Mapping[str, Tensor], scores: Mapping[str, Tensor]) -> None:
    """Check that each answer is a class of the highest score, up to rounding."""
    assert list(answers) == ["lwfm", "base", "matching", "nearest_class_mean", "merged"]
    for name, given in answers.items():
        chosen = scores[name].gather(-1, given.unsqueeze(-1)).squeeze(-1)
        torch.testing.assert_close(chosen, scores[name].amax(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "encoded_bytes", [2**30, 20_000, 0], ids=["all-kept", "some-episodes", "one-episode"]
)
@pytest.mark.parametrize("batch_images", [2**14, 50, 1], ids=["one-batch", "batches", "single"])
def test_batches_answer_like_single_episodes(
    expected: dict[tuple[int, int], dict[str, Tensor]],
    encoded_bytes: int,
    batch_images: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runner, "ENCODED_BYTES", encoded_bytes)
    monkeypatch.setattr(runner, "BATCH_IMAGES", batch_images)
    monkeypatch.setattr(runner, "_CHUNK_IMAGES", 16)
    answers = run_episodes(_head(), _maps(), DRAWN, others=[_merged()])
    assert list(answers) == list(DRAWN)
    for shape, by_method in answers.items():
        _check(by_method, expected[shape])
        assert {each.shape for each in by_method.values()} == {(EPISODES, shape[0] * QUERIES)}
    assert 1 / WAY < accuracy_of(answers[WAY, 3]["lwfm"], WAY) < 1


@pytest.mark.parametrize("shape", DRAWN, ids=str)
def test_scores_of_a_batch_are_those_of_single_episodes(
    expected: dict[tuple[int, int], dict[str, Tensor]], shape: tuple[int, int]
) -> None:
    maps = _maps().select(range(IMAGES))
    way, shot = shape
    support, query = torch.tensor(DRAWN[shape]).tensor_split([way * shot], dim=1)
    classes = ClassLists(episode_labels(way, shot))
    for method in (HeadOnMaps.whole(_head()), _merged(), NearestClassMean((0, 1))):
        with torch.no_grad():
            scores = method.scores(method.encode(maps), support, query, classes)
        for name, of_batch in scores.items():
            torch.testing.assert_close(of_batch, expected[shape][name], atol=2e-6, rtol=1e-5)


class _Counted(HeadOnMaps):
    """A head that counts the images it encodes and its calls."""

    encoded: list[int]
    compared: list[int]

    def encode(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        self.encoded.append(len(maps[0]))
        return super().encode(maps)

    def scores(
        self, images: Mapping[str, Tensor], support: Tensor, query: Tensor, classes: ClassLists
    ) -> dict[str, Tensor]:
        self.compared.append(len(support))
        return super().scores(images, support, query, classes)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> _Counted:
    for name in ("encoded", "compared"):
        monkeypatch.setattr(_Counted, name, [], raising=False)
    return _Counted(_head(), (0, 1))


def test_each_image_is_encoded_once_for_all_shapes(counted: _Counted) -> None:
    run_episodes(counted, _maps(), DRAWN)
    images = {image for each in DRAWN.values() for episode in each for image in episode}
    assert sum(counted.encoded) == 1 + len(images)  # the first tells how much memory an image takes
    assert counted.compared == [EPISODES] * len(DRAWN)  # no loop over episodes


def test_memory_bounds_the_images_that_are_encoded_together(
    counted: _Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_image = sum(x.nbytes for x in counted.encode(_maps().select([0])).values())
    of_two_episodes = 2 * (WAY * 1 + WAY * QUERIES)
    monkeypatch.setattr(runner, "ENCODED_BYTES", of_image * of_two_episodes)
    run_episodes(counted, _maps(), {(WAY, 1): DRAWN[WAY, 1]})
    assert counted.compared == [2, 2, 2, 1]
    assert max(counted.encoded) <= of_two_episodes


def test_only_the_maps_of_the_episodes_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: set[int] = set()
    select = CachedMaps.select

    def record(self: CachedMaps, indices: Sequence[int] | Tensor) -> tuple[Tensor, ...]:
        read.update(torch.as_tensor(indices).tolist())
        return select(self, indices)

    monkeypatch.setattr(CachedMaps, "select", record)
    run_episodes(_head(), _maps(), {(WAY, 1): DRAWN[WAY, 1][:1]})
    assert read == set(DRAWN[WAY, 1][0])


def test_maps_in_half_precision_are_encoded_in_float32() -> None:
    half = _maps(dtype=torch.float16)
    single = CachedMaps(tuple(layer.float() for layer in half.layers), half.rows)
    found, expected = (run_episodes(_head(), maps, DRAWN) for maps in (half, single))
    for shape in DRAWN:
        torch.testing.assert_close(found[shape], expected[shape])


def test_images_without_maps_are_named() -> None:
    maps = _maps()
    maps = CachedMaps.build(tuple(layer[:3] for layer in maps.layers), [4, 5, 6], IMAGES)
    with pytest.raises(IndexError, match=r"of the set were not encoded"):
        run_episodes(_head(), maps, {(2, 1): [[4, 5, 6, 7]]})


@pytest.mark.gpu
def test_batches_do_not_wait_for_the_device(expected: dict[tuple[int, int], dict[str, Tensor]]) -> None:
    maps = _maps("cuda")
    others = [HeadOnMaps(_merged().head.cuda(), (0, 1), "merged")]
    head = _head().cuda()
    run_episodes(head, maps, DRAWN, others=others)
    images = runner._EncodedImages(HeadOnMaps.whole(head), maps, torch.arange(IMAGES))
    classes = ClassLists(episode_labels(WAY, 3), device="cuda")
    with torch.inference_mode():
        for batch in images.batches(torch.tensor(DRAWN[WAY, 3]), WAY * 3):
            torch.cuda.set_sync_debug_mode("error")
            try:
                images.method.scores(batch.encoded, batch.support, batch.query, classes)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    for shape, answers in run_episodes(head, maps, DRAWN, others=others).items():
        _check(answers, expected[shape])
