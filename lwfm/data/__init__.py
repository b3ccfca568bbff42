"""Pictures, episodes and the batches that training and evaluation read.

* :mod:`lwfm.data.pictures` -- a split of a data set: :func:`open_pictures`, :class:`PictureSet`;
* :mod:`lwfm.data.layouts` -- the benchmarks in the layouts in which they circulate;
* :mod:`lwfm.data.sources` -- where pictures are kept: files, encoded bytes, pixels;
* :mod:`lwfm.data.stored` -- :func:`stored_pictures`, decoded once into a memory-mapped file;
* :mod:`lwfm.data.decoding` -- :func:`open_picture`, a file as an upright RGB picture;
* :mod:`lwfm.data.dataset` -- :class:`PictureDataset`, the pictures as tensors;
* :mod:`lwfm.data.transforms` -- :func:`training_transform`, :func:`evaluation_transform`;
* :mod:`lwfm.data.batched` -- crops that a GPU resizes, a batch at once;
* :mod:`lwfm.data.episodes` -- :class:`EpisodeSampler`, :func:`episode_labels`;
* :mod:`lwfm.data.module` -- :class:`EpisodeDataModule`, :class:`ClassDataModule` for Lightning.

Each name loads its module on first use: sampling episodes needs neither torchvision nor Lightning.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lwfm.data.dataset import PictureDataset, picture_loader
    from lwfm.data.decoding import decode_picture, open_picture, upright_rgb
    from lwfm.data.episodes import EpisodeSampler, ShuffledSampler, episode_labels
    from lwfm.data.module import ClassDataModule, EpisodeDataModule
    from lwfm.data.pictures import EMOJI, PictureSet, open_pictures
    from lwfm.data.stored import stored_pictures
    from lwfm.data.transforms import evaluation_transform, training_transform
    from lwfm.data.validation import ValidationPlan, pictures_needed

_HOME = {
    "EMOJI": "pictures",
    "ClassDataModule": "module",
    "EpisodeDataModule": "module",
    "EpisodeSampler": "episodes",
    "PictureDataset": "dataset",
    "PictureSet": "pictures",
    "ShuffledSampler": "episodes",
    "ValidationPlan": "validation",
    "decode_picture": "decoding",
    "episode_labels": "episodes",
    "evaluation_transform": "transforms",
    "open_picture": "decoding",
    "open_pictures": "pictures",
    "picture_loader": "dataset",
    "pictures_needed": "validation",
    "stored_pictures": "stored",
    "training_transform": "transforms",
    "upright_rgb": "decoding",
}

__all__ = [
    "EMOJI",
    "ClassDataModule",
    "EpisodeDataModule",
    "EpisodeSampler",
    "PictureDataset",
    "PictureSet",
    "ShuffledSampler",
    "ValidationPlan",
    "decode_picture",
    "episode_labels",
    "evaluation_transform",
    "open_picture",
    "open_pictures",
    "picture_loader",
    "pictures_needed",
    "stored_pictures",
    "training_transform",
    "upright_rgb",
]


def __getattr__(name: str) -> object:
    """Load the module that defines `name` on first use."""
    if name in _HOME:
        return getattr(importlib.import_module(f"lwfm.data.{_HOME[name]}"), name)
    raise AttributeError(f"module 'lwfm.data' has no attribute {name!r}")
