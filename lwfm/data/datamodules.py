"""Lightning data modules of training: episodes, or ordinary batches."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from lightning.pytorch.utilities import CombinedLoader

from lwfm._common.ranges import check_at_least
from lwfm.data._datamodule_base import AUGMENT_EPISODES, Batches, ImageOptions, TrainingDataModule
from lwfm.data.episodes import EpisodeSampler
from lwfm.errors import UserError

if TYPE_CHECKING:
    import os
    from typing import Unpack

    from lwfm.data.image_sets import DataName


class EpisodeDataModule(TrainingDataModule):
    """Training episodes with auxiliary batches, and a fixed set of validation episodes.

    A training batch is ``{"episode": (images, labels), "auxiliary": (images, labels)}``; the second entry is
    missing when `auxiliary_batch` is 0. With `per_step` they are so many episodes and auxiliary batches one
    after another, the same ones as without it. An episode is ``way * shot`` support images followed by
    ``way * queries`` queries, shot-major: the labels within the episode are
    :func:`~lwfm.data.episodes.episode_labels`. Validation gives every image of its fixed episodes once, in
    the order of ``plan.indices``, as batches ``(images, labels)``: each passes the backbone once, however
    many episodes contain it. Images are ``[B, 3, image_size, image_size]`` float32, labels ``[B]`` int64
    indices into the split's classes.

    Parameters
    ----------
    data, root, **options
        Which images and how they are prepared, as in
        :class:`~lwfm.data._datamodule_base.TrainingDataModule`.
    way, shot, queries
        Shape of the training episodes.
    validation_way, validation_shot, validation_queries
        Shape of the validation episodes (default: the same).
    episodes
        Training episodes in an epoch, a multiple of `per_step`.
    per_step
        Training episodes in a batch.
    validation_episodes
        Validation episodes, the same ones after every epoch.
    auxiliary_batch
        Ordinary shuffled training images with each training episode; 0 for none.

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
        per_step: int = 1,
        validation_episodes: int = 100,
        auxiliary_batch: int = 64,
        **options: Unpack[ImageOptions],
    ) -> None:
        super().__init__(
            data,
            root,
            validation_way=way if validation_way is None else validation_way,
            validation_shot=shot if validation_shot is None else validation_shot,
            validation_queries=queries if validation_queries is None else validation_queries,
            validation_episodes=validation_episodes,
            **options,
        )
        check_at_least(0, auxiliary_batch=auxiliary_batch)
        check_at_least(1, per_step=per_step)
        if episodes % per_step:
            raise UserError(f"episodes must be a multiple of per_step={per_step}, got {episodes}")
        self.shape = {"way": way, "shot": shot, "queries": queries}
        self.episodes, self.per_step, self.auxiliary_batch = episodes, per_step, auxiliary_batch

    @cached_property
    def train_sampler(self) -> EpisodeSampler:
        """The training episodes."""
        images = self.train_images
        return EpisodeSampler(
            images.labels,
            **self.shape,
            episodes=self.episodes,
            seed=self.stream(0),
            classes=images.classes,
        )

    def setup(self, stage: str | None = None) -> None:
        """Open both splits and check that the episodes can be drawn, before any work is done."""
        if stage in (None, "fit"):
            _ = self.train_sampler
        super().setup(stage)

    def train_dataloader(self) -> CombinedLoader:
        """Yield episodes and auxiliary batches side by side, `per_step` of each together."""
        seed = self.stream(AUGMENT_EPISODES)
        loaders = {"episode": self.training_loader(self.train_sampler, seed=seed, together=self.per_step)}
        if self.auxiliary_batch:
            loaders["auxiliary"] = self.shuffled_loader(
                batch_size=self.auxiliary_batch, batches=self.episodes, together=self.per_step
            )
        return CombinedLoader(loaders, "min_size")


class ClassDataModule(TrainingDataModule):
    """Ordinary training images for a classifier of the training classes, and fixed validation episodes.

    A training batch is ``(images [batch, 3, image_size, image_size], labels [batch])``; validation is that of
    :class:`EpisodeDataModule`. An epoch sees (nearly) every training image once.

    Parameters
    ----------
    data, root, **options
        Which images and how they are prepared, as in
        :class:`~lwfm.data._datamodule_base.TrainingDataModule`.
    batch
        Images in a training batch.
    validation_way, validation_shot, validation_queries, validation_episodes
        Shape and number of the validation episodes.
    processes
        Processes that share the batches: their number in an epoch is a multiple of it.

    Examples
    --------
    >>> data = ClassDataModule(batch=100, validation_queries=2)
    >>> data.setup("fit")
    >>> data.batches  # of 1488 images
    14
    """

    def __init__(
        self,
        data: DataName = "emoji",
        root: str | os.PathLike[str] | None = None,
        *,
        batch: int = 128,
        validation_way: int = 5,
        validation_shot: int = 1,
        validation_queries: int = 15,
        validation_episodes: int = 100,
        processes: int = 1,
        **options: Unpack[ImageOptions],
    ) -> None:
        super().__init__(
            data,
            root,
            validation_way=validation_way,
            validation_shot=validation_shot,
            validation_queries=validation_queries,
            validation_episodes=validation_episodes,
            **options,
        )
        self.batch, self.processes = batch, processes

    @property
    def batches(self) -> int:
        """Batches in an epoch, of all processes together."""
        each = max(len(self.train_images) // (self.batch * self.processes), 1)
        return each * self.processes

    def train_dataloader(self) -> Batches:
        """Yield shuffled training images."""
        return self.shuffled_loader(batch_size=self.batch, batches=self.batches)
