"""The classifier of `FewShotClassifier` on stored maps of data sets, for benchmarks of its answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from lwfm.data import open_images
from lwfm.evaluation.heads import make_heads
from lwfm.evaluation.map_store import stored_maps
from lwfm.evaluation.methods import HeadOnMaps
from lwfm.model import LWFM
from lwfm.model.default import pretrained_config
from lwfm.nn import global_features

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import numpy.typing as npt
    from torch import Tensor

    from lwfm.evaluation.cached_maps import CachedMaps
    from lwfm.evaluation.heads import HeadOptions

NETWORK = "timm:tf_efficientnet_lite0"


class Classifier:
    """A head on the maps of all images of a data set.

    Parameters
    ----------
    method : HeadOnMaps
        With or without views.
    maps : CachedMaps
        Of all images, with their views where the method needs them.
    labels : Tensor
        [n] int64, classes of the images.
    """

    @torch.inference_mode()
    def __init__(self, method: HeadOnMaps, maps: CachedMaps, labels: Tensor) -> None:
        every = range(len(labels))
        self.head, self.labels = method.head, labels
        self.features = global_features(maps.select(every))
        self.images = self.head.encode(method.read(maps.select(every)))
        self.views = list(method.encode_views(maps.select_views(every)).values()) if method.views else None

    def logits(self, support: Tensor, query: Tensor) -> npt.NDArray[np.float32]:
        """Return the logits [Q, way] of images by number, the classes of the support images in order."""
        classes = torch.unique(self.labels[support], return_inverse=True)[1].tolist()
        views = None if self.views is None else [kind[support] for kind in self.views]
        compared = self.head.compare(self.images[support], classes, self.images[query], views=views)
        return np.asarray(self.head.logits(compared))


def data_parser(description: str | None, *, shot: int, episodes: int) -> argparse.ArgumentParser:
    """Return a parser of the data sets, the number of shots and of episodes, with these defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of data sets, as `lwfm experiment heads` reads them")
    parser.add_argument("data", nargs="+", help="names of folders of data sets, or emoji")
    parser.add_argument("--shot", type=int, default=shot)
    parser.add_argument("--episodes", type=int, default=episodes)
    parser.add_argument("--maps", type=Path, default=Path("runs/experiment/maps"), help="where maps are kept")
    return parser


def open_classifiers(
    root: Path, names: list[str], maps: Path, heads: Mapping[str, HeadOptions]
) -> Iterator[tuple[str, dict[str, Classifier]]]:
    """Yield the name of each data set and a classifier for each head; the published one is the first.

    Parameters
    ----------
    root : Path
        Folder of the data sets, as `lwfm experiment heads` reads them.
    names : list of str
        Their names, or emoji.
    maps : Path
        Folder that keeps the maps of the network, with views.
    heads : dict of str to HeadOptions
        Heads besides the published one.
    """
    variants = make_heads(LWFM(pretrained_config(NETWORK)).eval(), heads)
    for name in names:
        own = name == "emoji"
        images = open_images("emoji" if own else "folder", None if own else root / name, split="val")
        stored = stored_maps(variants.encoder, images, maps, views=True)
        labels = torch.as_tensor(images.labels)
        methods = {"published": variants.own, **variants.others}
        yield (
            name,
            {
                row: Classifier(method, stored, labels)
                for row, method in methods.items()
                if isinstance(method, HeadOnMaps)
            },
        )
