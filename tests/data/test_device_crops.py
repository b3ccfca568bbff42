"""Crops resized a batch at once: those of PIL but for rounding, the same seeds, exact under resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from lwfm.data import ClassDataModule, EpisodeDataModule
from lwfm.data._datamodule_base import TrainingDataModule
from lwfm.data.device_crops import Crops, CropTransform, resized
from lwfm.data.normalization import Normalization
from lwfm.training.checkpoints import AtomicCheckpointIO
from lwfm.training.modules import Learner
from tests.helpers.tiny_training import pretrain_tiny, train_tiny

if TYPE_CHECKING:
    from pathlib import Path

GREY_LEVEL = 1 / 255
PLAIN = Normalization((0.0,) * 3, (1.0,) * 3)
BOXES = [(0, 0, 90, 120), (3, 40, 30, 41), (89, 0, 1, 120), (0, 119, 90, 1), (10, 20, 32, 32), (7, 5, 64, 48)]
"""Top, left, height and width of parts of an image of 120 x 90."""


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the device resize although it is a CPU."""
    monkeypatch.setattr(TrainingDataModule, "resizes_on_device", property(lambda _: True))


@pytest.mark.parametrize("flipped", [False, True], ids=["as-it-is", "flipped"])
@pytest.mark.parametrize("side", [16, 32, 84])
def test_given_boxes_give_the_crops_of_pil(side: int, flipped: bool, device: torch.device) -> None:
    whole = noise(120, 90)
    parts = [np.asarray(whole)[top : top + h, left : left + w] for top, left, h, w in BOXES]
    crops = CropTransform(side).collate([(part, flipped) for part in parts])
    crops = Crops(*(tensor.to(device) for tensor in crops))
    found = resized(crops, image_size=side, normalization=PLAIN).cpu()
    for box, image in zip(BOXES, found, strict=True):
        expected = functional.pil_to_tensor(functional.resized_crop(whole, *box, size=[side, side]))
        expected = expected.flip(-1) if flipped else expected
        # PIL rounds after each of its two passes, with weights of 8 bits.
        assert (image - expected / 255).abs().max() <= 1.5 * GREY_LEVEL
        assert (image - expected / 255).mean().abs() <= 0.2 * GREY_LEVEL


def test_numbers_are_normalized() -> None:
    crops = CropTransform(4).collate([(np.full((5, 6, 3), 51, dtype=np.uint8), False)])
    image = resized(crops, image_size=4, normalization=Normalization((0.1, 0.2, 0.3), (0.1, 0.2, 0.4)))
    expected = torch.tensor([1.0, 0.0, -0.25])
    torch.testing.assert_close(image[0], expected[:, None, None].expand(3, 4, 4))


def batches(module: TrainingDataModule) -> list[torch.Tensor]:
    """Training images as they arrive on the device."""
    found: list[torch.Tensor] = []
    for batch in iter(module.train_dataloader()):
        combined = isinstance(module, EpisodeDataModule)  # (batch, its number, its loader's number)
        arrived = module.on_after_batch_transfer(batch[0] if combined else batch, 0)
        parts = arrived.values() if combined else [arrived]
        found += [images for images, _ in parts]
    return found


def modules(root: Path, **options: Any) -> list[TrainingDataModule]:
    shape = {"way": 3, "queries": 2, "episodes": 2, "auxiliary_batch": 9}
    return [
        EpisodeDataModule("folder", root, image_size=20, **shape, **options),  # type: ignore[arg-type]
        ClassDataModule("folder", root, image_size=20, batch=12, validation_queries=2, **options),
    ]


@pytest.mark.parametrize("which", [0, 1], ids=["episodes", "classes"])
def test_the_device_shows_the_same_images(
    tiny_images: Path, which: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_by_one = batches(modules(tiny_images)[which])
    monkeypatch.setattr(TrainingDataModule, "resizes_on_device", property(lambda _: True))
    at_once = batches(modules(tiny_images)[which])
    with_workers = batches(modules(tiny_images, workers=2)[which])
    assert len(one_by_one) == len(at_once) > 2
    statistics = modules(tiny_images)[which].normalization
    allowed = 1.5 * GREY_LEVEL / min(statistics.std)
    for expected, found, again in zip(one_by_one, at_once, with_workers, strict=True):
        assert (found - expected).abs().max() <= allowed
        assert torch.equal(found, again)


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("stage", [train_tiny, pretrain_tiny], ids=["episodes", "pretraining"])
def test_a_resumed_run_is_exact(
    tiny_images: Path, tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Learner.on_train_epoch_start

    def stop_in_second_epoch(self: Learner) -> None:
        if self.current_epoch == 1:
            raise RuntimeError("the machine went down")
        begin(self)

    stage(tmp_path / "whole", tiny_images)
    with monkeypatch.context() as patch:
        patch.setattr(Learner, "on_train_epoch_start", stop_in_second_epoch)
        with pytest.raises(RuntimeError, match="went down"):
            stage(tmp_path / "halves", tiny_images)
    stage(tmp_path / "halves", tiny_images, resume=True)
    whole, halves = (
        AtomicCheckpointIO().load_checkpoint(tmp_path / name / "last.ckpt")["state_dict"]
        for name in ("whole", "halves")
    )
    assert whole.keys() == halves.keys()
    assert all(torch.equal(tensor, halves[name]) for name, tensor in whole.items())


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_only_a_gpu_resizes(tiny_images: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = modules(tiny_images)[1]
    assert not module.resizes_on_device
    trainer = lightning.Trainer(barebones=True, accelerator="cpu")
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device(kind))
    module.trainer = trainer
    assert module.resizes_on_device == (kind == "cuda")
