"""Further views of the examples, from which the regression of the head learns too."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from lwfm import FewShotClassifier
from lwfm.data.center_crop import VIEWS, CenterCrop
from lwfm.data.decoding import open_image
from lwfm.errors import UserError
from lwfm.model import LWFM
from lwfm.model.engines import Encoder
from lwfm.nn.regression import image_statistics
from tests.classifier.test_files import change_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def regressing(network: LWFM) -> LWFM:
    return LWFM(replace(network.config, centre="task", regression_weight=2.0)).eval()


@pytest.fixture(scope="module")
def learned(regressing: LWFM, shots: tuple[list[Path], list[str]]) -> FewShotClassifier:
    return FewShotClassifier(regressing, batch_size=3).fit(*shots)


def test_views_are_those_of_the_images(
    learned: FewShotClassifier, regressing: LWFM, shots: tuple[list[Path], list[str]]
) -> None:
    views = CenterCrop(24).views(open_image(shots[0][3]))
    assert len(views) == VIEWS
    with torch.inference_mode():
        maps = Encoder(regressing, "torch")(torch.from_numpy(np.stack([np.asarray(view) for view in views])))
        expected = image_statistics(regressing.head.encode(maps))
    for kind, of_view in zip(learned.support_.views, expected, strict=True):
        assert kind.shape == (len(shots[0]), VIEWS, of_view.shape[1])
        torch.testing.assert_close(kind[3], of_view, rtol=1e-3, atol=1e-5)


def test_the_images_themselves_are_as_without(
    learned: FewShotClassifier, regressing: LWFM, shots: tuple[list[Path], list[str]]
) -> None:
    without = FewShotClassifier(regressing, views=False).fit(*shots)
    assert not without.support_.views
    for one, other in zip(learned.support_.maps, without.support_.maps, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not np.allclose(learned.predict_proba(shots[0]), without.predict_proba(shots[0]), atol=1e-3)


def test_a_head_without_regression_has_none(fitted: FewShotClassifier) -> None:
    assert fitted.views
    assert not fitted.support_.views


def test_many_examples_have_none(
    regressing: LWFM, shots: tuple[list[Path], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lwfm.classifier.classifier.MOST_WITH_VIEWS", len(shots[0]) - 1)
    assert not FewShotClassifier(regressing).fit(*shots).support_.views
    few = FewShotClassifier(regressing).fit(shots[0][:-2], shots[1][:-2])
    assert few.support_.views


@pytest.mark.parametrize("first", [True, False])
def test_images_with_and_without_views_may_be_joined(
    regressing: LWFM, shots: tuple[list[Path], list[str]], first: bool
) -> None:
    classifier = FewShotClassifier(regressing, views=first).fit(shots[0][:9], shots[1][:9])
    classifier.set_params(views=not first).partial_fit(shots[0][9:], shots[1][9:])
    views, own = classifier.support_.views, image_statistics(classifier.support_.encoded)
    plain = slice(9, None) if first else slice(9)
    for kind, statistic in zip(views, own, strict=True):
        assert kind.shape[:2] == (len(shots[0]), VIEWS)
        torch.testing.assert_close(kind[plain], statistic[plain, None].expand(-1, VIEWS, -1))


def test_forgotten_images_lose_their_views(learned: FewShotClassifier, regressing: LWFM) -> None:
    support = learned.support_.without([0, 2])
    assert torch.equal(support.views[0], learned.support_.views[0][[1, *range(3, len(support.names) + 2)]])


def test_files_keep_them(learned: FewShotClassifier, queries: list[Path], tmp_path: Path) -> None:
    learned.save(tmp_path / "a.safetensors")
    loaded = FewShotClassifier.load(tmp_path / "a.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(queries), learned.predict_proba(queries))


@pytest.mark.parametrize("damage", ["lost", "short", "nan", "flat"])
def test_damaged_views_are_refused(learned: FewShotClassifier, tmp_path: Path, damage: str) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        name = "views.1"
        if damage == "lost":
            del tensors[name]
        elif damage == "short":
            tensors[name] = tensors[name][1:].clone()
        elif damage == "nan":
            tensors[name][0, 0, 0] = float("nan")
        else:
            tensors[name] = tensors[name].flatten(1).clone()

    learned.save(path := tmp_path / "a.safetensors")
    change_file(path, change)
    with pytest.raises(UserError, match="is not a whole classifier"):
        FewShotClassifier.load(path)


def test_views_are_true_or_false(network: LWFM, shots: tuple[list[Path], list[str]]) -> None:
    with pytest.raises(UserError, match="views must be True or False, got 3"):
        FewShotClassifier(network, views=3).fit(*shots)  # type: ignore[arg-type]
