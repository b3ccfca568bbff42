"""Opening images: the bundled ones, folders, and everything that may be wrong with a folder."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from lwfm.data import image_sets as images_module
from lwfm.data.dataset import ImageDataset
from lwfm.data.decoding import decode_image, open_image
from lwfm.data.image_sets import EMOJI, open_images
from lwfm.data.normalization import IMAGENET, Normalization
from lwfm.data.transforms import evaluation_transform, training_transform
from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

RED, BLUE = (250, 10, 20), (20, 10, 250)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two training classes of three images each, in several formats."""
    for label, color in (("red", RED), ("blue", BLUE)):
        folder = tmp_path / "train" / label
        folder.mkdir(parents=True)
        for name, kind in (("a.png", "PNG"), ("b.JPG", "JPEG"), ("c.webp", "WEBP")):
            (folder / name).write_bytes(encode(Image.new("RGB", (12, 10), color), kind))
    (tmp_path / "train" / "red" / ".hidden.png").write_text("not an image")
    (tmp_path / "train" / ".cache").mkdir()
    return tmp_path


@pytest.mark.parametrize(("split", "classes"), [("train", 248), ("val", 60), ("test", 77)])
def test_emoji_splits(split: Any, classes: int) -> None:
    images = open_images("emoji", split=split)
    assert len(images.classes) == classes
    assert len(images) == len(images.labels) == 6 * classes
    assert np.bincount(images.labels).tolist() == [6] * classes
    for name, label in zip(images.names, images.labels, strict=True):
        assert name.startswith(images.classes[label] + "/")
    assert decode_image(images.read(0)).size == (84, 84)


def test_emoji_splits_are_disjoint_and_attributed() -> None:
    splits: list[Any] = ["train", "val", "test"]
    classes = [set(open_images(split=split).classes) for split in splits]
    assert len(set.union(*classes)) == sum(map(len, classes)) == 385
    attribution = images_module._ARCHIVE.with_name("ATTRIBUTION.txt").read_text()
    makers = {name.split("/")[1].removesuffix(".webp") for name in open_images().names}
    assert all(f"{maker}: " in attribution for maker in makers)


def test_emoji_normalization_is_that_of_its_training_images() -> None:
    images = open_images()
    pixels = np.stack([np.asarray(decode_image(images.read(i))) for i in range(len(images))]) / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), EMOJI.mean, atol=1e-5)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), EMOJI.std, atol=1e-5)


def test_folder(root: Path) -> None:
    images = open_images("folder", root, "train")
    assert images.classes == ("blue", "red")
    assert images.names == (
        "blue/a.png",
        "blue/b.JPG",
        "blue/c.webp",
        "red/a.png",
        "red/b.JPG",
        "red/c.webp",
    )
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.labels.dtype == np.int64
    assert images.normalization == IMAGENET
    assert images.read(3) == (root / "train/red/a.png").read_bytes()
    other = Normalization((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
    assert open_images("folder", str(root), normalization=other).normalization == other


def test_fingerprint_sees_names_and_bytes(root: Path) -> None:
    first = open_images("folder", root).fingerprint
    assert open_images("folder", root).fingerprint == first
    file = root / "train/red/a.png"
    renamed = file.rename(file.with_name("z.png"))
    second = open_images("folder", root).fingerprint
    renamed.rename(file).write_bytes(encode(Image.new("RGB", (12, 10), BLUE)))
    third = open_images("folder", root).fingerprint
    assert len({first, second, third}) == 3


@pytest.mark.parametrize("data", ["emoji", "folder"])
def test_images_reach_a_worker(root: Path, data: Any) -> None:
    images = open_images(data, root if data == "folder" else None)
    copy = pickle.loads(pickle.dumps(images))  # noqa: S301
    assert copy.read(2) == images.read(2)
    assert copy.names == images.names


def damage(root: Path) -> dict[str, str]:
    """Add images that cannot be decoded; their names and why."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    red = root / "train/red"
    (red / "cut.jpg").write_bytes(encode(Image.fromarray(noise), "JPEG")[:-800])
    (red / "empty.png").touch()
    (red / "text.png").write_text("this is a letter")
    (red / "cut.png").write_bytes(encode(Image.fromarray(noise))[:2000])
    return {"cut.jpg": "truncated", "empty.png": "empty", "text.png": "identify", "cut.png": ""}


def test_unreadable_images_stop_and_are_all_named(root: Path) -> None:
    bad = damage(root)
    with pytest.raises(UserError, match="4 of 10 images cannot be read") as caught:
        open_images("folder", root)
    lines = str(caught.value).splitlines()
    for name, reason in bad.items():
        assert any(f"train/red/{name}: " in line and reason in line for line in lines)
    assert "--unreadable skip" in lines[-1]
    assert "0x" not in str(caught.value)


def test_unreadable_images_are_skipped_with_a_warning(root: Path) -> None:
    whole = open_images("folder", root)
    bad = damage(root)
    with pytest.warns(UserWarning, match="left out") as caught:
        images = open_images("folder", root, unreadable="skip")
    assert all(name in str(caught[0].message) for name in bad)
    assert images.names == whole.names
    assert images.fingerprint == whole.fingerprint


def test_a_class_left_without_an_image_stops(root: Path) -> None:
    for file in (root / "train/blue").iterdir():
        file.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(UserError, match=r"'blue' of .* no readable"),
    ):
        open_images("folder", root, unreadable="skip")


def test_a_decompression_bomb_is_unreadable(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "train/red/bomb.png").write_bytes(encode(Image.new("1", (400, 400))))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    with pytest.raises(UserError, match=r"1 of 7 .*\n.*bomb.png: .*decompression bomb"):
        open_images("folder", root)


def test_an_image_that_vanishes_is_named(root: Path) -> None:
    images = open_images("folder", root)
    (root / "train/blue/a.png").unlink()
    with pytest.raises(UserError, match=r"cannot read the image .*train/blue/a.png: No such file"):
        images.read(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"data": "imagenet"}, "unknown data 'imagenet': choose one of emoji, folder", id="data"),
        pytest.param({"split": "dev"}, "unknown split 'dev': choose one of train, val, test", id="split"),
        pytest.param(
            {"unreadable": "?"}, "unknown unreadable '\\?': choose one of stop, skip", id="unreadable"
        ),
        pytest.param({"root": None}, "--data folder needs --root", id="no-root"),
        pytest.param({"data": "emoji"}, "the emoji are bundled: choose --data folder", id="root-of-emoji"),
        pytest.param({"root": "nowhere"}, "no folder nowhere: images are expected in", id="missing-root"),
        pytest.param(
            {"split": "val"}, r"no folder .*val: images .*val/<class>/<image>; .* holds train", id="val"
        ),
    ],
)
def test_wrong_option(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_images(**{"data": "folder", "root": root, "split": "train", **options})


def test_empty_folders(root: Path) -> None:
    (root / "val").mkdir()
    with pytest.raises(
        UserError, match=r"holds no class folder: images are expected in .*val/<class>/<image>"
    ):
        open_images("folder", root, "val")
    (root / "train/green").mkdir()
    with pytest.raises(UserError, match=r"class folder .*green holds no image: .*\.jpg"):
        open_images("folder", root)


def test_a_damaged_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(images_module._ARCHIVE.read_bytes())
    content[1000:1100] = bytes(100)
    damaged = tmp_path / "emoji.zip"
    damaged.write_bytes(content)
    monkeypatch.setattr(images_module, "_ARCHIVE", damaged)
    with pytest.raises(UserError, match="install lwfm again"):
        open_images()


def test_exif_orientation() -> None:
    image = Image.new("RGB", (8, 4), RED)
    image.paste(BLUE, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    upright = decode_image(encode(image, exif=exif))
    assert upright.size == (4, 8)
    assert upright.getpixel((0, 0)) == BLUE
    assert upright.getpixel((0, 7)) == RED


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.new("RGBA", (2, 2), (*RED, 0)), (255, 255, 255), id="transparent"),
        pytest.param(Image.new("RGBA", (2, 2), (*RED, 255)), RED, id="opaque"),
        pytest.param(Image.new("L", (2, 2), 77), (77, 77, 77), id="gray"),
        pytest.param(Image.new("LA", (2, 2), (77, 255)), (77, 77, 77), id="gray-alpha"),
        pytest.param(Image.new("1", (2, 2), 1), (255, 255, 255), id="bits"),
        pytest.param(Image.new("RGB", (2, 2), RED).quantize(4), RED, id="palette"),
        pytest.param(Image.fromarray(np.full((2, 2), 0x8000, np.uint16)), (128, 128, 128), id="gray-16"),
    ],
)
def test_every_mode_becomes_rgb(image: Image.Image, expected: tuple[int, ...]) -> None:
    decoded = decode_image(encode(image))
    assert decoded.mode == "RGB"
    assert decoded.getpixel((1, 1)) == expected


@pytest.mark.parametrize(
    "content",
    [pytest.param(None, id="missing"), b"", b"no image", encode(Image.new("RGB", (9, 9)))[:40]],
    ids=lambda content: f"{len(content)} bytes" if isinstance(content, bytes) else "",
)
def test_an_image_that_cannot_be_opened_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "cat.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"cat\.png"):
        open_image(path)


def test_evaluation_transform_keeps_the_center_and_normalizes() -> None:
    image = Image.new("RGB", (184, 92), (0, 0, 0))
    image.paste((255, 255, 255), (50, 0, 134, 92))  # exactly the center
    statistics = Normalization((0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    pixels = evaluation_transform(normalization=statistics)(image)
    assert pixels.dtype == torch.float32
    assert type(pixels) is torch.Tensor
    torch.testing.assert_close(pixels, torch.tensor([1.0, 3.0, 0.5])[:, None, None].expand(3, 84, 84))


def test_a_seeded_item_is_augmented_repeatably(root: Path) -> None:
    (root / "train/red/a.png").write_bytes(
        encode(Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)))
    )
    images = open_images("folder", root)
    dataset = ImageDataset(images, training_transform(image_size=16, normalization=IMAGENET))
    assert len(dataset) == 6
    torch.manual_seed(3)
    before = torch.get_rng_state()
    image, label = dataset[3, 2**62]
    assert label == 1
    assert image.shape == (3, 16, 16)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(dataset[3, 2**62][0], image)
    assert not torch.equal(dataset[3, 1][0], image)
    assert not torch.equal(dataset[3][0], dataset[3][0])
