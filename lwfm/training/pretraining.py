"""Pretrain a backbone: ordinary classification of the training classes, before any episode."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - read by the command line

from lwfm._common.devices import Accelerator  # noqa: TC001 - read by the command line
from lwfm.data import ClassDataModule
from lwfm.data.image_sets import ClassSplit, DataName, Unreadable  # noqa: TC001 - read by the command line
from lwfm.model import ModelConfig
from lwfm.training.config import SGDConfig
from lwfm.training.modules import ClassificationModule
from lwfm.training.run import TrainingSummary, begin, fit
from lwfm.training.trainer import Precision, RunOptions

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
        How many.
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
    model: ModelConfig = _MODEL,
    batch: int = 128,
    optim: SGDConfig = _OPTIM,
    validation: ValidationConfig = _VALIDATION,
    epochs: int = 100,
    max_time: float | None = None,
    seed: int = 0,
    resume: bool = False,
    decoded: str = "auto",
    workers: int = 0,
    accelerator: Accelerator = "auto",
    precision: Precision = "32-true",
    accumulate: int = 1,
    patience: int | None = None,
    devices: int = 1,
    nodes: int = 1,
    progress: bool = True,
) -> TrainingSummary:
    """Train a network to tell the classes of `train` apart, as the start of `lwfm train`.

    Without ImageNet's weights this is how few-shot networks are usually begun: cross-entropy over all
    training classes on ordinary batches. The best model is the one whose features serve nearest class mean
    best in episodes of the unseen classes of `val`; `test` is never read. The folder `out` receives the same
    files as that of `lwfm train`, which goes on from there with `--model.weights OUT/best.safetensors`.

    Parameters
    ----------
    out : Path
        Folder of the run. One that already holds a run is refused, unless `resume` is given.
    data : str
        emoji (bundled with the package), folder (images in root/train/CLASS/ and root/val/CLASS/), a
        benchmark in any of its usual layouts, or auto to recognize what root holds; see `lwfm data inspect`.
    root : Path, optional
        The folder that holds the data set, for all but emoji. Its test part is never read.
    class_split : str, optional
        For CUB: which of its class splits, where its files do not decide it.
    crop : bool
        For CUB: whether images are cropped to their bounding boxes.
    unreadable : str
        stop at images that cannot be decoded, or skip them with a warning.
    model : ModelConfig
        The network, best the same as in `lwfm train`: the classifier reads the averages of all its layers.
    batch : int
        Images in a batch.
    optim : SGDConfig
        Optimizer.
    validation : ValidationConfig
        Episodes of validation.
    epochs : int
        How often the training images are gone through, each time followed by a validation.
    max_time : float, optional
        Minutes after which training ends (with a last validation), at the latest; the learning rate then
        decays by time. Counts the time before a resume.
    seed : int
        Of the weights, the order and the augmentation. On one machine, CPU runs repeat exactly.
    resume : bool
        Continue the run in `out` after its last whole epoch, with the same options; `epochs` and
        `max_time` may be larger.
    decoded : str
        Folder that keeps the images decoded, as for `lwfm train`. auto: `decoded-images` beside `out`;
        none: decode each image whenever it is needed.
    workers : int
        Processes that decode and augment images; 0 uses this one.
    accelerator : str
        Where to compute: auto takes a GPU when there is one.
    precision : str
        Number format; mixed precision is faster on a GPU.
    accumulate : int
        Batches whose gradients are averaged before each step of the optimizer.
    patience : int, optional
        Stop early when this many epochs in a row have not improved the validation accuracy.
    devices : int
        GPUs, or processes on the CPU, that share the batches of each step (Lightning's DDP).
    nodes : int
        Machines with `devices` each; start the same command on every one, as Lightning's manual says.
    progress : bool
        Whether a progress bar is shown.

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
    run = RunOptions(
        epochs=epochs,
        max_time=max_time,
        seed=seed,
        resume=resume,
        decoded=decoded,
        workers=workers,
        accelerator=accelerator,
        precision=precision,
        accumulate=accumulate,
        patience=patience,
        devices=devices,
        nodes=nodes,
        progress=progress,
    )
    run.check(batch=batch, **{"validation.episodes": validation.episodes})
    folder = begin(out, run)
    images = ClassDataModule(
        data,
        root,
        class_split=class_split,
        crop=crop,
        unreadable=unreadable,
        batch=batch,
        validation_way=validation.way,
        validation_shot=validation.shot,
        validation_queries=validation.queries,
        validation_episodes=validation.episodes,
        processes=run.processes,
        image_size=model.image_size,
        workers=workers,
        seed=seed,
        decoded=run.decoded_folder(folder.path),
    )
    images.setup("fit")
    module = ClassificationModule(
        model,
        optim,
        images.classes,
        images.normalization,
        steps=run.steps(images.batches),
        seed=seed,
        validation=images.plan,
        settings={"stage": "pretraining", "batch": batch},
    )
    # Only the classifier of the head is trained: its embedding has no part in the loss.
    return fit(folder, images, module, run, started=started, unused_parameters=model.embedding)
