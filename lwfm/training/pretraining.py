"""Pretrain a backbone by ordinary classification of the training classes: ``lwfm pretrain``."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path  # noqa: TC003 - read by the command line
from typing import Any

from lwfm.data import ClassDataModule
from lwfm.data.image_sets import ClassSplit, DataName, Unreadable, check_emoji_episodes
from lwfm.data.overlap import Overlap  # noqa: TC001 - read by the command line
from lwfm.model import ModelConfig
from lwfm.training.config import SGDConfig
from lwfm.training.modules import ClassificationModule
from lwfm.training.run import TrainingSummary, fit, opened_run
from lwfm.training.trainer import RunOptions

__all__ = ["ValidationConfig", "pretrain"]


@dataclass(frozen=True)
class ValidationConfig:
    """Episodes of the validation after each epoch: always the same ones.

    Attributes
    ----------
    way : int
        Classes in an episode.
    shot : int
        Support images per class.
    queries : int
        Query images per class.
    episodes : int
        Number of episodes.
    """

    way: int = 5
    shot: int = 1
    queries: int = 15
    episodes: int = 600


_MODEL = ModelConfig()
_OPTIM = SGDConfig()
_VALIDATION = ValidationConfig()


def pretrain(
    out: Path,
    *,
    data: DataName = "emoji",
    root: Path | None = None,
    class_split: ClassSplit | None = None,
    crop: bool = False,
    unreadable: Unreadable = "stop",
    overlap: Overlap = "stop",
    model: ModelConfig = _MODEL,
    batch: int = 128,
    optim: SGDConfig = _OPTIM,
    validation: ValidationConfig = _VALIDATION,
    epochs: int = 100,
    **options: Any,
) -> TrainingSummary:
    """Train a network to classify the classes of `train`, as the start of `lwfm train`.

    Without ImageNet's weights this is how few-shot networks are usually begun: cross-entropy over all
    training classes on ordinary batches. The best model is the one whose features serve nearest class mean
    best in episodes of the unseen classes of `val`; `test` is never read, except to find the white level of
    images of more than 8 bits. The folder `out` receives the same files as that of `lwfm train`, which starts
    from it with `--model.weights OUT/best.safetensors`.

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
        The network, best the same as in `lwfm train`: the classifier reads the averages of all its layers.
    batch : int
        Images in a batch.
    optim : SGDConfig
        Optimizer.
    validation : ValidationConfig
        Episodes of validation.
    epochs : int
        Number of passes over the training images, each followed by a validation.
    **options
        Of the run: see :class:`lwfm.training.RunOptions`.

    Returns
    -------
    TrainingSummary
        Both of its accuracies are those of nearest class mean.

    Raises
    ------
    UserError, KeyboardInterrupt
        As :func:`lwfm.training.train`.
    """
    started = time.monotonic()
    run = RunOptions(epochs=epochs, **options)
    run.check(batch=batch, **{"validation.episodes": validation.episodes})
    check_emoji_episodes(data, [validation.shot], validation.queries, "--validation.queries")
    with opened_run(out, run) as folder:
        images = ClassDataModule(
            data,
            root,
            class_split=class_split,
            crop=crop,
            unreadable=unreadable,
            overlap=overlap,
            batch=batch,
            validation_way=validation.way,
            validation_shot=validation.shot,
            validation_queries=validation.queries,
            validation_episodes=validation.episodes,
            processes=run.processes,
            image_size=model.image_size,
            workers=run.workers,
            seed=run.seed,
            decoded=run.decoded_folder(folder.path),
        )
        images.setup("fit")
        module = ClassificationModule(
            model,
            optim,
            images.classes,
            images.normalization,
            steps=run.steps(images.batches),
            seed=run.seed,
            validation=images.plan,
            settings={
                "stage": "pretraining",
                "batch": batch,
                "validation": asdict(validation),
                **run.settings(),
            },
        )
        # Only the classifier of the head is trained: its embedding has no part in the loss.
        return fit(folder, images, module, run, started=started, unused_parameters=model.embedding)
