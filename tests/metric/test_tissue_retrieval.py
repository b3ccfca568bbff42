"""The retriever of tissue: its loss, search, files, and the commands."""

from __future__ import annotations

import csv
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from sklearn.base import clone

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import TissueRetriever

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.repeat(["a", "b", "c", "d"], 10)
SMALL: dict[str, Any] = {"steps": 15, "dim": 16, "images_per_class": 4, "accelerator": "cpu"}


def make_maps(seed: int = 0) -> np.ndarray:
    """Draw maps of four classes, each strong in two channels of its own."""
    maps = np.random.default_rng(seed).random((40, 16, 4, 4), dtype=np.float32)
    for number, label in enumerate("abcd"):
        maps[label == LABELS, 2 * number : 2 * number + 2] += 0.8
    return maps


@pytest.fixture(scope="module")
def fitted() -> TissueRetriever:
    return TissueRetriever(**SMALL).fit(make_maps(), LABELS)


def test_cases_of_the_class_are_found(fitted: TissueRetriever) -> None:
    assert fitted.score(make_maps(1), LABELS) > 0.9
    np.testing.assert_allclose(np.linalg.norm(fitted.transform(make_maps(1)), axis=1), 1, rtol=1e-5)


def test_the_loss_is_that_of_the_definition() -> None:
    torch.manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(12, 5), dim=1)
    labels = torch.arange(12) % 3
    alpha, beta, base, epsilon = 2.0, 5.0, 0.5, 0.2
    losses = []
    for i in range(12):
        same = [float(rows[i] @ rows[j]) for j in range(12) if j != i and labels[j] == labels[i]]
        other = [float(rows[i] @ rows[j]) for j in range(12) if labels[j] != labels[i]]
        near = np.array([s for s in same if s < max(other) + epsilon])
        far = np.array([s for s in other if s > min(same) - epsilon])
        losses.append(
            np.log1p(np.exp(-alpha * (near - base)).sum()) / alpha
            + np.log1p(np.exp(beta * (far - base)).sum()) / beta
        )
    module = TissueRetriever()._module(torch.nn.Identity(), 3)
    assert module.loss(rows, labels).item() == pytest.approx(np.mean(losses), rel=1e-5)
    theirs = MultiSimilarityLoss(alpha, beta, base)(rows, labels, MultiSimilarityMiner(epsilon)(rows, labels))
    assert module.loss(rows, labels).item() == theirs.item()


@pytest.mark.parametrize("loss", ["contrastive", "cross_entropy"])
def test_other_losses_train_without_mask(loss: Any) -> None:
    retriever = TissueRetriever(loss=loss, mask=False, **SMALL).fit(make_maps(), LABELS)
    assert retriever.score(make_maps(1), LABELS) > 0.8


@pytest.mark.parametrize("distance", ["euclid", "spm"])
def test_a_saved_retriever_finds_the_same(distance: Any, tmp_path: Path) -> None:
    retriever = TissueRetriever(distance=distance, **{**SMALL, "steps": 2}).fit(make_maps(), LABELS)
    retriever.save(tmp_path / "t.safetensors")
    loaded = TissueRetriever.load(tmp_path / "t.safetensors")
    for ours, theirs in zip(loaded.search(make_maps(1)), retriever.search(make_maps(1)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_same_seed_gives_the_same_bits(fitted: TissueRetriever) -> None:
    again = clone(fitted).fit(make_maps(), LABELS)
    np.testing.assert_array_equal(again.transform(make_maps(1)), fitted.transform(make_maps(1)))


def test_rankings_of_a_gallery_and_without_oneself_are_those_of_distances(fitted: TissueRetriever) -> None:
    queries, gallery = fitted.encode(make_maps(1)), fitted.indexed()
    distances = torch.cdist(queries.descriptors, gallery.descriptors)
    order = torch.as_tensor(fitted.ranking(queries, gallery))
    assert order.shape == (40, 40)
    assert distances.gather(1, order).diff(dim=1).min() > -1e-5
    alone = fitted.ranking(queries)
    assert alone.shape == (40, 39)
    assert not (alone == np.arange(40)[:, None]).any()
    assert (np.sort(alone) == [[j for j in range(40) if j != i] for i in range(40)]).all()


def test_spm_ranks_the_candidates_alone() -> None:
    retriever = TissueRetriever(distance="spm", candidates=5, **{**SMALL, "steps": 2}).fit(
        make_maps(), LABELS
    )
    queries, gallery = retriever.encode(make_maps(1)), retriever.indexed()
    matched = retriever.ranking(queries, gallery)
    retriever.set_params(distance="euclid")
    plain = retriever.ranking(queries, gallery)
    np.testing.assert_array_equal(matched[:, 5:], plain[:, 5:])
    np.testing.assert_array_equal(np.sort(matched[:, :5]), np.sort(plain[:, :5]))
    assert (matched[:, :5] != plain[:, :5]).any()


def test_the_published_trunk_trains_from_pixels() -> None:
    images = torch.rand(4, 3, 32, 32)
    options = {**SMALL, "steps": 1, "images_per_class": 2, "image_size": 32}
    retriever = TissueRetriever(trunk="se_resnet50", **options).fit(images, ["a", "a", "b", "b"])
    assert retriever.transform(images).shape == (4, 16)
    assert retriever.search(images, 1).indices[:, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "arcface"}, "loss must be one of multi_similarity, contrastive, cross_entropy"),
        ({"mask": 1}, "mask must be true or false"),
        ({"image_size": 100}, "image_size must be a multiple of 32"),
        ({"epsilon": -1}, "epsilon must be a number of at least 0"),
        ({"distance": "cosine"}, "distance must be euclid, spm or a module"),
        ({"classes_per_batch": 1, "images_per_class": 1}, "must be at least 2"),
    ],
    ids=["loss", "mask", "size", "epsilon", "distance", "batch"],
)
def test_wrong_parameters_are_refused_before_training(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TissueRetriever(**options).fit(make_maps(), LABELS)


@pytest.mark.parametrize("shape", [(40, 16), (40, 15, 4, 4)], ids=["rows", "channels"])
def test_wrong_inputs_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"maps must be|image"):
        TissueRetriever().fit(np.zeros(shape, np.float32), LABELS)


@pytest.fixture(scope="module")
def archive(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip of the four classes of `val`, for training and for testing."""
    path: Path = tmp_path_factory.mktemp("tissue") / "tiles.zip"
    with zipfile.ZipFile(path, "w") as members:
        for label in range(4):
            for file in sorted((tiny_images / "val" / f"class-{label}").iterdir()):
                split = "test" if file.stem in "45" else "train"
                members.write(file, f"{split}/class-{label}/{file.name}")
    return path


OPTIONS = ["--options", "{steps: 2, dim: 8, images_per_class: 2, image_size: 32, accelerator: cpu}"]


def test_the_evaluation_compares_losses_masks_and_shares(archive: Path, tmp_path: Path) -> None:
    out, figure = tmp_path / "r.json", tmp_path / "r.png"
    words = ["metric", "evaluate", "tissue_retrieval", "--root", str(archive), "--seeds", "1", *OPTIONS]
    assert main([*words, "--out", str(out), "--figure", str(figure)]) == 0
    content = json.loads(out.read_text())
    rows: dict[str, list[str]] = {}
    for row in content["rows"]:
        rows.setdefault(row["protocol"], []).append(row["name"])
        assert {"Recall@1", "class-mean Recall@1", "leave-one-out Recall@1", "mAP"} <= set(row["scores"])
    assert [len(names) for names in rows.values()] == [5, 5, 7]
    assert "8 of them for testing" in content["data"]
    assert figure.stat().st_size > 1000


def test_the_commands_fit_and_draw_hits_from_a_zip(archive: Path, tiny_images: Path, tmp_path: Path) -> None:
    model, out, figure = tmp_path / "m.safetensors", tmp_path / "h.csv", tmp_path / "h.png"
    root = ["--root", str(archive), "--out", str(model)]
    assert main(["metric", "fit", "tissue_retrieval", *root, *OPTIONS]) == 0
    query = tiny_images / "val" / "class-1" / "2.png"
    words = ["metric", "predict", str(model), str(query), "--out", str(out), "--figure", str(figure)]
    assert main(words) == 0
    first = next(csv.DictReader(out.open()))
    assert first["image"] == f"{archive.resolve()}/train/class-1/2.png"
    assert first["class"] == "class-1"
    with_images = figure.stat().st_size
    archive_away = archive.rename(tmp_path / "away.zip")
    assert main(words) == 0
    assert figure.stat().st_size < with_images
    archive_away.rename(archive)


def test_the_tiles_of_a_slide_are_named_and_drawn(archive: Path, tiny_images: Path, tmp_path: Path) -> None:
    model, out, figure = tmp_path / "m.safetensors", tmp_path / "s.csv", tmp_path / "s.png"
    root = ["--root", str(archive), "--out", str(model)]
    assert main(["metric", "fit", "tissue_retrieval", *root, *OPTIONS]) == 0
    slide = Image.new("RGB", (72, 48), "white")
    for number in range(2):
        slide.paste(Image.open(tiny_images / "val" / f"class-{number}" / "0.png"), (24 * number, 0))
    slide.save(tmp_path / "slide.png")
    words = ["metric", "predict", str(model), str(tmp_path / "slide.png"), "--out", str(out)]
    assert main([*words, "--figure", str(figure), "--options", "{tile: 24}"]) == 0
    rows = list(csv.DictReader(out.open()))
    assert [(row["x"], row["y"]) for row in rows] == [("0", "0"), ("24", "0")]
    nearest = [row["nearest_case"].removeprefix(f"{archive.resolve()}/") for row in rows]
    assert nearest == ["train/class-0/0.png", "train/class-1/0.png"]
    assert figure.stat().st_size > 1000
