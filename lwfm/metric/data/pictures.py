"""Images in folders or zips of class folders, with the classes that training must not see, and their maps."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lwfm._common.devices import choose_device
from lwfm._common.progress import progress
from lwfm.data import evaluation_transform
from lwfm.data.layouts.folders import class_folders, read_folder, split_folders
from lwfm.data.normalization import Normalization
from lwfm.data.user_images import to_rgb
from lwfm.errors import UserError
from lwfm.metric.data.archives import unpacked
from lwfm.model.default import build_network
from lwfm.model.encode import encode_images
from lwfm.model.network import LWFM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import numpy.typing as npt
    from torch import Tensor

    from lwfm._common.devices import Accelerator

_AT_ONCE = 64
_UNCHANGED = Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images and their classes.

    Attributes
    ----------
    paths : tuple of Path
        Files [N].
    labels : ndarray
        [N] names of classes.
    splits : ndarray
        [N] ``train``, ``val`` or ``test``; "" where the data have no such folders.
    names : tuple of str
        Absolute paths; those of a zip go through it, ``/data/images.zip/class/image.png``, since the files of
        `paths` exist only while it is open.
    """

    paths: tuple[Path, ...]
    labels: npt.NDArray[np.str_]
    splits: npt.NDArray[np.str_]
    names: tuple[str, ...] = ()

    def unseen(self, seed: int) -> npt.NDArray[np.bool_]:
        """Return which images [N] belong to the classes for testing.

        They are those of ``test``, or of ``val`` where there is no test, provided that no other folder has
        a class of it. Else, and without such folders, they are all images of half of the classes, drawn at
        random.
        """
        for split in ("test", "val"):
            mask = np.asarray(self.splits == split)
            if mask.any() and not mask.all():
                if not np.isin(self.labels[mask], self.labels[~mask]).any():
                    return mask
                break
        classes = np.unique(self.labels)
        drawn = np.random.default_rng(seed).permutation(classes)[: len(classes) // 2]
        return np.isin(self.labels, drawn)


@contextmanager
def open_pictures(root: Path, *, classes: int = 4) -> Iterator[Pictures]:
    """Yield the images of a folder or zip: ``{train,val,test}/<class>/<image>`` or ``<class>/<image>``.

    A single folder around the class folders may have any name.

    Parameters
    ----------
    root : Path
        The folder or zip.
    classes : int
        Fewest classes.

    Raises
    ------
    UserError
        For another layout, classes without images, a damaged zip, and too few classes.
    """
    if root.is_dir():
        yield _named(_scan(root, root, classes), root, root)
        return
    with unpacked(root, other="a folder", content="images") as folder:
        yield _named(_scan(folder, root, classes), folder, root)


def _named(pictures: Pictures, folder: Path, root: Path) -> Pictures:
    names = tuple(str(root.resolve() / path.relative_to(folder)) for path in pictures.paths)
    return replace(pictures, names=names)


def _scan(folder: Path, root: Path, classes: int) -> Pictures:
    splits = split_folders(folder)
    inner = class_folders(folder)
    if not splits and len(inner) == 1:
        return _scan(folder / inner[0], root, classes)
    listings = {split: read_folder(folder, place) for split, place in (splits or {"": folder}).items()}
    names = [name for listing in listings.values() for name in listing.names]
    paths = [splits.get(split, folder) / name for split, each in listings.items() for name in each.names]
    of_split = [split for split, listing in listings.items() for _ in listing.names]
    labels = np.array([name.split("/")[0] for name in names])
    if len(np.unique(labels)) < classes:
        raise UserError(f"{root} holds {len(np.unique(labels))} classes: at least {classes} are needed")
    return Pictures(tuple(paths), labels, np.array(of_split))


def encode_maps(backbone: str, images: Iterable[Any], accelerator: Accelerator = "auto") -> Tensor:
    """Compute the maps [N, C, F, F] of images by a backbone, its chosen layers joined along the channels.

    They are on the CPU, wherever they were computed.

    Raises
    ------
    UserError
        For a backbone whose layers have maps of several sizes, an image that cannot be read, or no image.
    """
    network = build_network(backbone)
    if not isinstance(network, LWFM) or len(set(network.backbone.feature_size)) != 1:
        raise UserError(f"the layers of {backbone} must be pooled to maps of one size")
    return torch.cat(encode_layers(network, images, accelerator), dim=1)


def encode_layers(
    network: LWFM, images: Iterable[Any], accelerator: Accelerator = "auto"
) -> tuple[Tensor, ...]:
    """Compute the maps [N, C_l, F_l, F_l] of each layer of a network for images, on the CPU.

    Raises
    ------
    UserError
        For an image that cannot be read, or no image.
    """
    device = choose_device(accelerator)
    shown = progress(images, "encoding", "image")
    batches = [
        tuple(layer.float().cpu() for layer in layers)
        for layers in encode_images(network.to(device), shown, _AT_ONCE)
    ]
    if not batches:
        raise UserError("there is no image to encode")
    return tuple(torch.cat(layer) for layer in zip(*batches, strict=True))


def load_pixels(images: Iterable[Any], image_size: int) -> Tensor:
    """Read images as pixels [N, 3, S, S] in 0..1, resized and cropped to a square.

    Raises
    ------
    UserError
        For an image that cannot be read, or no image.
    """
    transform = evaluation_transform(image_size=image_size, normalization=_UNCHANGED)
    pixels = [
        transform(to_rgb(image, number)) for number, image in enumerate(progress(images, "reading", "image"))
    ]
    if not pixels:
        raise UserError("there is no image to read")
    return torch.stack(pixels).contiguous()
