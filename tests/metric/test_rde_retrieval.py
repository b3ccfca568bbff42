"""The retriever: search, added classes, other distances and losses, and the commands."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity, LpDistance
from pytorch_metric_learning.losses import CrossBatchMemory, MultiSimilarityLoss, ProxyAnchorLoss
from pytorch_metric_learning.miners import MultiSimilarityMiner
from sklearn.base import clone

from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import RDERetriever
from lwfm.metric.data import pictures
from lwfm.metric.data.pictures import encode_maps
from lwfm.metric.scores import rank_all, retrieval_scores
from lwfm.metric.systems import rde_retrieval
from lwfm.model import LWFM, ModelConfig, save_model

if TYPE_CHECKING:
    from collections.abc import Callable
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


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array(["new", "new"]), "the labels must be numbers, as those of fit, not"),
        (np.array([7]), "2 rows need as many labels"),
        (np.array([[7, 7]]), "2 rows need as many labels"),
    ],
    ids=["text", "few", "shape"],
)
def test_added_labels_are_checked_before_anything_is_changed(
    fitted: RDERetriever, labels: np.ndarray, message: str
) -> None:
    retriever = clone(fitted).fit(make_maps(), LABELS)
    with pytest.raises(UserError, match=message):
        retriever.add(make_maps(3)[:2], labels)
    with pytest.raises(UserError, match="rows have shape"):
        retriever.add(make_maps(3)[:2, :8], np.array([7, 7]))
    assert retriever.classes_.tolist() == [0, 1, 2, 3, 4]
    assert len(retriever.names_) == len(retriever.decision_.references) == 40
    np.testing.assert_array_equal(retriever.predict(make_maps(1)), fitted.predict(make_maps(1)))


def test_labels_are_counted_before_images_are_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rde_retrieval, "encode_maps", lambda *_: pytest.fail("images were encoded first"))
    with pytest.raises(UserError, match="2 rows need as many labels, not \\[3\\]"):
        RDERetriever().fit(["a.png", "b.png"], [0, 1, 0])


def test_names_follow_the_images(conv4: Path, tiny_images: Path, tmp_path: Path) -> None:
    paths = sorted((tiny_images / "val").glob("*/*.png"))
    labels = np.array([path.parent.name for path in paths])
    retriever = RDERetriever(backbone=str(conv4), steps=1, dim=8).fit(paths[:12], labels[:12])
    retriever.add(paths[12:18], labels[12:18])
    assert retriever.names_ == tuple(str(path.resolve()) for path in paths[:18])
    retriever.save(tmp_path / "r.safetensors")
    assert RDERetriever.load(tmp_path / "r.safetensors").names_ == retriever.names_
    retriever.fit(paths[:12], labels[:12])
    assert len(retriever.names_) == 12


def test_a_model_fitted_on_maps_answers_with_numbers(conv4: Path, tiny_images: Path, tmp_path: Path) -> None:
    paths = sorted((tiny_images / "val").glob("*/*.png"))
    retriever = RDERetriever(backbone=str(conv4), steps=1, dim=8)
    maps = encode_maps(str(conv4), paths[:12])
    retriever.fit(maps, np.arange(12) // 6).save(tmp_path / "r.safetensors")
    out, figure = tmp_path / "hits.csv", tmp_path / "hits.png"
    words = ["metric", "predict", str(tmp_path / "r.safetensors"), str(paths[3])]
    assert main([*words, "--out", str(out), "--figure", str(figure)]) == 0
    assert next(csv.DictReader(out.open()))["image"] == "3"


def test_the_backbone_computes_where_it_is_told(monkeypatch: pytest.MonkeyPatch, conv4: Path) -> None:
    asked: list[str] = []
    devices: list[str] = []

    def choose(accelerator: str) -> torch.device:
        asked.append(accelerator)
        return torch.device("meta")

    def encode(network: LWFM, _images: object, _batch: int) -> list[list[torch.Tensor]]:
        devices.extend(parameter.device.type for parameter in network.parameters())
        return [[torch.zeros(2, 64, 1, 1)]]

    monkeypatch.setattr(pictures, "choose_device", choose)
    monkeypatch.setattr(pictures, "encode_images", encode)
    retriever = RDERetriever(backbone=str(conv4), accelerator="gpu")
    assert retriever._inputs(["a.png", "b.png"]).device.type == "cpu"
    assert asked == ["gpu"]
    assert set(devices) == {"meta"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: ProxyAnchorLoss(5, 16),
        lambda: CrossBatchMemory(MultiSimilarityLoss(), embedding_size=16, memory_size=64),
    ],
    ids=["weights", "memory"],
)
def test_fits_do_not_share_the_state_of_a_loss(make: Callable[[], torch.nn.Module]) -> None:
    loss = make()
    before = {name: tensor.clone() for name, tensor in loss.state_dict().items()}
    retriever = RDERetriever(loss=loss, steps=3, dim=16)
    first = retriever.fit(make_maps(), LABELS).transform(make_maps(1))
    np.testing.assert_array_equal(retriever.fit(make_maps(), LABELS).transform(make_maps(1)), first)
    assert retriever.loss is loss
    for name, tensor in loss.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 1, not 0"),
        ({"k": -1}, "k must be a whole number of at least 1, not -1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0, not nan"),
        ({"theta": float("nan")}, "theta must be a number of at least 0, not nan"),
        ({"form": "mean"}, "form must be one of product, sum"),
        ({"distance": "euclid"}, "distance must be rde, spm or a module"),
        ({"loss": "arcface"}, "loss must be one of contrastive, triplet, cross_entropy or a module"),
        ({"miner": MultiSimilarityMiner()}, "a miner needs a loss of pytorch-metric-learning"),
        (
            {"classes_per_batch": 1, "images_per_class": 1},
            "classes_per_batch times images_per_class must be at least 2",
        ),
    ],
    ids=["steps", "k", "learning-rate", "theta", "form", "distance", "loss", "miner", "batch"],
)
def test_wrong_parameters_are_refused_before_training(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RDERetriever(**options).fit(make_maps(), LABELS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "option", ["distance: spm", "theta: 0", "margin: 2", "loss: triplet", "seed: 1", "k: 3"]
)
def test_an_evaluation_refuses_options_that_it_sets_or_ignores(
    option: str, tiny_images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["metric", "evaluate", "rde_retrieval", "--root", str(tiny_images), "--options", f"{{{option}}}"]
    assert main(words) == 2
    name = option.split(":", maxsplit=1)[0]
    assert f"{name} is " in capsys.readouterr().err


def test_validation_without_pairs_leaves_the_parameters() -> None:
    codes = np.repeat(np.arange(3), 2)  # a quarter of the images: often one, or two of different classes
    base = RDERetriever(steps=1, dim=8, classes_per_batch=2)
    for seed in range(6):
        base.set_params(seed=seed)
        grid = {"theta": (0.0, 0.3)}
        chosen = rde_retrieval._choose(base, grid, torch.rand(6, 8, 2, 2), codes)
        assert chosen.theta in (base.theta, 0.0, 0.3)


def test_no_pair_of_one_class_is_refused() -> None:
    with pytest.raises(UserError, match="no two images have the same class"):
        retrieval_scores(np.array([[1, 2], [0, 2], [0, 1]]), np.arange(3))


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
    assert main(["metric", "predict", str(model), str(query.parent), "--out", str(out)]) == 0
    queries = {row["query"] for row in csv.DictReader(out.open())}
    assert queries == {str(path) for path in query.parent.iterdir()}


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
