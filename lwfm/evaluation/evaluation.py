"""Measure accuracy on episodes of unseen classes, beside nearest class mean: ``lwfm evaluate``."""

from __future__ import annotations

import hashlib
import platform
import time
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch

from lwfm._common.devices import Accelerator, choose_device
from lwfm._common.files import atomic_path
from lwfm._common.ranges import check_at_least, check_seed
from lwfm.data import EpisodeSampler, images_needed, open_images
from lwfm.data.image_sets import ClassSplit, DataName, Split, Unreadable, check_emoji_episodes
from lwfm.data.overlap import Overlap, check_unseen
from lwfm.errors import UserError, keeping
from lwfm.evaluation.cached_maps import compute_maps
from lwfm.evaluation.distributed import shared_work
from lwfm.evaluation.episodes import run_episodes
from lwfm.evaluation.heads import HeadOptions, make_heads
from lwfm.evaluation.map_store import MapsDtype, stored_maps
from lwfm.evaluation.methods import METHODS
from lwfm.evaluation.results import EvaluatedData, EvaluatedModel, EvaluationResult, MethodResult
from lwfm.evaluation.scoring import score_methods
from lwfm.model import LWFM, ModelConfig, load_model
from lwfm.model.engines import parse_engine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lwfm.data import ImageSet
    from lwfm.evaluation.cached_maps import CachedMaps
    from lwfm.evaluation.distributed import Share
    from lwfm.evaluation.episodes import Drawn
    from lwfm.evaluation.heads import HeadSet


def evaluate(
    *,
    checkpoint: Path | None = None,
    model: ModelConfig | None = None,
    data: DataName = "emoji",
    root: Path | None = None,
    class_split: ClassSplit | None = None,
    crop: bool = False,
    split: Split = "test",
    way: int | list[int] = 5,
    shot: int | list[int] = 1,
    queries: int = 15,
    episodes: int = 600,
    seed: int = 0,
    heads: dict[str, HeadOptions] | None = None,
    batch_size: int | None = None,
    workers: int = 0,
    accelerator: Accelerator = "auto",
    engine: str = "auto",
    unreadable: Unreadable = "stop",
    overlap: Overlap = "stop",
    maps: Path | None = None,
    maps_dtype: MapsDtype = "float32",
    out: Path | None = None,
) -> EvaluationResult:
    """Measure few-shot accuracy on classes never seen in training.

    Every image passes the backbone once. The same episodes then go, on the cached maps, through
    LWFM-SPM, its base term alone, its matching term alone and nearest class mean (and any further heads),
    so that the methods can be compared episode by episode. Started by `torchrun --nproc-per-node N
    -m lwfm evaluate ...`, the episodes are sharded over N processes, each on its own GPU.

    Parameters
    ----------
    checkpoint : Path, optional
        A model that `lwfm train` wrote (best.safetensors). Without one, a network that was never trained
        here is evaluated: see `model`.
    model : ModelConfig, optional
        The network to evaluate when there is no checkpoint: random weights by default, or
        `--model.weights imagenet`. A checkpoint knows its own, so the two exclude each other.
    data : str
        emoji (bundled with the package), folder (images in root/SPLIT/CLASS/), a benchmark in any of its
        usual layouts, or auto to recognize what root holds; see `lwfm data inspect`.
    root : Path, optional
        The folder that holds the data set, for all but emoji.
    class_split : str, optional
        For CUB: which of its class splits, where its files do not decide it.
    crop : bool
        For CUB: whether images are cropped to their bounding boxes.
    split : str
        Split to evaluate on.
    way : int or list of int
        Classes in an episode; of several numbers each is evaluated.
    shot : int or list of int
        Support images per class; of several numbers each is evaluated, with each number of ways.
    queries : int
        Query images per class.
    episodes : int
        Number of episodes; the interval shrinks with its square root.
    seed : int
        Chooses the episodes, and the random weights of a network without checkpoint.
    heads : dict of str to HeadOptions, optional
        Further heads on the same maps and episodes, by name, each with the options that differ from the
        network's head: any of layers, feature_size, embedding, matching_weight, attention_temperature,
        temperature, top_k, layer_reduction, merge_shots. For example
        `--heads '{all pairs: {top_k: null}, no LWE: {attention_temperature: null}}'`. Or other methods on the
        same maps, such as `{DN4: {baseline: local_descriptors}, LR: {baseline: logistic_regression}}`; see
        lwfm.evaluation.heads.HeadOptions.
    batch_size : int, optional
        Images that pass the backbone together; by default as many as are fastest.
    workers : int
        Processes that decode images; 0 uses threads of this one.
    accelerator : str
        Where to compute: auto takes a GPU when there is one.
    engine : str
        What runs the network: torch, onnxruntime (pip install 'lwfm[fast]') or auto: ONNX Runtime on a CPU,
        if it is installed and the images are many. Execution providers of ONNX Runtime follow a colon:
        onnxruntime:CUDAExecutionProvider.
    unreadable : str
        stop at images that cannot be decoded, or skip them with a warning.
    overlap : str
        stop when the split has training classes of the checkpoint, by their names, or allow it with a
        warning. With split train it is always allowed.
    maps : Path, optional
        Folder that caches the maps of all images of the split: they are used again when backbone, weights
        and images are the same, for any head, shots and episodes. Without it, only the images that occur
        are encoded, and nothing is kept.
    maps_dtype : str
        Precision of the kept maps: float16 takes half the space.
    out : Path, optional
        JSON file for the result. An existing file is replaced.

    Returns
    -------
    EvaluationResult
        Prints as a table.

    Raises
    ------
    UserError
        For options that contradict each other, missing or damaged files, or too few classes or images.
    """
    started = time.monotonic()
    check_at_least(1, episodes=episodes, queries=queries, batch_size=1 if batch_size is None else batch_size)
    parse_engine(engine)
    check_at_least(0, workers=workers)
    check_seed(seed)
    ways, shots = _check_options(checkpoint, model, way, shot, out, heads or {})
    device = choose_device(accelerator)
    images = open_images(data, root, split=split, unreadable=unreadable, class_split=class_split, crop=crop)
    network = open_network(checkpoint, model, images, seed).to(device)
    check_unseen(images, network.classes, overlap)
    head_set = make_heads(network, heads or {})
    check_emoji_episodes(data, shots, queries, "--queries")
    draw = partial(EpisodeSampler, images.labels, queries=queries, episodes=episodes, seed=seed)
    drawn = {(n, k): list(draw(way=n, shot=k, classes=images.classes)) for n, k in product(ways, shots)}
    with shared_work() as share:
        options: _Encoding = {
            "batch_size": batch_size,
            "workers": workers,
            "engine": engine,
            "views": head_set.views,
        }
        cached = _encode(head_set.encoder, images, drawn, share, maps, maps_dtype, options)
        try:
            methods = _answer(head_set, cached, images, drawn, share)
        except ValueError as error:
            source = checkpoint if maps is None else f"the stored maps in {maps}"
            raise UserError(f"{source or 'the network'}: the maps cannot be compared: {error}") from error
    result = EvaluationResult(
        model=_describe_model(network, checkpoint),
        data=_describe_data(images, root, split),
        options={
            "ways": list(ways),
            "shots": list(shots),
            "queries": queries,
            "episodes": episodes,
            "seed": seed,
            "heads": {name: dict(each) for name, each in (heads or {}).items()},
            "batch_size": batch_size,
            "accelerator": accelerator,
            "engine": engine,
            "class_split": class_split,
            "crop": crop,
            "unreadable": unreadable,
            "overlap": overlap,
            "maps_dtype": None if maps is None else maps_dtype,
            "sampling": "classes and images without replacement within an episode, episodes independent",
        },
        versions=_versions(),
        machine={
            "device": str(device),
            "threads": torch.get_num_threads(),
            "processes": share.size,
        },
        seconds=round(time.monotonic() - started, 3),
        methods=tuple(methods),
    )
    if out is not None and share.is_first:
        with keeping(result), atomic_path(out) as temporary:
            temporary.write_text(result.to_json(), encoding="utf-8")
    return result


class _Encoding(TypedDict):
    """How images are encoded."""

    batch_size: int | None
    workers: int
    engine: str
    views: bool


def _encode(
    encoder: LWFM,
    images: ImageSet,
    drawn: Drawn,
    share: Share,
    maps: Path | None,
    maps_dtype: MapsDtype,
    options: _Encoding,
) -> CachedMaps:
    """Return the maps of the images in this process's episodes, or stored ones of all images."""
    if maps is not None:
        return share.rank_zero_first(lambda: stored_maps(encoder, images, maps, dtype=maps_dtype, **options))
    needed = images_needed(episode for each in drawn.values() for episode in share.shard(each))
    return compute_maps(encoder, images, needed, **options, bar=share.is_first)


def _answer(
    heads: HeadSet, cached: CachedMaps, images: ImageSet, drawn: Drawn, share: Share
) -> list[MethodResult]:
    """Run all episodes through all heads, and score them."""
    of_process = {shape: share.shard(each) for shape, each in drawn.items()}
    others = tuple(heads.others.values())
    given = run_episodes(heads.own, cached, of_process, others=others, bar=share.is_first)
    methods: list[MethodResult] = []
    for (way, shot), each in drawn.items():
        labels = torch.as_tensor(images.labels[[episode[way * shot :] for episode in each]])
        answers = share.gather(given[way, shot])
        methods += score_methods(answers, labels, images.classes, way=way, shot=shot)
    return methods


def _check_options(
    checkpoint: Path | None,
    model: ModelConfig | None,
    way: int | list[int],
    shot: int | list[int],
    out: Path | None,
    heads: Mapping[str, HeadOptions],
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Raise UserError for options that cannot work; return the numbers of ways and of shots."""
    ways, shots = _different("way", way), _different("shot", shot)
    if taken := sorted(set(METHODS) & set(heads)):
        raise UserError(f"a head cannot be named {taken[0]}: that is a method of every evaluation")
    if checkpoint is not None and model is not None:
        raise UserError(
            f"the checkpoint {checkpoint} knows its own model: give either a checkpoint or model options"
        )
    if out is not None and Path(out).is_dir():
        raise UserError(f"out must be the name of a file, and {out} is a folder")
    return ways, shots


def _different(name: str, given: int | list[int]) -> tuple[int, ...]:
    numbers = (given,) if isinstance(given, int) else tuple(given)
    if not numbers or len(set(numbers)) != len(numbers):
        raise UserError(f"{name} must be one number or several different ones, not {given}")
    return numbers


def open_network(checkpoint: Path | None, model: ModelConfig | None, images: ImageSet, seed: int) -> LWFM:
    """Load the model of a checkpoint, or build an untrained one.

    Parameters
    ----------
    checkpoint : Path, optional
        A model that `lwfm train` wrote.
    model : ModelConfig, optional
        The network without a checkpoint; by default that of :class:`lwfm.model.ModelConfig`.
    images : ImageSet
        Its channel statistics normalize the images of a network without a checkpoint.
    seed : int
        Of random weights; the state of torch's generator is restored.

    Returns
    -------
    LWFM
        In evaluation mode, on the CPU.

    Raises
    ------
    UserError
        The checkpoint is missing, damaged or of something else, or the network cannot be built.

    Examples
    --------
    >>> from lwfm.data import open_images
    >>> small = ModelConfig(backbone="conv4", image_size=24, feature_size=1)
    >>> network = open_network(None, small, open_images("emoji"), seed=0)
    >>> network.config == small, network.training
    (True, False)
    """
    if checkpoint is not None:
        return load_model(checkpoint)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LWFM(model or ModelConfig(), normalization=images.normalization).eval()


def _describe_model(network: LWFM, checkpoint: Path | None) -> EvaluatedModel:
    """Describe the network by JSON values (lists, not tuples)."""
    config = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(network.config).items()}
    normalization = network.normalization
    return {
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "sha256": None if checkpoint is None else hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest(),
        "config": config,
        "normalization": None
        if normalization is None
        else {"mean": list(normalization.mean), "std": list(normalization.std)},
    }


def _describe_data(images: ImageSet, root: Path | None, split: Split) -> EvaluatedData:
    return {
        "name": images.name,
        "layout": images.layout,
        "root": None if root is None else str(root),
        "split": split,
        "fingerprint": images.fingerprint,
        "images": len(images.labels),
        "classes": list(images.classes),
    }


def _versions() -> dict[str, str]:
    packages = ("lwfm", "torch", "torchvision", "timm")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
