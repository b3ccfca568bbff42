"""The search index, one file with the maps of many images: ``lwfm index``.

Letters: N indexed images, C channels of all layers together, l a layer.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from lwfm._common.devices import Accelerator, choose_device
from lwfm._common.progress import progress
from lwfm._common.ranges import check_at_least
from lwfm._common.records import build_record
from lwfm._common.tensor_files import read_tensor_file, tensors_under, write_tensor_file
from lwfm.data.image_sets import Unreadable, skip_unreadable
from lwfm.data.layouts.folders import WITH_ENDING, scan_tree, warn_left_out
from lwfm.data.user_images import white_levels
from lwfm.data.white_levels import WhiteLevels
from lwfm.errors import UserError
from lwfm.model import LWFM, describe_model, rebuild_model
from lwfm.model.default import build_network, network_name
from lwfm.model.encode import encode_images
from lwfm.model.engines import Encoder, parse_engine
from lwfm.nn import global_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_METADATA_KEY = "lwfm_index"
_MODEL, _MAPS = "model.", "maps."
_TOGETHER = 256
"""Images that are checked and rounded at once."""


@dataclass(frozen=True)
class Hit:
    """A similar image.

    Attributes
    ----------
    number : int
        Index of the image.
    similarity : float
        Sum of the head's base and matching terms.
    cosine : float
        Of the mean features, -1 to 1.
    cosine_rank : int
        Its rank by cosine alone, from 1.
    """

    number: int
    similarity: float
    cosine: float
    cosine_rank: int


@dataclass(frozen=True)
class ImageIndex:
    """The network, maps and paths of indexed images.

    Attributes
    ----------
    network : LWFM
        Computed the maps and compares them.
    maps : tuple of Tensor
        [N, C_l, F_l, F_l] for each layer, float16; a search encodes those of its candidates only.
    root : Path
        The folder that was indexed.
    names : tuple of str
        [N], paths below it.
    digests : tuple of str
        [N], of the files' content.
    white : WhiteLevels
        Which value was white in images of more than 8 bits.
    """

    network: LWFM
    maps: tuple[Tensor, ...]
    root: Path
    names: tuple[str, ...]
    digests: tuple[str, ...]
    white: WhiteLevels

    def path(self, number: int) -> Path:
        """Return the path of an image."""
        return self.root / self.names[number]

    def state(self, number: int) -> Literal["same", "changed", "gone"]:
        """Return whether an image's file is still the same, has changed, or is gone."""
        if not self.path(number).is_file():
            return "gone"
        return "same" if content_digest(self.path(number)) == self.digests[number] else "changed"

    def features(self) -> Tensor:
        """Compute the mean features [N, C], of length 1, for the search by cosine."""
        return global_features([layer.float() for layer in self.maps])

    @cached_property
    def _mean_maps(self) -> list[Tensor]:
        """[1, C_l, F_l, F_l] of each layer."""
        return [layer.mean(0, keepdim=True, dtype=torch.float32) for layer in self.maps]

    @torch.inference_mode()
    def nearest(
        self, queries: Sequence[Tensor], features: Tensor, k: int, *, candidates: int
    ) -> list[list[Hit]]:
        """Find the images most similar to each query.

        Parameters
        ----------
        queries : sequence of Tensor
            Maps [Q, C_l, F_l, F_l] of the queries for each layer; candidates that several of them share are
            encoded once.
        features : Tensor
            [N, C], see :meth:`features`.
        k : int
            Number of results.
        candidates : int
            Number of nearest images by cosine that the head ranks; k if that is larger.

        Returns
        -------
        list of list of Hit
            [Q][min(k, N)], the most similar first.
        """
        from usearch.index import search  # the extra `retrieval`

        head, count = self.network.head, min(max(candidates, k), len(self.names))
        found = search(features.numpy(), global_features(queries).numpy(), count, "cos", exact=True)
        places = torch.as_tensor(found.keys.astype("int64")).view(-1, count)  # [Q, count]
        shortlist, listed = torch.unique(places, return_inverse=True)
        maps = zip(self.maps, queries, strict=True)
        images = head.encode([torch.cat([layer[shortlist].float(), query]) for layer, query in maps])
        asked = torch.arange(len(shortlist), len(images)).unsqueeze(1)  # [Q, 1]
        # The similarity of two images is symmetric, and many queries of one class are what the head is
        # fastest at: here the candidates.
        # A head that centers by the task takes the index for it; encoding is linear before the embedding, so
        # that the mean image has the mean position.
        task = None if head.centre == "channels" else head.encode(self._mean_maps)
        terms = head.compare_episodes(images, asked, listed, [0], task=task)
        similarities = (terms.base + terms.matching).squeeze(2)  # [Q, count]
        cosines = 1 - torch.as_tensor(found.distances).view(-1, count)
        return [_ranked(*row, k) for row in zip(places, similarities, cosines, strict=True)]


def _ranked(places: Tensor, similarities: Tensor, cosines: Tensor, k: int) -> list[Hit]:
    """Return the k most similar of the candidates of one query, which are in the order of their cosines."""
    best = similarities.argsort(descending=True, stable=True)[:k].tolist()
    return [Hit(int(places[i]), float(similarities[i]), float(cosines[i]), i + 1) for i in best]


def content_digest(path: Path) -> str:
    """Return the first 32 hexadecimal digits of a file's SHA-256 digest; "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError:
        return ""


def build_index(
    folder: Path,
    *,
    out: Path = Path("index.safetensors"),
    model: str = "auto",
    image_size: int | None = None,
    unreadable: Unreadable = "stop",
    batch_size: int | None = None,
    accelerator: Accelerator = "auto",
    engine: str = "auto",
) -> str:
    """Index the images of a folder and its subfolders, for `lwfm search`.

    Parameters
    ----------
    folder : Path
        Folder of the images.
    out : Path
        The index, a .safetensors file. An existing file is replaced.
    model : str
        The network: auto (the best one that needs no download), a file of `lwfm train`, or the name of a
        backbone with ImageNet weights (resnet18, timm:NAME).
    image_size : int, optional
        Side in pixels to which images are brought before a backbone reads them, if not its own.
    unreadable : str
        stop at an image that cannot be decoded, or skip it with a warning.
    batch_size : int, optional
        Images that pass the network together; by default as many as are fastest.
    accelerator : str
        Where to compute: auto takes a GPU when there is one.
    engine : str
        What runs the network: torch, onnxruntime (pip install 'lwfm[fast]') or auto: ONNX Runtime on a CPU,
        if it is installed and the images are many. Execution providers of ONNX Runtime follow a colon:
        onnxruntime:CUDAExecutionProvider.

    Returns
    -------
    str
        A line about the index, for the user.

    Raises
    ------
    UserError
        For a missing or empty folder, an image that cannot be read (naming it), a file that cannot be
        written, and options out of range.
    """
    check_at_least(1, batch_size=1 if batch_size is None else batch_size)
    parse_engine(engine)
    if out.suffix != ".safetensors":
        raise UserError(f"the index {out} must have the suffix .safetensors")
    paths = _images_below(folder, unreadable)
    network = build_network(model, image_size).to(choose_device(accelerator))
    digests: list[str] = []
    left_out: set[int] = set()

    def leave_out(number: int, error: UserError) -> None:
        skip_unreadable(error, unreadable)
        left_out.add(number)

    white = white_levels(paths)
    encoder = Encoder(network, engine)
    encoder.expect(len(paths))
    shown = _digested(progress(paths, "indexing", "image"), digests)
    batches = [
        [layer.half().cpu() for layer in maps]
        for maps in encode_images(
            encoder, shown, batch_size, together=_TOGETHER, white=white, unreadable=leave_out
        )
    ]
    if not batches:
        raise UserError(f"none of the {len(paths)} images in {folder} can be read")
    kept = [number for number in range(len(paths)) if number not in left_out]
    description = {
        "model": describe_model(network),
        "root": str(folder.resolve()),
        "names": [paths[number].relative_to(folder).as_posix() for number in kept],
        "digests": [digests[number] for number in kept],
        "white": asdict(white),
    }
    tensors = {f"{_MODEL}{name}": tensor for name, tensor in network.state_dict().items()}
    for layer, parts in enumerate(zip(*batches, strict=True)):
        tensors[f"{_MAPS}{layer}"] = torch.cat(parts)
    write_tensor_file(out, tensors, description, key=_METADATA_KEY)
    return f"{len(kept)} images of {folder} by {network_name(network)} in {out}"


def _images_below(folder: Path, unreadable: Unreadable) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder} to index")
    tree = scan_tree(folder, lambda error: skip_unreadable(error, unreadable))
    if not tree.images:
        raise UserError(f"the folder {folder} holds no image, {WITH_ENDING}")
    warn_left_out(folder, tree.left_out)
    return sorted(folder / name for name in tree.images)


def _digested(paths: Iterable[Path], digests: list[str]) -> Iterator[Path]:
    """Yield the paths, and append the digest of each file to ``digests``."""
    for path in paths:
        digests.append(content_digest(path))
        yield path


@dataclass(frozen=True)
class _Description:
    """What :func:`build_index` writes."""

    model: dict[str, Any]
    root: str
    names: list[str]
    digests: list[str]
    white: dict[str, Any]


def load_index(path: Path) -> ImageIndex:
    """Read an index that :func:`build_index` wrote; UserError for a missing or damaged file."""
    if not path.is_file():
        raise UserError(f"there is no index {path}; write one: lwfm index FOLDER --out {path}")
    description, tensors = read_tensor_file(path, key=_METADATA_KEY, what="index of images")
    weights = tensors_under(_MODEL, tensors)
    try:
        described = build_record(_Description, description, others=True)
        network = rebuild_model(described.model, weights, source=str(path))
        maps = tuple(tensors[f"{_MAPS}{number}"] for number in range(len(network.backbone.layers)))
        network.head.layout.layers(maps, "the indexed maps")
        names, digests = tuple(described.names), tuple(described.digests)
        white = build_record(WhiteLevels, described.white)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a whole index: {error}") from error
    if not len(names) == len(digests) == len(maps[0]):
        raise UserError(f"{path} is not a whole index: {len(names)} names for {len(maps[0])} images")
    return ImageIndex(network, maps, Path(described.root), names, digests, white)
