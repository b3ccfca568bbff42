"""Heads and baselines that learn from further views of the support images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from lwfm import FewShotClassifier
from lwfm.data import open_images
from lwfm.data.center_crop import VIEWS
from lwfm.errors import UserError
from lwfm.evaluation import evaluate
from lwfm.evaluation.cached_maps import compute_maps
from lwfm.evaluation.heads import HeadOptions, make_heads
from lwfm.model import LWFM, ModelConfig
from lwfm.nn import ClassLists

if TYPE_CHECKING:
    from pathlib import Path

    from lwfm.data import ImageSet
    from lwfm.evaluation.cached_maps import CachedMaps

MODEL = ModelConfig(backbone="conv4", image_size=32, feature_size=2, embedding=False)
REGRESSION: HeadOptions = {"centre": "task", "regression_weight": 4.0}
HEADS: dict[str, HeadOptions] = {
    "plain": REGRESSION,
    "views": {**REGRESSION, "views": True},
    "means": {"baseline": "class_means", "views": True},
}
LABELS = [0, 1, 1]


@pytest.fixture(scope="module")
def images(tiny_images: Path) -> ImageSet:
    return open_images("folder", tiny_images, "test")


@pytest.fixture(scope="module")
def network() -> LWFM:
    torch.manual_seed(1)
    return LWFM(MODEL).eval()


@pytest.fixture(scope="module")
def maps(network: LWFM, images: ImageSet) -> CachedMaps:
    return compute_maps(network, images, range(10), batch_size=20, bar=False, views=True)


def test_images_are_as_without_views(network: LWFM, images: ImageSet, maps: CachedMaps) -> None:
    plain = compute_maps(network, images, range(10), bar=False)
    assert not plain.views
    for one, other in zip(maps.select([7, 2]), plain.select([7, 2]), strict=True):
        torch.testing.assert_close(one, other)
    assert all(len(layer) == 2 * VIEWS for layer in maps.select_views([7, 2]))


def _scores(network: LWFM, maps: CachedMaps, name: str) -> torch.Tensor:
    method = make_heads(network, HEADS).others[name]
    encoded = method.encode(maps.select(range(10)))
    if method.views:
        encoded |= method.encode_views(maps.select_views(range(10)))
    lists = torch.tensor([[4, 0, 6], [9, 3, 2]]), torch.tensor([[1, 5], [7, 7]])
    return method.scores(encoded, *lists, ClassLists(LABELS))[name]


def test_a_head_answers_as_the_classifier(network: LWFM, images: ImageSet, maps: CachedMaps) -> None:
    config: Any = {**vars(MODEL), **REGRESSION}
    regressing = LWFM(ModelConfig(**config), normalization=images.normalization).eval()
    regressing.load_state_dict(network.state_dict())
    own = compute_maps(regressing, images, range(10), bar=False, views=True)
    classifier = FewShotClassifier(regressing, calibrate=False, engine="torch")
    classifier.fit([images.image(number) for number in (4, 0, 6)], LABELS)
    expected = torch.from_numpy(classifier.predict_proba([images.image(number) for number in (1, 5)]))
    logits = _scores(regressing, own, "views")[0] / MODEL.temperature
    torch.testing.assert_close(logits.double().softmax(1), expected, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(_scores(network, maps, "views"), _scores(network, maps, "plain"), atol=1e-3)


def test_views_are_further_shots_of_a_baseline(network: LWFM, maps: CachedMaps) -> None:
    method = make_heads(network, {"means": {"baseline": "class_means"}}).others["means"]
    views = [layer.view(10, VIEWS, *layer.shape[1:]) for layer in maps.select_views(range(10))]
    shots = [4, 0, 6]
    layers = [
        torch.cat([layer, *(view[number] for number in shots)])
        for layer, view in zip(maps.select(range(10)), views, strict=True)
    ]
    places = [
        row for k, shot in enumerate(shots) for row in (shot, *range(10 + VIEWS * k, 10 + VIEWS * (k + 1)))
    ]
    labels = [label for label in LABELS for _ in range(1 + VIEWS)]
    lists = torch.tensor([places]), torch.tensor([[1, 5]])
    expected = method.scores(method.encode(layers), *lists, ClassLists(labels))["means"][0]
    torch.testing.assert_close(_scores(network, maps, "means")[0], expected)


def test_an_evaluation_encodes_them_once(tiny_images: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"queries": 3, "episodes": 10, "accelerator": "cpu", "data": "folder"}
    settings |= {"root": tiny_images, "model": MODEL, "heads": HEADS}
    encoded = evaluate(**settings)
    stored = evaluate(**settings, maps=tmp_path)
    assert stored.methods == encoded.methods == evaluate(**settings, maps=tmp_path).methods
    assert len(list(tmp_path.iterdir())) == 1
    evaluate(**{**settings, "heads": {}}, maps=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # of the images alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"views": True}, "only a regression learns from views"),
        ({"views": 2, "regression_weight": 1.0}, "views must be true or false, not 2"),
        ({"baseline": "class_means", "views": "no"}, "views must be true or false"),
    ],
    ids=str,
)
def test_impossible_options(network: LWFM, options: HeadOptions, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_heads(network, {"a": options})
