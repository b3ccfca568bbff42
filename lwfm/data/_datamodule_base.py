"""Base of the data modules: two splits, fixed validation episodes, reproducible batches."""

from __future__ import annotations

import warnings
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import lightning
from torch.utils.data import DataLoader

from lwfm._common.ranges import check_at_least
from lwfm.data.dataset import ImageBatches, identity_collate, image_loader
from lwfm.data.decoded_cache import stored_images
from lwfm.data.device_crops import Crops, CropTransform, resized
from lwfm.data.episodes import EpisodeSampler, SeededSampler, ShuffledSampler
from lwfm.data.image_sets import ClassSplit, DataName, ImageSet, Split, Unreadable, open_images
from lwfm.data.overlap import check_splits
from lwfm.data.transforms import training_transform
from lwfm.data.validation_plan import ValidationPlan
from lwfm.errors import UserError

if TYPE_CHECKING:
    import os

    import torch

    from lwfm.data.dataset import BatchTransform
    from lwfm.data.normalization import Normalization
    from lwfm.data.overlap import Overlap

AUGMENT_EPISODES, _SHUFFLE, _AUGMENT_SHUFFLED, _VALIDATION = 1, 2, 3, 4
"""Added to ``seed * _STREAMS``: the independent streams of random numbers beside the training episodes."""
_STREAMS = 5

Batches = DataLoader[tuple["torch.Tensor", "torch.Tensor"]]


class ImageOptions(TypedDict, total=False):
    """Which images training reads and how they are prepared; see :class:`TrainingDataModule`."""

    image_size: int
    workers: int
    seed: int
    unreadable: Unreadable
    class_split: ClassSplit | None
    crop: bool
    overlap: Overlap
    normalization: Normalization | None
    decoded: str | os.PathLike[str] | None


class TrainingDataModule(lightning.LightningDataModule):
    """Training images, and the images of fixed validation episodes, each once.

    Subclasses define the training batch. The same settings give the same batches with any number of
    workers, and when a run is resumed at an epoch's beginning. The test split is never read,
    except to find the white level of images of more than 8 bits.

    Parameters
    ----------
    data, root, unreadable, class_split, crop
        Which images, as in :func:`~lwfm.data.image_sets.open_images`.
    overlap
        ``stop`` when both splits share a class or an image, or ``allow`` it with a warning.
    validation_way, validation_shot, validation_queries
        Shape of the validation episodes.
    validation_episodes
        Validation episodes, the same ones after every epoch.
    image_size
        Height and width in pixels.
    workers
        Processes that prepare images, for each loader; 0 prepares them in the main process.
    seed
        Non-negative; decides the episodes, the order and the augmentation.
    normalization
        Channel statistics that pretrained weights require (default: the data set's own).
    decoded
        Folder that keeps the images decoded, see :func:`~lwfm.data.decoded_cache.stored_images`;
        default: none.

    Attributes
    ----------
    first_epoch
        Epoch at which training starts; set it before a resumed run.
    """

    def __init__(
        self,
        data: DataName = "emoji",
        root: str | os.PathLike[str] | None = None,
        *,
        validation_way: int = 5,
        validation_shot: int = 1,
        validation_queries: int = 15,
        validation_episodes: int = 100,
        image_size: int = 84,
        workers: int = 0,
        seed: int = 0,
        unreadable: Unreadable = "stop",
        class_split: ClassSplit | None = None,
        crop: bool = False,
        overlap: Overlap = "stop",
        normalization: Normalization | None = None,
        decoded: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        check_at_least(1, image_size=image_size)
        check_at_least(0, workers=workers, seed=seed)
        self._open_split = partial(
            open_images, data, root, unreadable=unreadable, class_split=class_split, crop=crop
        )
        self._decoded = decoded
        self._overlap: Overlap = overlap
        self.validation_shape = {
            "way": validation_way,
            "shot": validation_shot,
            "queries": validation_queries,
        }
        self.validation_episodes = validation_episodes
        self.image_size, self.workers, self.seed = image_size, workers, seed
        self._normalization, self.first_epoch = normalization, 0

    def _open(self, split: Split) -> ImageSet:
        images = self._open_split(split=split)
        if self._decoded is None:
            return images
        # Twice the size: so a crop of a quarter of the image still has all the pixels it needs.
        return stored_images(images, Path(self._decoded), side=2 * self.image_size)

    @cached_property
    def train_images(self) -> ImageSet:
        """The training split, opened on first use."""
        return self._open("train")

    @cached_property
    def validation_images(self) -> ImageSet:
        """The validation split, opened on first use."""
        return self._open("val")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the training classes, in the order of the labels."""
        return self.train_images.classes

    @property
    def num_classes(self) -> int:
        """Number of training classes."""
        return len(self.classes)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the training images."""
        return self.train_images.fingerprint

    @property
    def normalization(self) -> Normalization:
        """Channel statistics that both transforms use."""
        return self._normalization or self.train_images.normalization

    @normalization.setter
    def normalization(self, statistics: Normalization) -> None:
        self._normalization = statistics

    @cached_property
    def validation_sampler(self) -> EpisodeSampler:
        """The validation episodes; its epoch stays 0."""
        images = self.validation_images
        return EpisodeSampler(
            images.labels,
            **self.validation_shape,
            episodes=self.validation_episodes,
            seed=self.stream(_VALIDATION),
            classes=images.classes,
        )

    @cached_property
    def plan(self) -> ValidationPlan:
        """The validation episodes and the images that occur in them."""
        return ValidationPlan.draw(self.validation_sampler, len(self.validation_images))

    def setup(self, stage: str | None = None) -> None:
        """Open both splits and check that the batches can be drawn, before any work is done."""
        if stage in (None, "fit"):
            _ = self.train_images
        if stage in (None, "fit", "validate"):
            _ = self.validation_sampler
        if stage in (None, "fit"):
            check_splits((self.train_images, self.validation_images), self._overlap)

    def val_dataloader(self) -> Batches:
        """Yield every image of the fixed episodes once, in the order of ``plan.indices``."""
        return image_loader(
            self.validation_images,
            self.plan.indices,
            image_size=self.image_size,
            normalization=self.normalization,
            workers=self.workers,
        )

    def shuffled_loader(self, *, batch_size: int, batches: int, together: int = 1) -> Batches:
        """Yield ordinary shuffled training images, beginning with `first_epoch`."""
        shuffled = ShuffledSampler(
            len(self.train_images), batch_size=batch_size, batches=batches, seed=self.stream(_SHUFFLE)
        )
        return self.training_loader(shuffled, seed=self.stream(_AUGMENT_SHUFFLED), together=together)

    def training_loader(
        self, sampler: EpisodeSampler | ShuffledSampler, *, seed: int, together: int = 1
    ) -> Batches:
        """Yield augmented training images, beginning with `first_epoch`.

        A batch joins `together` batches of the sampler: their images do not depend on it. With several
        processes, each gets its shard. The epoch is set here, because Lightning tells the samplers theirs
        only after workers have begun to fetch it.
        """
        sampler.set_epoch(self.first_epoch)
        transform: BatchTransform = CropTransform(self.image_size)
        if not self.resizes_on_device:
            transform = training_transform(image_size=self.image_size, normalization=self.normalization)
        trainer = self.trainer
        shard = {"process": trainer.global_rank, "processes": trainer.world_size} if trainer else {}
        return DataLoader(
            ImageBatches(self.train_images, transform),
            batch_sampler=SeededSampler(sampler, seed=seed, together=together, **shard),
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            collate_fn=identity_collate,
        )

    @property
    def resizes_on_device(self) -> bool:
        """Return whether crops are resized a batch at once, where training computes.

        On a GPU they are. On the CPU this was measured slower than image by image: see docs/training.md.
        """
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Resize the crops on the device, where the loaders have not."""
        if isinstance(batch, dict):
            return {part: self.on_after_batch_transfer(each, dataloader_idx) for part, each in batch.items()}
        images, labels = batch
        if isinstance(images, Crops):
            images = resized(images, image_size=self.image_size, normalization=self.normalization)
        return images, labels

    def state_dict(self) -> dict[str, Any]:
        """Return what must be equal when a run is resumed."""
        return {"classes": list(self.classes), **self._compared()}

    def _compared(self) -> dict[str, str | int]:
        return {
            "fingerprint": self.fingerprint,
            "validation fingerprint": self.validation_images.fingerprint,
            "seed": self.seed,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Check that a resumed run reads the same images.

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
        for name, now in self._compared().items():
            if state_dict[name] != now:
                warnings.warn(f"the resumed run had {name} {state_dict[name]}, now it is {now}", stacklevel=2)

    def stream(self, number: int) -> int:
        """Return the seed of one of the independent streams of random numbers."""
        return self.seed * _STREAMS + number
