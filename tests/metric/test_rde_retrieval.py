"""The retriever: search, added classes, other distances and losses, and the commands."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import MultiSimilarityLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from sklearn.base import clone

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import RDERetriever
from lwfm.metric.scores import retrieval_scores
from lwfm.metric.systems.rde_retrieval import rank_all
from lwfm.model import LWFM, ModelConfig, save_model

if TYPE_CHECKING:
    from pathlib import Path

LABELS = np.arange(40) % 5


def make_maps(seed: int = 0) -> np.ndarray:
    """Draw maps of five classes, each strong in two channels of its own."""
    random = np.random.default_rng(seed)
    maps = random.random((40, 16, 3, 3), dtype=np.float32)
    for label in range(5):
        maps[label == LABELS, 2 * label : 2 * label + 2] += 0.8
    return maps


@pytest.fixture(scope="module")
def fitted() -> RDERetriever:
    return RDERetriever(steps=20, classes_per_batch=5, dim=16).fit(make_maps(), LABELS)


def test_images_of_the_class_are_found(fitted: RDERetriever) -> None:
    assert fitted.score(make_maps(1), LABELS) > 0.9
    hits = fitted.search(make_maps(1), k=3)
    assert hits.indices.shape == (40, 3)
    assert (np.diff(hits.distances, axis=1) >= 0).all()


def test_an_added_class_leaves_the_order_of_old_hits(fitted: RDERetriever) -> None:
    queries = make_maps(2)[:10]
    before = fitted.search(queries, k=40).indices
    grown = clone(fitted).fit(make_maps(), LABELS).add(make_maps(3)[:4], np.array([7, 7, 7, 7]))
    after = grown.search(queries, k=44).indices
    for old, new in zip(before, after, strict=True):
        assert new[new < 40].tolist() == old.tolist()
    assert grown.classes_.tolist() == [0, 1, 2, 3, 4, 7]


@pytest.mark.parametrize("distance", ["rde", "spm"])
def test_a_saved_retriever_finds_the_same(distance: str, tmp_path: Path) -> None:
    retriever = RDERetriever(steps=3, dim=16, distance=distance)
    retriever.fit(make_maps(), LABELS).save(tmp_path / "r.safetensors")
    loaded = RDERetriever.load(tmp_path / "r.safetensors")
    for ours, theirs in zip(loaded.search(make_maps(1)), retriever.search(make_maps(1)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_losses_miners_and_distances_of_the_library_are_taken(tmp_path: Path) -> None:
    retriever = RDERetriever(
        loss=MultiSimilarityLoss(),
        miner=MultiSimilarityMiner(),
        distance=CosineSimilarity(),
        steps=10,
        dim=16,
    )
    retriever.fit(make_maps(), LABELS)
    assert retriever.score(make_maps(1), LABELS) > 0.8
    with pytest.raises(UserError, match=r"the parameter distance = .* cannot be written"):
        retriever.save(tmp_path / "r.safetensors")


def test_leaving_oneself_out_is_the_search_without_oneself() -> None:
    torch.manual_seed(0)
    rows, labels = torch.randn(12, 6), np.arange(12) % 3
    order = rank_all(rows, LpDistance(), 12)
    for query in range(12):
        others = [i for i in range(12) if i != query]
        alone = LpDistance()(rows[query][None], rows[others])[0].argsort(stable=True)
        assert order[query].tolist() == [others[i] for i in alone.tolist()]
    assert set(retrieval_scores(order, labels)) == {"mAP", "Recall@1", "Recall@4"}


def test_only_the_candidates_are_ranked_anew() -> None:
    class Reversed(LpDistance):  # type: ignore[misc]  # the library has no types
        def compute_mat(self, query_emb: torch.Tensor, ref_emb: torch.Tensor) -> torch.Tensor:
            distance: torch.Tensor = -super().compute_mat(query_emb, ref_emb)
            return distance

    rows = torch.randn(9, 4)
    plain, ranked = rank_all(rows, LpDistance(), 3), rank_all(rows, Reversed(), 3)
    np.testing.assert_array_equal(ranked[:, :3], plain[:, 2::-1])
    np.testing.assert_array_equal(ranked[:, 3:], plain[:, 3:])


def test_average_precision_is_that_of_the_definition() -> None:
    order = np.array([[1, 2, 3], [0, 2, 3], [3, 0, 1], [0, 2, 1]])
    scores = retrieval_scores(order, np.array([0, 0, 1, 1]))
    assert scores["mAP"] == pytest.approx((1 + 1 + 1 + 1 / 2) / 4)
    assert scores["Recall@1"] == 3 / 4


@pytest.fixture(scope="module")
def conv4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny network that encodes images quickly."""
    torch.manual_seed(0)
    path: Path = tmp_path_factory.mktemp("network") / "conv4.safetensors"
    save_model(LWFM(ModelConfig(backbone="conv4", image_size=24, feature_size=1)), path)
    return path


def test_the_commands_evaluate_fit_and_predict(tiny_images: Path, conv4: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    options = ["--options", f"{{backbone: {conv4}, steps: 2, dim: 8}}"]
    arguments = ["metric", "evaluate", "rde_retrieval", "--root", str(tiny_images), "--seeds", "1", *options]
    assert main([*arguments, "--out", str(result)]) == 0
    content = json.loads(result.read_text())
    assert {row["protocol"] for row in content["rows"]} == {
        "contrastive loss, unseen classes", "triplet loss, unseen classes",
    }  # fmt: skip
    assert "42 of unseen classes" in content["data"]

    model, out, figure = tmp_path / "r.safetensors", tmp_path / "hits.csv", tmp_path / "hits.png"
    root = tiny_images / "val"
    assert main(["metric", "fit", "rde_retrieval", "--root", str(root), "--out", str(model), *options]) == 0
    query = sorted((root / "class-2").iterdir())[0]
    assert (
        main(["metric", "predict", str(model), str(query), "--out", str(out), "--figure", str(figure)]) == 0
    )
    rows = list(csv.DictReader(out.open()))
    assert rows[0]["image"] == str(query.resolve())
    assert float(rows[0]["distance"]) == pytest.approx(0, abs=1e-3)
    assert figure.stat().st_size > 1000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent.zip", "there is no file or folder"),
        (lambda folder: folder, "holds no class folder"),
        (
            lambda folder: (folder / "x.zip").write_bytes(b"PK no") and folder / "x.zip",
            "neither a folder nor",
        ),
    ],
    ids=["absent", "empty", "damaged"],
)
def test_other_data_are_refused(
    make: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(make)
    assert main(["metric", "evaluate", "rde_retrieval", "--root", str(make(tmp_path))]) == 2
    assert message in capsys.readouterr().err
