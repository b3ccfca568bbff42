"""The regression of classes on statistics of images: equal to the oracle, and off by default."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from lwfm._common.regression_constants import RIDGE
from lwfm.nn import ClassLists, LWFMHead, regression
from lwfm.nn.regression import image_statistics, regression_scores
from tests.helpers.episodes import random_episode
from tests.helpers.heads import assert_equal_with_gradients

if TYPE_CHECKING:
    from lwfm.nn import EncodedMaps


@pytest.mark.parametrize("centre", ["channels", "task", "episode"])
@pytest.mark.parametrize(
    ("dims", "shots"), [((6, 4), (2, 1, 3)), ((3, 3), (5, 5, 4))], ids=["of-images", "of-statistics"]
)
def test_equals_the_oracle_with_gradients(centre: str, dims: tuple[int, int], shots: tuple[int, ...]) -> None:
    episode = random_episode(shots, 3, dims, (3, 2), dtype=torch.float64)
    assert_equal_with_gradients(episode, centre=centre, regression_weight=3.0)


def encoded(images: int, dims: tuple[int, ...] = (6, 4), size: int = 2, **options: Any) -> EncodedMaps:
    torch.manual_seed(0)
    maps = torch.rand(images, sum(dims), size, size, **options)
    return LWFMHead(dims, feature_size=size).encode(maps)


def test_both_sizes_of_the_equations_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    images, classes = encoded(30, (3, 2), dtype=torch.float64), ClassLists([0, 1, 2, 2, 1] * 4)
    kinds = image_statistics(images)
    of_statistics = regression_scores(images, classes, None, "task")  # 10 statistics, 20 images
    padded = [torch.cat([x, x.new_zeros(len(x), 9)], 1) for x in kinds]  # zeros add nothing to learn
    monkeypatch.setattr(regression, "image_statistics", lambda _: padded)
    torch.testing.assert_close(regression_scores(images, classes, None, "task"), of_statistics)


def test_predictions_sum_to_zero_and_name_the_shots() -> None:
    both = encoded(6)[[*range(6), *range(6)]]
    scores = regression_scores(both, ClassLists([0, 1, 2] * 2), None, "task")
    assert scores.argmax(1).tolist() == [0, 1, 2] * 2
    torch.testing.assert_close(scores.sum(1), torch.zeros(6), atol=1e-5, rtol=0)


@pytest.mark.parametrize("centre", ["task", "episode"])
@pytest.mark.parametrize("chunk", [1, 1 << 28], ids=["one-at-a-time", "all-at-once"])
def test_episodes_are_regressed_each_by_itself(
    centre: Any, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "_CHUNK_BYTES", chunk)
    images, classes = encoded(30), ClassLists([0, 1, 2, 2])
    lists = torch.randint(30, (7, 12), generator=torch.Generator().manual_seed(1))
    supports, queries = lists[:, :4], lists[:, 4:]
    together = regression_scores(images, classes, (supports, queries), centre)
    for support, query, scores in zip(supports, queries, together, strict=True):
        alone = regression_scores(images[torch.cat([support, query])], classes, None, centre)
        torch.testing.assert_close(scores, alone)


@pytest.mark.parametrize("centre", ["channels", "task", "episode"])
@pytest.mark.parametrize("views", [1, 2, 7])
def test_views_like_the_image_change_nothing(centre: Any, views: int) -> None:
    images, classes = encoded(9, dtype=torch.float64), ClassLists([0, 1, 1, 2])
    copies = [x[:, None].expand(-1, views, -1) for x in image_statistics(images)]
    expected = regression_scores(images, classes, None, centre)
    found = regression_scores(images, classes, None, centre, views=[x[:4] for x in copies])
    torch.testing.assert_close(found, expected)
    lists = torch.arange(4)[None], torch.arange(4, 9)[None]
    torch.testing.assert_close(regression_scores(images, classes, lists, centre, views=copies)[0], expected)


def test_views_are_weighted_support_images() -> None:
    images, classes = encoded(40, dtype=torch.float64), ClassLists([0, 1])
    of_views = image_statistics(images[2:16])
    views = [x.view(2, 7, -1) for x in of_views]
    found = regression_scores(images[[0, 1, *range(20, 30)]], classes, None, "task", views=views)
    # A quarter of an image: three images of the twelve that make up the weight of one.
    repeated = [image for label in (0, 1) for image in [label, 2 + 7 * label] * 3]
    repeated += [2 + 7 * label + view for label in (0, 1) for view in range(1, 7)]
    labels = [0] * 6 + [1] * 6 + [0] * 6 + [1] * 6
    as_shots = images[[*repeated, *range(20, 30)]]
    expected = regression_scores(as_shots, ClassLists(labels), None, "task")
    assert not torch.allclose(found, expected)  # twelve shots are twelve times as much evidence
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regression, "RIDGE", 12 * RIDGE)
        expected = regression_scores(as_shots, ClassLists(labels), None, "task")
    torch.testing.assert_close(found, expected)


def test_equal_positions_have_finite_gradients() -> None:
    maps = torch.ones(6, 5, 2, 2, requires_grad=True)
    head = LWFMHead([5], feature_size=2, embedding=False, regression_weight=1.0)
    logits = head(maps[:4], torch.tensor([0, 1, 0, 1]), maps[4:])
    assert isinstance(logits, torch.Tensor)
    (gradient,) = torch.autograd.grad(logits.sum(), maps)
    assert gradient.isfinite().all()


def test_a_single_class_has_nothing_to_regress() -> None:
    scores = regression_scores(encoded(5), ClassLists([0, 0]), None, "task")
    assert scores.shape == (3, 1)
    assert not scores.any()


def test_the_mean_of_given_images_is_subtracted() -> None:
    images, classes = encoded(8), ClassLists([0, 1, 0, 1])
    given = regression_scores(images, classes, None, "task", task=images[:4])
    torch.testing.assert_close(given, regression_scores(images, classes, None, "task"))
    other = regression_scores(images, classes, None, "task", task=images[4:])
    assert not torch.equal(given, other)


def test_it_adds_to_the_logits_and_is_off_by_default() -> None:
    maps, labels = torch.rand(10, 10, 3, 3), torch.arange(4) % 2
    plain, head = (LWFMHead([6, 4], embedding=False, regression_weight=w).eval() for w in (0.0, 2.0))
    terms = head.similarities(maps[:4], labels, maps[4:])
    assert plain.similarities(maps[:4], labels, maps[4:]).regression is None
    assert terms.regression is not None
    expected = plain(maps[:4], labels, maps[4:]) + terms.regression / head.temperature
    torch.testing.assert_close(head(maps[:4], labels, maps[4:]), expected)


@pytest.mark.parametrize("weight", [-1.0, float("inf"), float("nan")])
def test_weights_out_of_range_are_refused(weight: float) -> None:
    with pytest.raises(ValueError, match="regression_weight must be finite and at least 0"):
        LWFMHead([4], regression_weight=weight)
