"""One network of an experiment: its training, if any, the evaluation of its rows, and their commands."""

from __future__ import annotations

import hashlib
import inspect
import json
import shlex
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lwfm._common.files import atomic_path
from lwfm.evaluation import evaluate
from lwfm.experiments.plan import DataChoice, Plan, Row, Stage, plain_options
from lwfm.experiments.table import RowResult
from lwfm.model import ModelConfig
from lwfm.training import RunOptions, pretrain, train
from lwfm.training.checkpoints import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lwfm._common.devices import Accelerator
    from lwfm.training import TrainingSummary


@dataclass(frozen=True)
class PlannedNetwork(ABC):
    """One network of the plan on one data set."""

    name: str
    data_name: str
    data: DataChoice
    seed: int
    images: str
    """Fingerprint of the images on which rows are evaluated."""

    @property
    @abstractmethod
    def is_ready(self) -> bool:
        """Return whether rows can be evaluated: nothing is to be trained."""

    @property
    @abstractmethod
    def source(self) -> dict[str, Any]:
        """Return the options of `lwfm evaluate` that name the network."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Return what distinguishes its weights from those of other networks."""

    @abstractmethod
    def command(self) -> str:
        """Return the command that trains this network alone; empty for one that is not trained."""

    @abstractmethod
    def train(self, *, workers: int, accelerator: Accelerator, progress: bool) -> None:
        """Train, or resume after the last complete epoch."""

    @property
    def where(self) -> dict[str, Any]:
        """Return the options of the data set, as `lwfm train` and `lwfm evaluate` take them."""
        found = {"data": self.data.data, "root": self.data.root, "class_split": self.data.class_split}
        return {**found, "crop": self.data.crop, "overlap": self.data.overlap}

    def results(
        self, plan: Plan, out: Path, *, workers: int, accelerator: Accelerator
    ) -> Iterator[RowResult]:
        """Yield the results of all rows of this network, evaluating those that are missing."""
        weights = self.fingerprint()
        rows = [row for row in plan.rows if row.network == self.name]
        for shot, queries in sorted(self.data.queries.items()):
            way = self.data.way or plan.way
            episodes = {"split": self.data.split, "way": way, "shot": shot, "queries": queries}
            episodes |= {"episodes": plan.episodes, "seed": plan.episode_seed}
            files = {
                row.name: out
                / "rows"
                / f"{digest([weights, self.images, episodes, row.head, row.method])}.json"
                for row in rows
            }
            waiting = [row for row in rows if not files[row.name].is_file()]
            if waiting:
                self._evaluate(waiting, files, episodes, out, workers=workers, accelerator=accelerator)
            for row in rows:
                found = RowResult.read(files[row.name], plan.episodes)
                yield RowResult(**{**vars(found), "row": row.name, "data": self.data_name, "seed": self.seed})

    def _evaluate(
        self,
        rows: list[Row],
        files: dict[str, Path],
        episodes: dict[str, Any],
        out: Path,
        *,
        workers: int,
        accelerator: Accelerator,
    ) -> None:
        """Evaluate rows in one pass and write each to its file."""
        heads = {row.name: row.head for row in rows if row.head}
        result = evaluate(
            **self.source,
            **self.where,
            **episodes,
            heads=heads,
            maps=out / "maps",
            workers=workers,
            accelerator=accelerator,
        )
        for row in rows:
            method = row.name if row.head else row.method
            shown = {**self.source, **self.where, **episodes}
            if row.head:
                shown["heads"] = {row.name: row.head}
            RowResult(
                row=row.name,
                network=self.name,
                data=self.data_name,
                seed=self.seed,
                shot=episodes["shot"],
                method=method,
                accuracies=result.of(method, episodes["shot"]).episode_accuracy,
                train=self.command(),
                evaluate=command_line("evaluate", shown),
            ).write(files[row.name])


@dataclass(frozen=True)
class TrainedNetwork(PlannedNetwork):
    """A network that is trained on the data set, once with each seed.

    Attributes
    ----------
    options : dict
        Of its command.
    folder : Path
        Of its run.
    stage : str
        The command, pretrain or train.
    start : TrainedNetwork, optional
        The network with whose weights training begins.
    """

    options: dict[str, Any]
    folder: Path
    stage: Stage = "train"
    start: TrainedNetwork | None = None

    @property
    def finished(self) -> Path:
        """Return the path of the file that marks a complete training."""
        return self.folder / "finished.json"

    @property
    def is_ready(self) -> bool:
        """Return whether training is complete."""
        return self.finished.is_file()

    @property
    def source(self) -> dict[str, Any]:
        """Return the option that names its checkpoint."""
        return {"checkpoint": RunFolder(self.folder).best}

    def fingerprint(self) -> str:
        """Return the SHA-256 of its checkpoint."""
        return hashlib.sha256(RunFolder(self.folder).best.read_bytes()).hexdigest()

    def train(self, *, workers: int, accelerator: Accelerator, progress: bool) -> None:
        """Train, or resume after the last complete epoch."""
        run = RunFolder(self.folder)
        resume = run.last.is_file()
        given = {"workers": workers, "accelerator": accelerator, "progress": progress}
        command: Callable[..., TrainingSummary] = pretrain if self.stage == "pretrain" else train
        summary = command(
            self.folder,
            **self.where,
            **{**self.complete_options, **given},
            seed=self.seed,
            resume=resume,
            decoded=str(self.folder.parent.parent / "decoded-images"),
        )
        with atomic_path(self.finished) as temporary:
            described = {**asdict(summary), "resumed": resume, "command": self.command()}
            temporary.write_text(json.dumps(described, indent=1, default=str) + "\n", encoding="utf-8")

    def command(self) -> str:
        """Return the command that trains this network alone."""
        given = {**self.where, "out": self.folder, "seed": self.seed, **self.complete_options}
        return command_line(self.stage, given)

    @property
    def complete_options(self) -> dict[str, Any]:
        """Return the options of the command, the weights it starts from among them."""
        if self.start is None:
            return self.options
        best = str(RunFolder(self.start.folder).best)
        return {**self.options, "model": replace(self.options["model"], weights=best)}


@dataclass(frozen=True)
class FixedNetwork(PlannedNetwork):
    """A network that is evaluated with the weights it has, of a file or of its package."""

    model: ModelConfig

    @property
    def is_ready(self) -> bool:
        """Return true: there is no training."""
        return True

    @property
    def source(self) -> dict[str, Any]:
        """Return the option that describes the network."""
        return {"model": self.model}

    def fingerprint(self) -> str:
        """Return a digest of its configuration, and of its weights where they are a file."""
        return digest([asdict(self.model), *weights_file(self.model.weights)])

    def command(self) -> str:
        """Return an empty text: there is no training."""
        return ""

    def train(self, *, workers: int, accelerator: Accelerator, progress: bool) -> None:
        """Do nothing."""


def weights_file(weights: str) -> list[str]:
    """Return the SHA-256 of the file that a network starts from; an empty list where there is none."""
    if weights in ("none", "imagenet") or not Path(weights).is_file():
        return []
    return [hashlib.sha256(Path(weights).read_bytes()).hexdigest()]


def digest(described: Any) -> str:
    """Return a fingerprint of JSON values."""
    text = json.dumps(described, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def command_line(command: str, options: dict[str, Any]) -> str:
    """Return a command of `lwfm` with these options, without those at their defaults.

    Examples
    --------
    >>> print(command_line("evaluate", {"shot": [1, 5], "way": 5, "heads": {"a": {"top_k": None}}}))
    lwfm evaluate --shot '[1, 5]' --heads '{"a": {"top_k": null}}'
    """
    functions: dict[str, Callable[..., Any]] = {"train": train, "pretrain": pretrain, "evaluate": evaluate}
    parameters = inspect.signature(functions[command]).parameters.values()
    if command == "evaluate":
        shared: dict[str, Any] = {"model": ModelConfig()}
    else:
        shared = {each.name: each.default for each in fields(RunOptions)}
    defaults = _flat({**{each.name: each.default for each in parameters}, **shared})
    words = ["lwfm", command]
    for name, value in _flat(options).items():
        if name not in defaults or value != defaults[name]:
            text = value if isinstance(value, str | Path) else json.dumps(value)
            words += [f"--{name}", shlex.quote(str(text))]
    return " ".join(words)


def _flat(options: dict[str, Any]) -> dict[str, Any]:
    """Flatten groups of options, as in ``model.top_k``."""
    flat: dict[str, Any] = {}
    for name, value in plain_options(options).items():
        grouped = is_dataclass(options[name])
        flat |= {f"{name}.{key}": each for key, each in value.items()} if grouped else {name: value}
    return flat
