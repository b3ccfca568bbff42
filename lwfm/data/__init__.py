"""Images, episodes and the batches that training and evaluation read.

* :mod:`lwfm.data.image_sets` -- a split of a data set: :func:`open_images`, :class:`ImageSet`;
* :mod:`lwfm.data.layouts` -- the benchmarks in the layouts in which they circulate;
* :mod:`lwfm.data.sources` -- where images are kept: files, encoded bytes, pixels;
* :mod:`lwfm.data.decoded_cache` -- :func:`stored_images`, decoded once into a memory-mapped file;
* :mod:`lwfm.data.decoding` -- :func:`open_image`, a file as an upright RGB image;
* :mod:`lwfm.data.normalization` -- mean and scale of the pixels that a backbone expects;
* :mod:`lwfm.data.dataset` -- :class:`ImageDataset`, the images as tensors;
* :mod:`lwfm.data.transforms` -- :func:`training_transform`, :func:`evaluation_transform`;
* :mod:`lwfm.data.device_crops` -- crops that a GPU resizes, a batch at once;
* :mod:`lwfm.data.episodes` -- :class:`EpisodeSampler`, :func:`episode_labels`;
* :mod:`lwfm.data.datamodules` -- :class:`EpisodeDataModule`, :class:`ClassDataModule` for Lightning.

Each name loads its module on first use: sampling episodes needs neither torchvision nor Lightning.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
