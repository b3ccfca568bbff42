"""The batches of training and validation, as a Lightning data module."""

from __future__ import annotations

import warnings
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from lwfm.data.dataset import PictureBatches, PictureDataset, as_it_is, picture_loader
from lwfm.data.episodes import EpisodeSampler, SeededSampler, ShuffledSampler
from lwfm.data.pictures import ClassSplit, DataName, PictureSet, Split, Unreadable, open_pictures
from lwfm.data.stored import stored_pictures
from lwfm.data.transforms import training_transform
from lwfm.data.validation import ValidationPlan
from lwfm.errors import UserError

if TYPE_CHECKING:
    import os

    import torch

    from lwfm.normalization import Normalization

_AUGMENT_EPISODES, _SHUFFLE, _AUGMENT_SHUFFLED, _VALIDATION = 1, 2, 3, 4
"""Added to ``seed * _STREAMS``: the independent streams of random numbers beside the training episodes."""
_STREAMS = 5


class EpisodeDataModule(lightning.LightningDataModule):
    """Training episodes with auxiliary batches, and a fixed set of validation episodes.

    A training batch is ``{"episode": (images, labels), "auxiliary": (images, labels)}``; the second entry is
    missing when `auxiliary_batch` is 0. An episode is ``way * shot`` support pictures followed by
    ``way * queries`` queries, shot-major: the labels within the episode are
    :func:`~lwfm.data.episodes.episode_labels`. Validation gives every picture of its fixed episodes once, in
    the order of ``plan.indices``, as batches ``(images, labels)``: each passes the backbone once, in however
    many episodes it stands. Images are ``[B, 3, image_size, image_size]`` float32, labels ``[B]`` int64
    indices into the split's classes. The same settings give the same batches with any number of workers, and
    when a run is resumed at an epoch's beginning.

    Parameters
    ----------
    data, root, unreadable, class_split, crop
        Which pictures, as in :func:`~lwfm.data.pictures.open_pictures`.
    way, shot, queries
        Shape of the training episodes.
    validation_way, validation_shot, validation_queries
        Shape of the validation episodes (default: the same).
    episodes
        Training episodes in an epoch.
    validation_episodes
        Validation episodes, the same ones after every epoch.
    auxiliary_batch
        Ordinary shuffled training pictures beside each training episode; 0 for none.
    image_size
        Height and width in pixels.
    workers
        Processes that prepare pictures, for each of the two training loaders and for validation; 0 prepares
        them in the main process.
    seed
        Non-negative; decides the episodes, the order and the augmentation.
    normalization
        Channel statistics that pretrained weights demand (default: the data set's own).
    decoded
        Folder that keeps the pictures decoded, see :func:`~lwfm.data.stored.stored_pictures`; default: none.

    Attributes
    ----------
    first_epoch
        Number of the epoch with which training starts; to be set before a resumed run.

    Examples
    --------
    >>> data = EpisodeDataModule(queries=2, episodes=1, validation_episodes=1, auxiliary_batch=4)
    >>> data.setup("fit")
    >>> data.num_classes
    248
    >>> images, labels = next(iter(data.val_dataloader()))
    >>> tuple(images.shape), data.plan.episodes[0][0] in data.plan.indices
    ((15, 3, 84, 84), True)
    """

    def __init__(
        self,
        data: DataName = "emoji",
        root: str | os.PathLike[str] | None = None,
        *,
        way: int = 5,
        shot: int = 1,
        queries: int = 15,
        validation_way: int | None = None,
        validation_shot: int | None = None,
        validation_queries: int | None = None,
        episodes: int = 100,
        validation_episodes: int = 100,
        auxiliary_batch: int = 64,
        image_size: int = 84,
        workers: int = 0,
        seed: int = 0,
        unreadable: Unreadable = "stop",
        class_split: ClassSplit | None = None,
        crop: bool = False,
        normalization: Normalization | None = None,
        decoded: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("auxiliary_batch", auxiliary_batch, 0),
            ("image_size", image_size, 1),
            ("workers", workers, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise UserError(f"{name} must be at least {least}, not {value}")
        self._open_split = partial(
            open_pictures, data, root, unreadable=unreadable, class_split=class_split, crop=crop
        )
        self._decoded = decoded
        self.shape = {"way": way, "shot": shot, "queries": queries}
        self.validation_shape = {
            "way": way if validation_way is None else validation_way,
            "shot": shot if validation_shot is None else validation_shot,
            "queries": queries if validation_queries is None else validation_queries,
        }
        self.episodes, self.validation_episodes = episodes, validation_episodes
        self.auxiliary_batch, self.image_size, self.workers = auxiliary_batch, image_size, workers
        self.seed, self._normalization, self.first_epoch = seed, normalization, 0

    def _open(self, split: Split) -> PictureSet:
        pictures = self._open_split(split=split)
        if self._decoded is None:
            return pictures
        # Twice the size: so a crop of a quarter of the picture still has all the pixels it needs.
        return stored_pictures(pictures, Path(self._decoded), side=2 * self.image_size)

    @cached_property
    def train_pictures(self) -> PictureSet:
        """The training split, opened on first use."""
        return self._open("train")

    @cached_property
    def validation_pictures(self) -> PictureSet:
        """The validation split, opened on first use."""
        return self._open("val")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the training classes, in the order of the labels."""
        return self.train_pictures.classes

    @property
    def num_classes(self) -> int:
        """Number of training classes."""
        return len(self.classes)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the training pictures."""
        return self.train_pictures.fingerprint

    @property
    def normalization(self) -> Normalization:
        """Channel statistics that both transforms use."""
        return self._normalization or self.train_pictures.normalization

    @normalization.setter
    def normalization(self, statistics: Normalization) -> None:
        self._normalization = statistics

    @cached_property
    def train_sampler(self) -> EpisodeSampler:
        """The training episodes."""
        pictures = self.train_pictures
        return EpisodeSampler(
            pictures.labels,
            **self.shape,
            episodes=self.episodes,
            seed=self._stream(0),
            classes=pictures.classes,
        )

    @cached_property
    def validation_sampler(self) -> EpisodeSampler:
        """The validation episodes; its epoch stays 0."""
        pictures = self.validation_pictures
        return EpisodeSampler(
            pictures.labels,
            **self.validation_shape,
            episodes=self.validation_episodes,
            seed=self._stream(_VALIDATION),
            classes=pictures.classes,
        )

    @cached_property
    def plan(self) -> ValidationPlan:
        """The validation episodes and the pictures that occur in them."""
        return ValidationPlan.draw(self.validation_sampler, len(self.validation_pictures))

    def setup(self, stage: str | None = None) -> None:
        """Open both splits and check that the episodes can be drawn, before any work is done."""
        if stage in (None, "fit"):
            _ = self.train_sampler
        if stage in (None, "fit", "validate"):
            _ = self.validation_sampler

    def train_dataloader(self) -> CombinedLoader:
        """Yield episodes and auxiliary batches side by side; both last `episodes` batches.

        Where several processes train together, each takes its share of both. They start with `first_epoch`:
        Lightning tells the samplers their epoch only after workers have begun to fetch it.
        """
        self.train_sampler.set_epoch(self.first_epoch)
        transform = training_transform(image_size=self.image_size, normalization=self.normalization)
        dataset = PictureDataset(self.train_pictures, transform)
        trainer = self.trainer
        share = {"process": trainer.global_rank, "processes": trainer.world_size} if trainer else {}
        seeded = SeededSampler(self.train_sampler, seed=self._stream(_AUGMENT_EPISODES), **share)
        loaders = {"episode": self._loader(dataset, seeded)}
        if self.auxiliary_batch:
            shuffled = ShuffledSampler(
                len(dataset),
                batch_size=self.auxiliary_batch,
                batches=self.episodes,
                seed=self._stream(_SHUFFLE),
            )
            shuffled.set_epoch(self.first_epoch)
            seeded = SeededSampler(shuffled, seed=self._stream(_AUGMENT_SHUFFLED), **share)
            loaders["auxiliary"] = self._loader(dataset, seeded)
        return CombinedLoader(loaders, "min_size")

    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
        """Yield every picture of the fixed episodes once, in the order of ``plan.indices``."""
        return picture_loader(
            self.validation_pictures,
            self.plan.indices,
            image_size=self.image_size,
            normalization=self.normalization,
            workers=self.workers,
        )

    def state_dict(self) -> dict[str, Any]:
        """Describe what a resumed run must find again."""
        return {"classes": list(self.classes), "fingerprint": self.fingerprint, "seed": self.seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a resumed run reads the same pictures.

        Raises
        ------
        UserError
            The training classes are others than before: the classifier's labels would mean something else.
        """
        if tuple(state_dict["classes"]) != self.classes:
            raise UserError(
                f"the checkpoint was trained on {len(state_dict['classes'])} classes, the data has others "
                f"({self.num_classes}): resume with the data it was trained on, or start anew"
            )
        for name, now in (("fingerprint", self.fingerprint), ("seed", self.seed)):
            if state_dict[name] != now:
                warnings.warn(f"the resumed run had {name} {state_dict[name]}, now it is {now}", stacklevel=2)

    def _stream(self, number: int) -> int:
        return self.seed * _STREAMS + number

    def _loader(
        self, dataset: PictureDataset, sampler: SeededSampler
    ) -> DataLoader[tuple[torch.Tensor, torch.Tensor]]:
        return DataLoader(
            PictureBatches(dataset),
            batch_sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=as_it_is,
        )
