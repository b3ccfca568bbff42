"""`lwfm index` and `lwfm search`: results, their order, figures, error messages."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from benchmarks.speed.bench_retrieval import METHODS, recalls
from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.model import LWFM, ModelConfig, load_model, save_model
from lwfm.model.encode import encode_images
from lwfm.nn import EncodedMaps, LWFMHead, nearest_class_mean
from lwfm.retrieval.index import ImageIndex, build_index, load_index
from lwfm.retrieval.search import search_index

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("usearch.index")


@pytest.fixture(scope="module")
def place(tiny_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, a network, and their index."""
    place: Path = tmp_path_factory.mktemp("retrieval")
    shutil.copytree(tiny_images / "val", place / "images")
    torch.manual_seed(0)
    save_model(
        LWFM(ModelConfig(backbone="conv4", image_size=24, feature_size=1)), place / "model.safetensors"
    )
    arguments = [
        "index",
        place / "images",
        "--model",
        place / "model.safetensors",
        "--out",
        place / "i.safetensors",
    ]
    assert main([str(argument) for argument in arguments]) == 0
    return place


@pytest.fixture(scope="module")
def index(place: Path) -> ImageIndex:
    return load_index(place / "i.safetensors")


def test_all_images_below_the_folder_are_indexed(place: Path, index: ImageIndex) -> None:
    assert index.root == place / "images"
    assert [index.root / name for name in index.names] == sorted((place / "images").rglob("*.png"))


def test_a_head_that_centers_by_the_task_takes_the_mean_of_the_index(index: ImageIndex) -> None:
    head = LWFMHead(index.network.backbone.layer_dims, feature_size=1, centre="task").eval()
    network = copy.deepcopy(index.network)
    network.head = head
    queries, features = [layer[:3].float() for layer in index.maps], index.features()
    together, alone = (
        replace(index, network=network).nearest([x[:count] for x in queries], features, 4, candidates=9)
        for count in (3, 1)
    )
    assert [hit.number for hit in together[0]] == [hit.number for hit in alone[0]]
    images = head.encode([x.float() for x in index.maps])
    shown = images[[hit.number for hit in alone[0]]]
    terms = head.compare(images[:1], [0], shown, task=images)
    expected = (terms.base + terms.matching)[:, 0]
    torch.testing.assert_close(torch.tensor([hit.similarity for hit in alone[0]]), expected)


@pytest.mark.parametrize("candidates", [100, 7], ids=["all", "seven"])
def test_candidates_by_cosine_are_ranked_by_the_head(place: Path, index: ImageIndex, candidates: int) -> None:
    network = load_model(place / "model.safetensors")
    image = place / "images" / "class-3" / "2.png"
    found = search_index(place / "i.safetensors", image, k=5, candidates=candidates)
    hits = found.hits
    (query,) = encode_images(network, [image], 1)
    maps = [layer.float() for layer in index.maps]
    everything = torch.arange(len(index.names))
    with torch.inference_mode():
        cosines = nearest_class_mean(maps, everything, query)[0]
        terms = network.head.similarities(maps, everything, query)
    similarities = (terms.base + terms.matching)[0]
    near = cosines.argsort(descending=True)[:candidates]
    expected = near[similarities[near].argsort(descending=True)][:5].tolist()
    assert [hit.number for hit in hits] == expected
    assert [hit.similarity for hit in hits] == pytest.approx(similarities[expected].tolist(), abs=1e-5)
    assert [hit.cosine for hit in hits] == pytest.approx(cosines[expected].tolist(), abs=1e-4)
    assert index.path(hits[0].number) == image  # nothing is more similar to an image than itself


@pytest.mark.parametrize(
    ("options", "figure", "lines"),
    [
        (["-k", "6", "--show"], "similar.png", 7),
        (["--k", "6", "--show", "hits.svg"], "hits.svg", 7),
        (["--show", "-k", "2"], "similar.png", 3),
        ([], None, 11),
    ],
    ids=["bare", "named", "bare-first", "no-figure"],
)
def test_search_prints_and_draws(
    place: Path,
    tmp_path: Path,
    options: list[str],
    figure: str | None,
    lines: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    image = place / "images" / "class-0" / "0.png"
    assert main(["search", str(place / "i.safetensors"), str(image), *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == lines
    assert printed[1].endswith(str(image))
    assert [path.name for path in tmp_path.iterdir()] == ([figure] if figure else [])


def test_images_below_the_current_folder_are_named_from_there(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    hits = search_index(place / "i.safetensors", place / "images" / "class-0" / "0.png", k=1)
    assert str(hits).endswith("  images/class-0/0.png")


def test_the_figure_has_a_cell_for_each_image_up_to_a_limit(place: Path) -> None:
    image = place / "images" / "class-0" / "0.png"
    shown = search_index(place / "i.safetensors", image, k=7).figure()
    assert [bool(axes.images) for axes in shown.axes] == [True] * 8 + [False] * 2
    assert shown.axes[0].get_title() == "query\nclass-0/0.png"
    everything = search_index(place / "i.safetensors", image, k=60)
    many = replace(everything, hits=everything.hits * 2)
    assert len(many.figure().axes) == 50


def test_more_hits_than_images(place: Path) -> None:
    assert len(search_index(place / "i.safetensors", place / "images/class-0/0.png", k=99).hits) == 30


def test_images_that_changed_since_are_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = shutil.copytree(place / "images", tmp_path / "images")
    index, figure = tmp_path / "i.safetensors", tmp_path / "hits.png"
    model = ["--model", str(place / "model.safetensors")]
    assert main(["index", str(images), "--out", str(index), *model]) == 0
    query, gone, changed = (images / name for name in ("class-0/0.png", "class-1/3.png", "class-2/4.png"))
    gone.unlink()
    changed.write_bytes(b"no image any more")
    capsys.readouterr()
    assert main(["search", str(index), str(query), "-k", "30", "--show", str(figure)]) == 0
    printed = capsys.readouterr()
    assert "2 of 30 images found are not what was indexed" in printed.err
    for path, state in ((gone, "gone"), (changed, "changed")):
        assert f"{path} ({state})" in printed.err
        assert str(path) in printed.out
    assert f"lwfm index {images} --out {index}" in printed.err
    assert figure.stat().st_size > 10_000


def test_names_that_are_not_utf_8_are_indexed_and_drawn(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    image = tmp_path / "images" / os.fsdecode(b"\xff\xfe.png")
    shutil.copy(place / "images" / "class-0" / "0.png", image)
    index = tmp_path / "i.safetensors"
    build_index(tmp_path / "images", out=index, model=str(place / "model.safetensors"))
    assert load_index(index).path(0) == image
    assert main(["search", str(index), str(image), "--show", str(tmp_path / "hits.png")]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith(r"\udcff\udcfe.png")


def test_images_are_found_in_a_moved_folder(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = shutil.copytree(place / "images", tmp_path / "images")
    index = tmp_path / "i.safetensors"
    build_index(images, out=index, model=str(place / "model.safetensors"))
    moved = images.rename(tmp_path / "moved")
    search = ["search", str(index), str(moved / "class-0" / "0.png"), "-k", "2"]
    assert main(search) == 0
    assert "(gone); if the folder was moved, name its place by --root FOLDER" in capsys.readouterr().err
    assert main([*search, "--root", str(moved)]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines()[1].endswith(str(moved / "class-0" / "0.png"))
    assert main([*search, "--root", str(images)]) == 2
    assert f"there is no folder {images}" in capsys.readouterr().err


def test_unreadable_images_can_be_left_out(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = shutil.copytree(place / "images", tmp_path / "images")
    (images / "class-2" / "bad.png").write_bytes(b"no image")
    words = ["index", str(images), "--out", str(tmp_path / "i.safetensors"), "--unreadable", "skip"]
    assert main([*words, "--model", str(place / "model.safetensors")]) == 0
    printed = capsys.readouterr()
    assert "bad.png" in printed.err
    assert printed.out.startswith("30 images")
    index = load_index(tmp_path / "i.safetensors")
    assert [index.path(i) for i in range(30)] == [
        path for path in sorted(images.rglob("*.png")) if path.name != "bad.png"
    ]
    assert {index.state(i) for i in range(30)} == {"same"}


def test_images_of_more_than_8_bits_are_found_as_their_8_bits(place: Path, tmp_path: Path) -> None:
    """All indexed images decide which value is white, for the image that is looked for too."""
    gray = np.random.default_rng(0).integers(0, 255, (4, 24, 24), dtype=np.uint8)
    gray[0, 0, 0], gray[3] = 255, gray[3] // 16
    for number, pixels in enumerate(gray):
        for name, of_kind in (("deep", pixels.astype(np.uint16) * 257), ("plain", pixels)):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(of_kind).save(tmp_path / name / f"{number}.png")
    hits = []
    for name in ("deep", "plain"):
        index = tmp_path / f"{name}.safetensors"
        build_index(tmp_path / name, out=index, model=str(place / "model.safetensors"))
        hits.append(search_index(index, tmp_path / name / "3.png", k=4).hits)
    assert hits[0] == hits[1]
    assert hits[0][0].number == 3


def test_ctrl_c_leaves_the_old_index(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (place / "i.safetensors").read_bytes()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lwfm.retrieval.index.content_digest", interrupted)
    words = [
        "index",
        place / "images",
        "--model",
        place / "model.safetensors",
        "--out",
        place / "i.safetensors",
    ]
    assert main([str(word) for word in words]) == 130
    assert "stopped" in capsys.readouterr().err
    assert (place / "i.safetensors").read_bytes() == before
    assert not list(place.glob("*.part*"))


def test_a_missing_package_is_named_with_its_extra(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "usearch.index", raising=False)
    monkeypatch.setitem(sys.modules, "usearch", None)  # as if it were not installed
    assert main(["search", str(place / "i.safetensors"), str(place / "images/class-0/0.png")]) == 2
    message = capsys.readouterr().err
    assert "the package usearch is missing" in message
    assert "lwfm[retrieval]" in message


def test_several_queries_find_what_each_finds(index: ImageIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a candidate that they share is encoded once."""
    features, queries = index.features(), [layer[4:9].float() for layer in index.maps]
    single = [index.nearest([x[i : i + 1] for x in queries], features, 3, candidates=7)[0] for i in range(5)]
    encode, encoded = LWFMHead.encode, list[int]()

    def counted(head: LWFMHead, maps: Any) -> EncodedMaps:
        images = encode(head, maps)
        encoded.append(len(images))
        return images

    monkeypatch.setattr(LWFMHead, "encode", counted)
    together = index.nearest(queries, features, 3, candidates=7)
    for hits, expected in zip(together, single, strict=True):
        assert [(hit.number, hit.cosine_rank) for hit in hits] == [
            (hit.number, hit.cosine_rank) for hit in expected
        ]
        for name in ("similarity", "cosine"):
            values = [[getattr(hit, name) for hit in each] for each in (hits, expected)]
            assert values[0] == pytest.approx(values[1], abs=1e-5)
    assert len(encoded) == 1
    assert encoded[0] <= len(index.names) + 5  # not 5 * 7 candidates and 5 queries


def test_recall_is_that_of_the_other_images(index: ImageIndex) -> None:
    found = recalls(index, [1, 29], candidates=29)
    assert all(found[method, 29] == [1.0] * 30 for method in METHODS)  # all others are among them
    features = index.features()
    cosines = (features @ features.T).fill_diagonal_(-2)
    classes = [name.split("/")[0] for name in index.names]
    expected = [
        float(classes[int(row.argmax())] == label) for row, label in zip(cosines, classes, strict=True)
    ]
    assert found["cosine", 1] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "nowhere"], "nowhere"),
        (["index", "empty"], "holds no image"),
        (["index", "damaged"], "bad.png"),
        (["search", "nowhere.safetensors", "images/class-0/0.png"], "nowhere.safetensors"),
        (["search", "model.safetensors", "images/class-0/0.png"], "no index of images"),
        (["search", "i.safetensors", "nowhere.png"], "nowhere.png"),
        (["search", "i.safetensors", "images/class-0/0.png", "--k", "0"], "k must be"),
        (["search", "i.safetensors", "images/class-0/0.png", "--show", "hits.doc"], "hits.doc"),
        (["index", "images", "--batch_size", "0"], "batch_size"),
        (["index", "images", "--out", "index.txt"], ".safetensors"),
    ],
    ids=[
        "no-folder",
        "empty",
        "damaged",
        "no-index",
        "a-model",
        "no-image",
        "no-hits",
        "suffix",
        "batch",
        "index-suffix",
    ],
)
def test_errors_of_the_user_are_explained(
    place: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    for name in ("empty", "damaged"):
        (place / name).mkdir(exist_ok=True)
    (place / "damaged" / "bad.png").write_bytes(b"no image")
    if arguments[0] == "index":
        arguments = ["index", "--model", "model.safetensors", "--out", "other.safetensors", *arguments[1:]]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (place / "other.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("names", 3), ("digests", [None]), ("root", None), ("white", []), ("model", 0.5), ("maps", "nan")],
)
def test_a_damaged_index_is_named(place: Path, tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "damaged.safetensors"
    with safetensors.safe_open(place / "i.safetensors", framework="pt") as file:
        description = json.loads(file.metadata()["lwfm_index"])
    tensors = safetensors.torch.load_file(place / "i.safetensors")
    if name == "maps":
        tensors["maps.0"][0] = float("nan")
    else:
        description[name] = value
    safetensors.torch.save_file(tensors, path, metadata={"lwfm_index": json.dumps(description)})
    with pytest.raises(UserError, match=r"damaged\.safetensors is not a whole index"):
        search_index(path, place / "images" / "class-0" / "0.png")


def test_a_network_that_computes_nan_is_refused() -> None:
    network = LWFM(ModelConfig(backbone="conv4", image_size=24, feature_size=1)).eval()
    with torch.no_grad():
        next(network.parameters()).fill_(1e38)
    with pytest.raises(UserError, match="computes NaN or huge values"):
        list(encode_images(network, [np.full((24, 24, 3), 200, np.uint8)], 1))
