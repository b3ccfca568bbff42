"""Boxes: their files, composed scenes, the detector and its score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.tv_tensors import BoundingBoxes

from lwfm.errors import UserError
from lwfm.metric import detection, detection_network
from lwfm.metric.data.boxes import BoxedImage, compose_scene, one_class, open_boxes
from lwfm.metric.detection import BoxDetector, Boxes, average_precision
from lwfm.metric.detection_network import TORCHVISION, build_detector
from lwfm.model.network import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits of one image of 40 x 20 pixels with a box each."""
    for split in ("train", "val"):
        (tmp_path / split / "images").mkdir(parents=True)
        (tmp_path / split / "labels").mkdir()
        Image.new("RGB", (40, 20)).save(tmp_path / split / "images" / "x.png")
        (tmp_path / split / "labels" / "x.txt").write_text("1 0.5 0.5 0.25 0.5\n\n")
    return tmp_path


def test_boxes_are_in_pixels(folder: Path) -> None:
    with open_boxes(folder) as images:
        assert sorted(images) == ["train", "val"]
        (image,) = images["train"]
    assert image.boxes.tolist() == [[15, 5, 25, 15]]
    assert image.codes.tolist() == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 0.2", "line 1 of x.txt is not class, center and size"),
        ("a 0.5 0.5 0.2 0.2", "line 1 of x.txt is not class, center and size"),
        ("0 0.5 0.5 0.2 0.2\n0 1.5 0.5 0.2 0.2", "line 2 of x.txt has shares out of 0 to 1"),
        ("0 nan 0.5 0.2 0.2", "line 1 of x.txt has shares out of 0 to 1"),
        (None, "the image x.png has no boxes: x.txt is missing"),
    ],
    ids=["few", "text", "range", "nan", "missing"],
)
def test_damaged_labels_are_refused(folder: Path, text: str | None, message: str) -> None:
    file = folder / "train" / "labels" / "x.txt"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(UserError, match=message), open_boxes(folder):
        pass


def test_another_layout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no folder train/images"), open_boxes(tmp_path):
        pass


def disc(color: tuple[int, int, int]) -> Image.Image:
    across, down = np.meshgrid(np.arange(40), np.arange(40))
    inside = (across - 20) ** 2 + (down - 20) ** 2 < 300
    return Image.fromarray((inside[..., None] * np.array(color)).astype(np.uint8))


def test_boxes_of_a_scene_enclose_the_objects() -> None:
    red = (255, 30, 30)
    scene = compose_scene([disc(red)] * 5, np.random.default_rng(0), size=200)
    assert isinstance(scene.image, Image.Image)
    pixels = np.asarray(scene.image).astype(int)
    found = (pixels[..., 0] > 230) & (pixels[..., 1] < 60)
    inside = np.zeros_like(found)
    for left, top, right, bottom in scene.boxes.astype(int):
        inside[top:bottom, left:right] = True
        assert found[top:bottom, left:right].mean() > 0.6
    assert not (found & ~inside).any()
    again = compose_scene([disc(red)] * 5, np.random.default_rng(0), size=200)
    np.testing.assert_array_equal(again.boxes, scene.boxes)


def scenes(count: int) -> list[BoxedImage]:
    random = np.random.default_rng(0)
    return one_class([compose_scene([disc((60, 200, 60))] * 3, random, size=128) for _ in range(count)])


def test_a_detector_learns_and_is_restored() -> None:
    images = scenes(4)
    detector = BoxDetector(image_size=64, epochs=12, batch_size=4, accelerator="cpu")
    before = average_precision([detector(image.image, 0) for image in images], images)
    after = detector.fit(images)
    found = [after(image.image, 0) for image in images]
    assert average_precision(found, images).mean > before.mean
    assert all((np.diff(each.scores) <= 0).all() for each in found)
    again = BoxDetector.restored(detector.options, detector.tensors())
    np.testing.assert_array_equal(again(images[0].image, 0).boxes, found[0].boxes)
    assert not any("trunk" in name for name in detector.tensors())


def test_variations_keep_boxes_at_their_objects() -> None:
    detector = BoxDetector(image_size=64, accelerator="cpu")
    pixels = torch.zeros(3, 64, 64)
    pixels[0, 20:30, 40:52] = 1
    boxes = BoundingBoxes(torch.tensor([[40.0, 20, 52, 30]]), format="XYXY", canvas_size=(64, 64))
    torch.manual_seed(0)
    shapes = set()
    for _ in range(8):
        varied, turned, codes = detector._varied(pixels, boxes, torch.tensor([3]))
        assert codes.tolist() == [3]
        left, top, right, bottom = (round(value) for value in turned[0].tolist())
        brightest = varied.amax(0)
        outside = brightest.clone()
        outside[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = 0
        assert brightest[top + 2 : bottom - 2, left + 2 : right - 2].min() > outside.max()
        shapes.add((left, top, right, bottom))
    assert len(shapes) == 8


def test_average_precision_is_that_of_the_definition() -> None:
    truth = BoxedImage(
        Image.new("RGB", (9, 9)), np.array([[0, 0, 4, 4], [5, 5, 9, 9]], np.float32), np.zeros(2, np.int64)
    )
    boxes = np.array([[0, 0, 4, 4], [0, 5, 4, 9], [5, 5, 9, 9]], np.float32)
    found = Boxes(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64))
    # precision 1 until recall 0.5 (51 of 101 points), then 2/3
    assert average_precision([found], [truth]).mean == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-4)
    moved = truth._replace(boxes=truth.boxes + np.array([0, 0, 4, 0], np.float32))  # overlaps of one half
    assert average_precision([found], [moved], overlap=0.45).mean == average_precision([found], [truth]).mean
    assert average_precision([found], [moved], overlap=0.55).mean == 0
    nothing = Boxes(boxes[:0], np.zeros(0, np.float32), np.zeros(0, np.int64))
    assert average_precision([nothing], [truth]).mean == 0


def test_other_trunks_have_the_same_strides(monkeypatch: pytest.MonkeyPatch) -> None:
    for backbone in ("resnet18", "timm:resnet10t"):
        config = ModelConfig(backbone=backbone, weights="none", embedding=False)
        monkeypatch.setattr(detection_network, "pretrained_config", lambda _, config=config: config)
        network = BoxDetector(trunk=backbone, image_size=64, accelerator="cpu").network
        assert [each.shape[-1] for each in network.backbone(torch.zeros(1, 3, 64, 64)).values()] == [8, 4, 2]
    other = ModelConfig(backbone="timm:convnext_atto", weights="none", layers=(0, 1, 2, 3), embedding=False)
    monkeypatch.setattr(detection_network, "pretrained_config", lambda _: other)
    with pytest.raises(UserError, match="no layer 4"):
        BoxDetector(trunk="timm:convnext_atto", image_size=64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BoxDetector(image_size=100), "image_size must be a multiple of 32"),
        (lambda: BoxDetector(epochs=0), "epochs must be a whole number"),
        (lambda: BoxDetector(image_size=64).fit([]), "there is no box to learn from"),
        (
            lambda: BoxDetector(image_size=64).fit([scenes(1)[0]._replace(codes=np.array([0, 0, 1]))]),
            "the boxes have class 1, the detector 1 classes",
        ),
    ],
    ids=["size", "epochs", "empty", "class"],
)
def test_wrong_calls_are_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(UserError, match=message):
        make()


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """The state dictionary of a user's fcos_resnet50_fpn of two classes."""
    state: dict[str, torch.Tensor] = build_detector(2, TORCHVISION, 64).state_dict()
    return state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights_is_taken_over(state: dict[str, torch.Tensor], suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    detector = BoxDetector.from_file(path, image_size=64, accelerator="cpu")
    assert detector.options["classes"] == 2
    assert all(torch.equal(each, state[name]) for name, each in detector.network.state_dict().items())
    assert detector.tensors().keys() == state.keys()


def test_another_number_of_classes_draws_the_last_layer(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    save_file(state, tmp_path / "mine.safetensors")
    options = {"image_size": 64, "epochs": 1, "accelerator": "cpu"}
    detector = BoxDetector.from_file(tmp_path / "mine.safetensors", classes=1, **options)
    own = detector.network.state_dict()
    assert own["head.classification_head.cls_logits.weight"].shape[0] == 1
    assert torch.equal(own["backbone.body.conv1.weight"], state["backbone.body.conv1.weight"])
    detector.fit(scenes(1))
    assert torch.equal(own["backbone.body.conv1.weight"], state["backbone.body.conv1.weight"])
    assert not torch.equal(
        own["head.regression_head.conv.0.weight"], state["head.regression_head.conv.0.weight"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("backbone.fpn.inner_blocks.1.0.weight"), "no tensor backbone.fpn.inner_blo"),
        (
            lambda state: state.update({"backbone.body.conv1.weight": torch.zeros(2)}),
            r"tensor backbone.body.conv1.weight has shape \[2\], expected \[64, 3, 7, 7\]",
        ),
        (
            lambda state: state.update({"backbone.extra": torch.zeros(2)}),
            "fcos_resnet50_fpn has no tensor backbone.extra",
        ),
        (
            lambda state: state.clear() or state.update({"x": torch.zeros(1)}),
            "does not fit fcos_resnet50_fpn",
        ),
    ],
    ids=["missing", "shape", "unknown", "other"],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    state: dict[str, torch.Tensor],
    change: Callable[[dict[str, torch.Tensor]], Any],
    message: str,
    tmp_path: Path,
) -> None:
    changed = dict(state)
    change(changed)
    torch.save(changed, tmp_path / "mine.pth")
    with pytest.raises(UserError, match=message):
        BoxDetector.from_file(tmp_path / "mine.pth", image_size=64)


def test_a_pickle_is_not_run(tmp_path: Path) -> None:
    torch.save({"x": Boxes}, tmp_path / "mine.pth")
    with pytest.raises(UserError, match="not a torch file of tensors alone"):
        BoxDetector.from_file(tmp_path / "mine.pth")


def test_a_threshold_leaves_out_what_scores_less() -> None:
    detector = BoxDetector(image_size=64, accelerator="cpu")
    image = scenes(1)[0].image
    every = detector(image, threshold=0)
    middle = float(np.median(every.scores))
    np.testing.assert_array_equal(
        detector(image, threshold=middle).scores, every.scores[every.scores >= middle]
    )
    assert len(every.scores) > len(detector(image).scores)


def test_boxes_lie_on_an_oblong_image() -> None:
    detector = BoxDetector(image_size=64, accelerator="cpu")
    found = detector(Image.new("RGB", (200, 50), (90, 120, 60)), threshold=0)
    assert len(found.boxes)
    assert found.boxes.min() >= 0
    assert (found.boxes[:, 2:] <= [200, 50]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()


def test_views_are_kept_as_long_as_there_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detection, "_CACHE_BYTES", 8)
    computed = []

    def compute(number: int, variation: int) -> detection._View:
        computed.append((number, variation))
        return detection._View([torch.zeros(1)], torch.zeros(0, 4), torch.zeros(0))

    views = detection._cached(compute)
    for number in (0, 1, 2, 0, 1, 2):
        assert views(number, 5).maps[0].shape == (1,)
    assert computed == [(0, 5), (1, 5), (2, 5), (2, 5)]
