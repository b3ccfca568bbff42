"""Several ways and heads from one pass: each is what an evaluation of its own gives."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, get_args

import pytest
import torch

from lwfm.data import open_images
from lwfm.errors import UserError
from lwfm.evaluation import evaluate
from lwfm.evaluation.cached_maps import compute_maps
from lwfm.evaluation.comparison import compare
from lwfm.evaluation.heads import BaselineName, HeadOptions, make_heads
from lwfm.evaluation.methods import HeadOnMaps
from lwfm.model import LWFM, ModelConfig, save_model
from lwfm.nn import ClassLists
from lwfm.nn.baselines import BASELINES, PairedPositions

if TYPE_CHECKING:
    from pathlib import Path

    from lwfm.evaluation.results import EvaluationResult

MODEL = ModelConfig(backbone="conv4", image_size=32, feature_size=2)
ALONE: dict[str, HeadOptions] = {
    "all pairs": {"top_k": None, "layer_reduction": "mean"},
    "merged": {"merge_shots": True, "top_k": None},
    "no LWE": {"attention_temperature": None},
    "no SPM": {"matching_weight": 0.0},
    "cool": {"temperature": 1.0, "matching_weight": 3.0, "attention_temperature": 0.5},
}
"""Heads without any learned parameter more than the network's."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_images: Path) -> Path:
    torch.manual_seed(1)
    images = open_images("folder", tiny_images, "test")
    path: Path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(LWFM(MODEL, normalization=images.normalization), path)
    return path


def _evaluate(root: Path, **options: Any) -> EvaluationResult:
    settings: dict[str, Any] = {"queries": 3, "episodes": 10, "accelerator": "cpu", "data": "folder"}
    return evaluate(root=root, **(settings | options))


def _network(**options: Any) -> LWFM:
    torch.manual_seed(1)
    return LWFM(dataclasses.replace(MODEL, **options)).eval()


def test_several_ways_are_several_evaluations(tiny_images: Path, checkpoint: Path) -> None:
    together = _evaluate(tiny_images, checkpoint=checkpoint, way=[3, 6], shot=[1, 2])
    apart = [_evaluate(tiny_images, checkpoint=checkpoint, way=way, shot=[1, 2]) for way in (3, 6)]
    assert together.methods == apart[0].methods + apart[1].methods
    assert together.of("lwfm", 2, way=6) == apart[1].of("lwfm", 2)
    with pytest.raises(KeyError):
        together.of("lwfm", 2)  # of which way?


@pytest.mark.parametrize("stored", [False, True], ids=["encoded", "stored-maps"])
def test_several_heads_are_several_networks(
    tiny_images: Path, checkpoint: Path, tmp_path: Path, stored: bool
) -> None:
    maps = tmp_path if stored else None
    together = _evaluate(tiny_images, checkpoint=checkpoint, shot=2, heads=ALONE, maps=maps)
    answers = set()
    for name, options in ALONE.items():
        plain: dict[str, Any] = dict(options)
        torch.manual_seed(1)
        network = LWFM(
            dataclasses.replace(MODEL, **plain),
            normalization=open_images("folder", tiny_images).normalization,
        )
        save_model(network, tmp_path / f"{name}.safetensors")
        alone = _evaluate(tiny_images, checkpoint=tmp_path / f"{name}.safetensors", shot=2)
        assert together.of(name, 2).episode_accuracy == alone.of("lwfm", 2).episode_accuracy
        answers.add(str(together.of(name, 2).confusion))
    assert len(answers) == len(ALONE)  # else nothing was compared
    plain_result = _evaluate(tiny_images, checkpoint=checkpoint, shot=2)
    assert together.methods[: len(plain_result.methods)] == plain_result.methods


def test_other_layers_and_sizes_come_from_the_same_pass(tiny_images: Path) -> None:
    network = _network()
    options: HeadOptions = {"layers": [2, 4], "feature_size": [4, 1], "embedding": False}
    heads = make_heads(network, {"finer": options, "last": {"layers": [4]}})
    images = open_images("folder", tiny_images, "test")
    maps = compute_maps(heads.encoder, images, range(12)).select(range(12))
    expected = _network(layers=(2, 4), feature_size=(4, 1), embedding=False)
    expected.load_state_dict(
        {name: x for name, x in network.state_dict().items() if "embeddings" not in name}
    )
    finer, last = heads.others["finer"], heads.others["last"]
    assert isinstance(finer, HeadOnMaps)
    assert isinstance(last, HeadOnMaps)
    reference = compute_maps(expected, images, range(12)).select(range(12))
    for ours, theirs in zip(finer.read(maps), reference, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    own = compute_maps(network, images, range(12)).select(range(12))
    for ours, theirs in zip(heads.own.read(maps), own, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(last.read(maps)[0], own[1])
    learned = network.head.embeddings[1].state_dict()
    torch.testing.assert_close(last.head.embeddings[0].state_dict(), learned)


def test_a_layer_at_several_sides_has_the_embedding_of_each() -> None:
    network = _network(layers=(3, 4, 4), feature_size=(2, 1, 2))
    head = make_heads(network, {"same": {"top_k": None}, "last": {"layers": [4], "feature_size": 2}}).others
    for name, places in (("same", (0, 1, 2)), ("last", (2,))):
        method = head[name]
        assert isinstance(method, HeadOnMaps)
        for embedding, place in zip(method.head.embeddings, places, strict=True):
            torch.testing.assert_close(
                embedding.state_dict(), network.head.embeddings[place].state_dict(), rtol=0, atol=0
            )
    with pytest.raises(UserError, match="head twice: layers are repeated only with another feature_size"):
        make_heads(network, {"twice": {"layers": [4, 4], "feature_size": 1}})


def test_results_do_not_depend_on_the_other_heads(tiny_images: Path, checkpoint: Path) -> None:
    """Sides that are no multiples of one another, and a layer that no other head reads."""
    options: dict[str, HeadOptions] = {
        "sides": {"feature_size": 3, "embedding": False},
        "layers": {"layers": [2, 4], "feature_size": 5, "embedding": False},
        "DN4": {"baseline": "local_descriptors", "feature_size": 4},
    }
    together = _evaluate(tiny_images, checkpoint=checkpoint, shot=2, heads=options)
    for name, each in options.items():
        alone = _evaluate(tiny_images, checkpoint=checkpoint, shot=2, heads={name: each})
        for method in alone.methods:
            assert method.episode_accuracy == together.of(method.method, 2).episode_accuracy, method.method


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"topk": 3}, "head odd: unknown option topk; a head can set layers"),
        ({"top_k": 5}, "head odd: top_k must be 1 to 4"),
        ({"layers": [4, 3]}, "head odd: layers must ascend"),
        ({"layers": []}, "head odd: layers must ascend"),
        ({"layers": [2, 4]}, "no learned embedding of layer 2: set embedding to false"),
        ({"feature_size": [2]}, "head odd: feature_size must be one number, or one for each of 2 layers"),
        ({"temperature": 0.0}, "head odd: temperature must be positive"),
        ({"ridge": 2.0}, "head odd: unknown option ridge without a baseline; a head can set layers"),
        ({"baseline": ["knn"]}, "head odd: baseline must be one of class_means, logistic_regression"),
        ({"baseline": "class_means", "ridge": 2.0}, "class_means has no option ridge; it has layers"),
        ({"baseline": "local_descriptors", "neighbors": 0}, "head odd: neighbors must be a whole number of"),
        ({"baseline": "class_means", "layers": [5]}, "end at most with the network's last"),
        ({"baseline": "class_means", "feature_size": [2, 1]}, "layers of one feature_size"),
    ],
    ids=[
        "unknown", "top_k", "descending", "no-layers", "embedding", "sizes", "temperature", "not-of-heads",
        "no-baseline", "not-of-the-baseline", "neighbors", "layers-of-a-baseline", "sizes-of-a-baseline",
    ],
)  # fmt: skip
def test_heads_that_cannot_be(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_heads(_network(), {"odd": options})


def test_baselines_read_the_same_maps(tiny_images: Path, checkpoint: Path) -> None:
    heads: dict[str, HeadOptions] = {name: {"baseline": name} for name in BASELINES}  # type: ignore[typeddict-item]
    both: HeadOptions = {
        "baseline": "paired_positions",
        "pairing": "both",
        "layers": [2, 4],
        "feature_size": 2,
    }
    result = _evaluate(tiny_images, checkpoint=checkpoint, shot=2, heads=heads | {"both ways": both})
    answers = {str(result.of(name, 2).confusion) for name in [*heads, "both ways"]}
    assert len(answers) > len(heads) // 2
    assert get_args(BaselineName) == tuple(BASELINES)
    built = make_heads(_network(), {"both ways": both}).others["both ways"]
    maps = [torch.rand(12, C, 2, 2) for C in (64, 64, 64)]
    images = built.encode(maps)
    lists = torch.randint(12, (3, 4)), torch.randint(12, (3, 5))
    scores = built.scores(images, *lists, ClassLists([0, 1, 1, 0]))["both ways"]
    positions = torch.cat([maps[0], maps[2]], dim=1).flatten(2).transpose(1, 2)
    alone = PairedPositions(pairing="both")
    for episode, (support, query) in enumerate(zip(*lists, strict=True)):
        expected = alone(positions[support], [0, 1, 1, 0], positions[query])
        torch.testing.assert_close(scores[episode], expected)


def test_layers_beyond_the_network_are_refused() -> None:
    with pytest.raises(UserError, match=r"end at most with the network's last, 3, not \[4\]"):
        make_heads(_network(layers=(2, 3)), {"odd": {"layers": [4], "embedding": False}})


def test_compare_pairs_further_heads(tiny_images: Path, checkpoint: Path, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.json", "b.json")]
    for file, ways in zip(files, ([3, 5], [5, 7]), strict=True):
        _evaluate(tiny_images, checkpoint=checkpoint, way=ways, heads=ALONE, out=file)
    rows = compare(*files).rows
    assert {(row.way, row.shot) for row in rows} == {(5, 1)}
    assert {row.method for row in rows} > set(ALONE)
    assert all(row.test.difference == 0 for row in rows)
