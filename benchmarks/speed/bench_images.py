"""Training images per second: torchvision's ImageFolder and transforms beside our input pipeline.

    pytest benchmarks/speed/bench_images.py --benchmark-group-by=group --benchmark-columns=median,rounds

Everyone reads the same JPEG files, crops and flips at random, normalizes, and makes batches of 128, 84 x 84.
The median is the time of 384 images; the report in JSON has images per second. Before anything is timed,
contestants are checked to give the same tensors to the bit. Only images that were reduced when they were
stored are cropped elsewhere: there, the centers are compared instead. Crops that are resized a batch at once
are compared with those resized one by one, up to rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from lwfm.data import (
    ImageDataset,
    ImageSet,
    evaluation_transform,
    open_images,
    stored_images,
    training_transform,
)
from lwfm.data.dataset import ImageBatches, identity_collate
from lwfm.data.device_crops import Crops, CropTransform, resized
from lwfm.data.episodes import SeededSampler, ShuffledSampler
from lwfm.data.normalization import IMAGENET

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from lwfm.data.dataset import BatchTransform

IMAGE_SIZE, BATCH, BATCHES, IMAGES = 84, 128, 3, 384
SIDE = 2 * IMAGE_SIZE  # as `lwfm train` keeps them
SIZES = [(84, 84), (500, 375)]
BATCHED = {"ours, crops alone": "", "ours, decoded, batched": "cpu", "ours, decoded, on a GPU": "cuda"}
"""Where crops of decoded images are resized a batch at once; crops alone: what is left to the CPU then."""
CONTESTANTS = [
    *("ImageFolder", "ours", "ours, decoded"),
    *(pytest.param(name, marks=pytest.mark.gpu if kind == "cuda" else ()) for name, kind in BATCHED.items()),
]


Batches = DataLoader[Any]


class SeededFolder(Dataset[tuple[torch.Tensor, int]]):
    """ImageFolder with items by (index, seed), as in our data sets."""

    def __init__(self, root: Path) -> None:
        numbers = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        normalize = v2.Normalize(list(IMAGENET.mean), list(IMAGENET.std))
        shape = [v2.RandomResizedCrop(IMAGE_SIZE), v2.RandomHorizontalFlip()]
        self.folder = ImageFolder(str(root), v2.Compose([*shape, *numbers, normalize]))

    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, int]:
        index, seed = item
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            image, label = self.folder[index]
        return image, label


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def images(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Write JPEG files of one size, in 16 classes."""
    width, height = request.param
    root = tmp_path_factory.mktemp(f"{width}x{height}")
    random = np.random.default_rng(0)
    for number in range(IMAGES):
        folder = root / "train" / f"class-{number % 16:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:04d}.jpg", quality=90)
    return open_images("folder", root)


def loader(name: str, images: ImageSet, folder: Path, workers: int) -> Batches:
    """Build a loader of the same images with the same random crops for either pipeline."""
    sampler = SeededSampler(ShuffledSampler(IMAGES, batch_size=BATCH, batches=BATCHES, seed=0), seed=1)
    if name == "ImageFolder":
        return DataLoader(
            SeededFolder(Path(images.name) / images.split), batch_sampler=sampler, num_workers=workers
        )
    if name == "ours, decoded" or name in BATCHED:
        images = stored_images(images, folder, side=SIDE)
    transform: BatchTransform = CropTransform(IMAGE_SIZE)
    if name not in BATCHED:
        transform = training_transform(image_size=IMAGE_SIZE, normalization=IMAGENET)
    return DataLoader(
        ImageBatches(images, transform),
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=identity_collate,
    )


@pytest.mark.parametrize("workers", [0, 2], ids=["no workers", "2 workers"])
@pytest.mark.parametrize("name", CONTESTANTS)
def test_images(
    benchmark: BenchmarkFixture,
    images: ImageSet,
    name: str,
    workers: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    torch.set_num_threads(1)  # as in a worker
    folder = tmp_path_factory.getbasetemp() / "decoded"
    batches = loader(name, images, folder, workers)
    width, height = images.image(0).size
    if name in BATCHED:
        check_batched(batches, loader("ours, decoded", images, folder, 0))
    elif name == "ours, decoded" and min(width, height) > SIDE:
        check_centers(images, folder)
    else:
        check_batches(batches, loader("ImageFolder", images, folder, 0))
    benchmark.group = f"{IMAGES} images of {width} x {height}, {workers} workers"
    measure: Any = benchmark  # its types are incomplete
    measure.pedantic(lambda: read(name, batches), rounds=5, warmup_rounds=1)
    measure.extra_info["images_per_second"] = round(IMAGES / measure.stats.stats.median)


def read(name: str, batches: Batches) -> list[torch.Tensor]:
    """Read all batches, to where training wants them."""
    if not BATCHED.get(name):
        return [images for images, _ in batches]
    images = [on_device(images, BATCHED[name]) for images, _ in batches]
    if BATCHED[name] == "cuda":
        torch.cuda.synchronize()
    return images


def on_device(crops: Crops, device: str) -> torch.Tensor:
    """Resize crops on the device."""
    crops = Crops(*(tensor.to(device) for tensor in crops))
    return resized(crops, image_size=IMAGE_SIZE, normalization=IMAGENET)


def check_batched(ours: Batches, one_by_one: Batches) -> None:
    """Compare the first batches: PIL rounds to whole gray levels."""
    (crops, labels), (images, expected) = next(iter(ours)), next(iter(one_by_one))
    assert torch.equal(labels, expected)
    difference = (on_device(crops, "cpu") - images).abs() * torch.tensor(IMAGENET.std)[:, None, None]
    assert difference.max() <= 1.5 / 255


def check_batches(ours: Batches, theirs: Batches) -> None:
    """Compare the first batches, to the bit."""
    for one, other in zip(next(iter(ours)), next(iter(theirs)), strict=True):
        assert torch.equal(one, other)


def check_centers(images: ImageSet, folder: Path) -> None:
    """Compare the centers of reduced images with those of the originals: they are smoothed twice."""
    transform = evaluation_transform(image_size=IMAGE_SIZE, normalization=IMAGENET)
    originals = ImageDataset(images, transform)
    reduced = ImageDataset(stored_images(images, folder, side=SIDE), transform)
    for index in range(0, IMAGES, 16):
        assert (originals[index][0] - reduced[index][0]).abs().mean() < 0.05
