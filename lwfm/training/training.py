"""Train LWFM-SPM on episodes: ``lwfm train``."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path  # noqa: TC003 - read by the command line
from typing import Any

from lwfm.data import EpisodeDataModule
from lwfm.data.image_sets import ClassSplit, DataName, Unreadable, check_emoji_episodes
from lwfm.data.overlap import Overlap  # noqa: TC001 - read by the command line
from lwfm.errors import UserError
from lwfm.model import ModelConfig
from lwfm.training.config import OptimConfig
from lwfm.training.modules import LWFMModule
from lwfm.training.run import TrainingSummary, fit, opened_run
from lwfm.training.trainer import RunOptions

__all__ = ["EpisodeConfig", "LWFMModule", "OptimConfig", "TrainingSummary", "train"]


@dataclass(frozen=True)
class EpisodeConfig:
    """Episodes of training and validation; the defaults are the paper's for miniImageNet.

    Attributes
    ----------
    way : int
        Classes in an episode.
    shot : int
        Support images per class.
    queries : int
        Query images per class.
    auxiliary_batch : int
        Ordinary training images with each episode, for the classifier's loss.
    per_step : int
        Episodes of a training step, whose images pass the network together; the loss is their mean.
    train : int
        Episodes in an epoch, a multiple of `per_step`.
    validation : int
        Episodes of the validation after each epoch: always the same ones.
    """

    way: int = 5
    shot: int = 1
    queries: int = 15
    auxiliary_batch: int = 128
    per_step: int = 1
    train: int = 600
    validation: int = 600


_EPISODES = EpisodeConfig()
_MODEL = ModelConfig()
_OPTIM = OptimConfig()


def train(
    out: Path,
    *,
    data: DataName = "emoji",
    root: Path | None = None,
    class_split: ClassSplit | None = None,
    crop: bool = False,
    unreadable: Unreadable = "stop",
    overlap: Overlap = "stop",
    model: ModelConfig = _MODEL,
    episodes: EpisodeConfig = _EPISODES,
    optim: OptimConfig = _OPTIM,
    epochs: int | None = 10,
    **options: Any,
) -> TrainingSummary:
    """Train on the classes of `train`, and keep the model with the best accuracy on the unseen ones of `val`.

    The folder `out` receives best.safetensors (the best model so far, for `lwfm evaluate`), last.ckpt
    (written after each epoch, to resume from) and logs/version_N/ (metrics.csv, and TensorBoard events)
    for each start. Ctrl-C stops at any moment; every file is either whole or as it was.

    Parameters
    ----------
    out : Path
        Folder of the run. One that already holds a run is refused, unless `resume` is given.
    data : str
        emoji (bundled with the package), folder (images in root/train/CLASS/ and root/val/CLASS/), a
        benchmark in any of its usual layouts, or auto to recognize what root holds; see `lwfm data inspect`.
    root : Path, optional
        The folder that holds the data set, for all but emoji. Its test split is never read,
        except to find the white level of images of more than 8 bits.
    class_split : str, optional
        For CUB: which of its class splits, where its files do not decide it.
    crop : bool
        For CUB: whether images are cropped to their bounding boxes.
    unreadable : str
        stop at images that cannot be decoded, or skip them with a warning.
    overlap : str
        stop when `train` and `val` share a class or an identical image (of a benchmark: a class), or allow
        it with a warning.
    model : ModelConfig
        The network.
    episodes : EpisodeConfig
        Episodes of training and validation.
    optim : OptimConfig
        Loss and optimizer.
    epochs : int, optional
        Number of epochs of `episodes.train` episodes, each followed by a validation; null: as many as fit
        into `max_time`, by the time that the first batches take.
    **options
        Of the run: see :class:`lwfm.training.RunOptions`.

    Returns
    -------
    TrainingSummary

    Raises
    ------
    UserError
        For a folder in use, options that do not fit the data or the resumed run, unreadable images,
        a full disk, or a loss that became NaN (the episode is kept in `out`, diverged.safetensors).
    KeyboardInterrupt
        After Ctrl-C, saying from where the run can be resumed.
    """
    started = time.monotonic()
    run = RunOptions(epochs=epochs, **options)
    _check(run, episodes)
    check_emoji_episodes(data, [episodes.shot], episodes.queries, "--preset emoji, or --episodes.queries")
    with opened_run(out, run) as folder:
        images = EpisodeDataModule(
            data,
            root,
            class_split=class_split,
            crop=crop,
            unreadable=unreadable,
            overlap=overlap,
            way=episodes.way,
            shot=episodes.shot,
            queries=episodes.queries,
            episodes=episodes.train,
            per_step=episodes.per_step,
            validation_episodes=episodes.validation,
            auxiliary_batch=episodes.auxiliary_batch,
            image_size=model.image_size,
            workers=run.workers,
            seed=run.seed,
            decoded=run.decoded_folder(folder.path),
        )
        images.setup("fit")
        _check_auxiliary_batch(episodes.auxiliary_batch, len(images.train_images))
        module = LWFMModule(
            model,
            optim,
            images.classes,
            images.normalization,
            way=episodes.way,
            shot=episodes.shot,
            per_step=episodes.per_step,
            steps=run.steps(episodes.train // episodes.per_step),
            seed=run.seed,
            validation=images.plan,
            settings={"episodes": asdict(episodes), **run.settings()},
        )
        unused = model.embedding and model.matching_weight == 0
        return fit(folder, images, module, run, started=started, unused_parameters=unused)


def _check_auxiliary_batch(size: int, images: int) -> None:
    """Refuse a batch in which images would be repeated, unless it is no larger than the default."""
    if size > max(images, _EPISODES.auxiliary_batch):
        raise UserError(
            f"--episodes.auxiliary_batch {size} is more than the {images} training images: lower it to that"
        )


def _check(run: RunOptions, episodes: EpisodeConfig) -> None:
    """Raise UserError for options that cannot work, before any work is done."""
    counted = ("train", "validation", "auxiliary_batch", "per_step")
    run.check(**{f"episodes.{name}": getattr(episodes, name) for name in counted})
    together = run.processes * episodes.per_step
    if episodes.train % together:
        sharing = f"{run.processes} processes" if run.processes > 1 else "steps"
        sharing += f" of {episodes.per_step} episodes" if episodes.per_step > 1 else ""
        raise UserError(
            f"{sharing} cannot share {episodes.train} episodes evenly: make episodes.train a multiple of "
            f"{together}"
        )
