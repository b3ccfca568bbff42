"""Decoded images on disk: the same pixels, made once, made again when the images change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image
from torchvision.transforms import v2

from lwfm.cli import main
from lwfm.data import (
    EpisodeDataModule,
    ImageSet,
    evaluation_transform,
    open_images,
    stored_images,
    training_transform,
)
from lwfm.data.decoded_cache import StoredSource
from lwfm.data.normalization import IMAGENET
from lwfm.data.sources import PixelSource
from lwfm.errors import UserError
from tests.helpers.miniatures import WORDNET, folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZES = [(40, 30), (90, 200), (64, 64), (16, 300), (65, 64), (33, 70)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder data set with images of several sizes."""
    random = np.random.default_rng(0)
    for number, (width, height) in enumerate(SIZES):
        path = tmp_path / "data" / "train" / f"class-{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return tmp_path / "data"


def pixels(images: ImageSet) -> Iterator[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    return (np.asarray(images.image(index)) for index in range(len(images)))


def test_small_images_are_kept_and_large_ones_reduced(root: Path, tmp_path: Path) -> None:
    images = open_images("folder", root)
    stored = stored_images(images, tmp_path / "kept", side=64)
    assert stored.fingerprint == images.fingerprint
    for one, other in zip(pixels(images), pixels(stored), strict=True):
        height, width = one.shape[:2]
        if min(width, height) <= 64:
            np.testing.assert_array_equal(one, other)
        else:
            scale = 64 / min(width, height)
            expected = Image.fromarray(one).resize(
                (max(round(width * scale), 64), max(round(height * scale), 64)), Image.Resampling.BILINEAR
            )
            np.testing.assert_array_equal(np.asarray(expected), other)
    assert not list((tmp_path / "kept").glob("*.part*"))


def test_chosen_images_are_found(root: Path, tmp_path: Path) -> None:
    stored = stored_images(open_images("folder", root), tmp_path, side=64)
    some = stored.source.select([4, 1]).select([1])
    assert some.image(0).tobytes() == stored.image(1).tobytes()
    assert some.place(0).endswith("[1]")


@pytest.mark.parametrize("change", ["nothing", "content", "another", "damage", "cut", "sizes", "dtype"])
def test_the_file_is_made_again_only_when_it_must_be(root: Path, tmp_path: Path, change: str) -> None:
    kept = tmp_path / "kept"
    stored_images(open_images("folder", root), kept, side=64)
    (file,) = kept.iterdir()
    first = root / "train" / "class-0" / "0.png"
    if change == "content":
        Image.new("RGB", (40, 30), "red").save(first)
    elif change == "another":
        Image.new("RGB", (10, 10), "blue").save(first.with_name("another.png"))
    elif change == "damage":
        file.write_bytes(b"no images")
    elif change == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    elif change in ("sizes", "dtype"):
        with safetensors.safe_open(file, framework="np") as opened:
            metadata = opened.metadata()
        tensors = safetensors.numpy.load_file(file)
        if change == "sizes":
            tensors["sizes"][0] = -1, 2**30
        else:
            tensors["pixels"] = tensors["pixels"].view(np.int8)
        safetensors.numpy.save_file(tensors, file, metadata)
    before = file.stat().st_mtime_ns
    images = open_images("folder", root)
    stored = stored_images(images, kept, side=64)
    assert [path.name for path in kept.iterdir()] == [file.name]
    assert (file.stat().st_mtime_ns == before) == (change == "nothing")
    for index in range(len(images)):
        if min(images.image(index).size) <= 64:
            assert stored.image(index).tobytes() == images.image(index).tobytes()


def test_ctrl_c_and_images_that_are_gone_leave_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = open_images("folder", root)
    kept = tmp_path / "kept"
    with monkeypatch.context() as patch:
        patch.setattr("lwfm.data.decoded_cache._resized", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stored_images(images, kept, side=64)
    assert not list(kept.iterdir())
    (root / "train" / "class-1" / "3.png").unlink()
    with pytest.raises(UserError, match=r"3\.png"):
        stored_images(images, kept, side=64)
    assert not list(kept.iterdir())


def test_a_file_replaced_before_it_is_mapped_is_noticed(root: Path, tmp_path: Path) -> None:
    """The sizes are read at once, the pixels later: those of another run must not be cut by them."""
    kept = tmp_path / "kept"
    stored = stored_images(open_images("folder", root), kept, side=64)
    Image.new("RGB", (40, 30), "red").save(root / "train" / "class-0" / "0.png")
    other = stored_images(open_images("folder", root), kept, side=64)
    (file,) = kept.iterdir()
    for source in (stored.source, stored.source.select([1])):
        with pytest.raises(UserError, match=f"{file} were overwritten by another run: start again"):
            source.read(0)
    assert other.image(0).getpixel((0, 0)) == (255, 0, 0)


def test_two_folders_of_a_benchmark_have_a_file_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for root in ("one", "other"):
        folders(tmp_path / root, WORDNET)
        stored_images(open_images("miniimagenet", tmp_path / root), tmp_path / "kept", side=64)
    before = sorted((tmp_path / "kept").iterdir())
    assert [path.name.split("-64px-")[0] for path in before] == ["miniimagenet-train"] * 2
    monkeypatch.chdir(tmp_path / "one")  # the same images from another folder: the same file
    stored_images(open_images("miniimagenet", "."), tmp_path / "kept", side=64)
    assert sorted((tmp_path / "kept").iterdir()) == before


def test_pixels_stay_where_they_are(tmp_path: Path) -> None:
    images = open_images("emoji", split="val")
    array = np.stack([np.asarray(images.image(index)) for index in range(3)])
    already = ImageSet(**(images.__dict__ | {"source": PixelSource(array, "array")}))
    assert stored_images(already, tmp_path / "kept", side=64) is already
    assert not (tmp_path / "kept").exists()


def first_batch(tiny_images: Path, decoded: Path | None, workers: int) -> list[torch.Tensor]:
    data = EpisodeDataModule(
        "folder", tiny_images, way=3, queries=2, episodes=2, auxiliary_batch=5, image_size=24,
        workers=workers, decoded=decoded,
    )  # fmt: skip
    assert isinstance(data.train_images.source, StoredSource) == (decoded is not None)
    batch = next(iter(data.train_dataloader()))[0]
    return [tensor for part in batch.values() for tensor in part]


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_are_the_same(tiny_images: Path, tmp_path: Path, workers: int) -> None:
    expected = first_batch(tiny_images, None, 0)
    for one, other in zip(expected, first_batch(tiny_images, tmp_path / "kept", workers), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("size", [(84, 84), (120, 90), (30, 60)], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_transforms_are_torchvisions(size: tuple[int, int], training: bool) -> None:
    random = np.random.default_rng(1)
    image = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    shape = (
        [v2.RandomResizedCrop(48), v2.RandomHorizontalFlip()]
        if training
        else [v2.Resize(round(48 * 92 / 84)), v2.CenterCrop(48)]
    )
    numbers = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
    normalize = v2.Normalize(list(IMAGENET.mean), list(IMAGENET.std))
    theirs = v2.Compose([*shape, *numbers, normalize])
    ours = (training_transform if training else evaluation_transform)(image_size=48, normalization=IMAGENET)
    for seed in range(6):
        torch.manual_seed(seed)
        expected = theirs(image)
        torch.manual_seed(seed)
        assert (ours(image) - expected).abs().max() <= (0 if training else 2.1 / 255 / min(IMAGENET.std))


@pytest.mark.parametrize("decoded", ["auto", "none", "elsewhere"])
def test_train_keeps_decoded_images_where_it_is_told(
    tiny_images: Path, tmp_path: Path, decoded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "train --data folder --out runs/a --epochs 1 --progress false --episodes.train 1".split()  # noqa: SIM905
    words += "--episodes.way 3 --episodes.queries 2 --episodes.auxiliary_batch 4".split()  # noqa: SIM905
    words += "--episodes.validation 2 --model.backbone conv4 --model.image_size 24".split()  # noqa: SIM905
    words += ["--model.feature_size", "1", "--root", str(tiny_images), "--decoded", decoded]
    assert main(words) == 0
    folders = {"auto": {"runs/decoded-images"}, "none": set(), "elsewhere": {"elsewhere"}}
    found = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*px-*.safetensors")}
    assert found == folders[decoded]
