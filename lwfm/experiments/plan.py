"""The plan of an experiment, a YAML file: data sets, networks to train, rows of a table.

With `extends`, the name of a plan that the package brings or a file beside the plan, it holds what differs
from that one: groups of options are merged, lists and values replaced.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from lwfm._common.ranges import check_seed
from lwfm.data.image_sets import ClassSplit, DataName, Split  # noqa: TC001 - read by the parser
from lwfm.data.overlap import Overlap  # noqa: TC001 - read by the parser
from lwfm.errors import UserError
from lwfm.evaluation.heads import HeadOptions
from lwfm.evaluation.methods import METHODS
from lwfm.model import ModelConfig
from lwfm.model.backbones import build_backbone
from lwfm.presets import preset_path
from lwfm.training import pretrain, train

if TYPE_CHECKING:
    from collections.abc import Mapping

_DATA = {"data", "root", "class_split", "crop", "unreadable", "overlap"}
_GIVEN_ELSEWHERE = _DATA | {"out", "seed", "resume", "decoded"}
"""Options of `lwfm train` that the plan or the command decides."""
_OF_THE_PLAN = {"preset", "config", "stage", "start", "trained"}
"""Options of a network that are not its command's."""
Stage = Literal["pretrain", "train"]
"""The command that trains a network."""
NetworkOptions = dict[str, Any] | ModelConfig
"""Options of `lwfm train`, or of a network that is evaluated as it is."""
_NOT_IN_RESULT = {"progress", "workers", "accelerator"}
"""Options of `lwfm train` that do not change what is trained, but for rounding."""


@dataclass(frozen=True)
class DataChoice:
    """A data set of an experiment.

    Attributes
    ----------
    data, root, class_split, crop, overlap
        As in `lwfm train`; without `root`, the command's is taken.
    split : str
        Part of the data on which rows are evaluated.
    queries : dict of int to int
        For each number of shots, the queries per class.
    way : int, optional
        Classes in an episode, where they differ from the plan's.
    """

    data: DataName
    queries: dict[int, int]
    root: Path | None = None
    class_split: ClassSplit | None = None
    crop: bool = False
    overlap: Overlap = "stop"
    split: Split = "test"
    way: int | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes
    ----------
    name : str
        Title of the row.
    network : str
        Name of one of the plan's networks.
    head : HeadOptions
        Options of the head that differ from the network's, see `lwfm evaluate --heads`.
    method : str
        lwfm for the whole head, or base, matching or nearest_class_mean.
    """

    name: str
    network: str
    head: HeadOptions = field(default_factory=lambda: HeadOptions())
    method: str = "lwfm"


@dataclass(frozen=True)
class Plan:
    """Data, networks, rows and settings of an experiment.

    Attributes
    ----------
    data : dict of str to DataChoice
        Data sets by name; a table for each.
    networks : dict of str to dict
        Options of `lwfm train` for each network. `preset` names a preset of `lwfm train`, or `config` a YAML
        file beside the plan, whose options come first, then those of `train`, then these. With
        `stage: pretrain` they are options (and the preset one) of `lwfm pretrain`, without those of `train`.
        `start` names such a network, with whose weights of the same data and seed the training begins. A
        network of nothing but `trained: false` and `model` is evaluated as it is, for example with the
        weights of ImageNet; seeds do not concern it.
    rows : list of Row
        Rows of each table; differences are to the first.
    train : dict
        Options of `lwfm train` that all networks of that stage share.
    seeds : list of int
        Each network is trained once with each seed.
    way : int
        Classes in an episode.
    episodes, episode_seed : int, int
        Episodes of each evaluation, the same ones for all rows and seeds.
    """

    data: dict[str, DataChoice]
    networks: dict[str, dict[str, Any]]
    rows: list[Row]
    train: dict[str, Any] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=lambda: [0])
    way: int = 5
    episodes: int = 1000
    episode_seed: int = 0

    def stage(self, network: str) -> Stage:
        """Return which command trains a network: train, unless the plan says pretrain."""
        stage: Stage = self.networks[network].get("stage", "train")
        return stage

    def start(self, network: str) -> str | None:
        """Return the network with whose weights the training of another begins; None without one."""
        start: str | None = self.networks[network].get("start")
        return start


def read_plan(path: Path) -> tuple[Plan, dict[str, NetworkOptions]]:
    """Read a plan and the options of each network.

    These are options of :func:`lwfm.training.train`, or the configuration of a network that is not trained.

    Parameters
    ----------
    path : Path
        A YAML file, or the name of a plan that the package brings.

    Raises
    ------
    UserError
        Naming the file and the invalid part, before any work.
    """
    if not path.suffix and not path.exists():
        path = preset_path(str(path), "experiment")
    values = _read_values(path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Plan)
    try:
        plan = Plan(**parser.instantiate(parser.parse_object(values)).as_dict())
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path}: {error}") from error
    _check(plan, path)
    options = {name: _network_options(plan, name, path) for name in plan.networks}
    for name in plan.networks:
        _check_start(plan, name, options, path)
    return plan, options


def _read_values(path: Path) -> dict[str, Any]:
    """Read the options of a plan, over those of the plan that it extends if there is one."""
    values = _read_yaml(path)
    name = values.pop("extends", None)
    if name is None:
        return values
    if not isinstance(name, str) or Path(name).name != name:  # what a plan names is beside it
        raise UserError(f"{path}: extends must be a shipped plan, or a file beside this one, not {name}")
    try:
        extended = path.parent / name if Path(name).suffix else preset_path(name, "experiment")
    except UserError as error:
        raise UserError(f"{path}: extends: {error}") from error
    first = _read_yaml(extended)
    if "extends" in first:
        raise UserError(f"{path} extends {extended}, which itself extends another plan: name that one")
    return _merge(first, values)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold options by name")
    return values


def _check(plan: Plan, path: Path) -> None:
    """Raise UserError for a plan that its types allow and that makes no sense."""
    names = [row.name for row in plan.rows]
    wrong = ""
    if not names or not plan.data or not plan.seeds:
        wrong = "rows, data and seeds must not be empty"
    elif len(set(names)) < len(names) or len(set(plan.seeds)) < len(plan.seeds):
        wrong = "no two rows, nor two seeds, may be the same"
    elif set(names) & set(METHODS):
        wrong = f"a row must not be called {', '.join(sorted(set(names) & set(METHODS)))}"
    for row in plan.rows:
        if row.network not in plan.networks:
            wrong = f"row {row.name} is of network {row.network}, which is not among networks"
        elif row.method not in METHODS:
            wrong = f"row {row.name}: method must be one of {', '.join(METHODS)}, not {row.method}"
        elif row.head and row.method != "lwfm":
            wrong = f"row {row.name}: either a head or a method"
    for name in plan.networks:
        wrong = _wrong_stage(plan, name) or wrong
    if any(not choice.queries for choice in plan.data.values()):
        wrong = "queries must give the queries per class for each number of shots"
    if wrong:
        raise UserError(f"{path}: {wrong}")
    for seed in plan.seeds:
        check_seed(seed, f"{path}: each of seeds")
    check_seed(plan.episode_seed, f"{path}: episode_seed")


def _wrong_stage(plan: Plan, name: str) -> str:
    """Return what is wrong with the stage of a network, or the one it starts from; empty if nothing is."""
    start = plan.start(name)
    if plan.stage(name) not in get_args(Stage):
        return f"network {name}: stage must be one of {', '.join(get_args(Stage))}, not {plan.stage(name)}"
    if start is not None and (start not in plan.networks or plan.stage(start) != "pretrain"):
        return f"network {name}: start must name a network with stage: pretrain, not {start}"
    if start is not None and plan.stage(name) == "pretrain":
        return f"network {name}: start is for the networks of lwfm train"
    return ""


def _check_start(plan: Plan, name: str, options: Mapping[str, Any], path: Path) -> None:
    """Raise UserError for a network that starts with weights that do not fit it."""
    start = plan.start(name)
    if start is None:
        return
    own, other = (options[network]["model"] for network in (name, start))
    try:
        if _tensor_shapes(own) == _tensor_shapes(other):
            return
    except UserError as error:
        raise UserError(
            f"{path}: network {name}, which starts with the weights of {start}: {error}"
        ) from error
    layers = [config.layers or "by default" for config in (own, other)]
    raise UserError(
        f"{path}: network {name}, a {own.backbone} with layers {layers[0]}, cannot start with the weights of "
        f"{start}, a {other.backbone} with layers {layers[1]}: give both the same backbone and last layer"
    )


def _tensor_shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Return the shapes of the weights of a backbone by name, without memory for them."""
    with torch.device("meta"):
        backbone = build_backbone(config.backbone, layers=config.layers, weights="none")
    return {name: tensor.shape for name, tensor in backbone.body.state_dict().items()}


def _network_options(plan: Plan, name: str, path: Path) -> NetworkOptions:
    """Read the options of a network that is trained, or the configuration of one that is not."""
    own = dict(plan.networks[name])
    if own.pop("trained", True):
        return _training_options(plan, name, path)
    if unknown := sorted(set(own) - {"model"}):
        raise UserError(f"{path}: network {name}: without training it has a model, but no {unknown[0]}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ModelConfig, "model")
    try:
        config: ModelConfig = parser.instantiate(parser.parse_object(own)).model
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path}: network {name}: {error}") from error
    return config


def _training_options(plan: Plan, name: str, path: Path) -> dict[str, Any]:
    """Merge the options of a network and check them as the command line would."""
    own = {option: value for option, value in plan.networks[name].items() if option not in _OF_THE_PLAN}
    preset, config = (plan.networks[name].get(option) for option in ("preset", "config"))
    stage = plan.stage(name)
    if preset is not None and config is not None:
        raise UserError(f"{path}: network {name}: either a preset or a config")
    first: dict[str, Any] = {}
    if preset is not None:
        try:
            first = _read_yaml(preset_path(str(preset), stage))
        except UserError as error:
            raise UserError(f"{path}: network {name}: {error}") from error
    elif config is not None:
        first = _read_yaml(path.parent / str(config))
    first = {option: value for option, value in first.items() if option not in _GIVEN_ELSEWHERE}
    merged = _merge(_merge(first, plan.train if stage == "train" else {}), own)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_function_arguments(train if stage == "train" else pretrain, skip=set(_GIVEN_ELSEWHERE))
    try:
        options: dict[str, Any] = parser.instantiate(parser.parse_object(merged)).as_dict()
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path}: network {name}: {error}") from error
    return options


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Merge two groups of options; those of ``second`` win.

    Examples
    --------
    >>> _merge({"model": {"top_k": 1, "layers": [7]}, "epochs": 3}, {"model": {"top_k": 2}})
    {'model': {'top_k': 2, 'layers': [7]}, 'epochs': 3}
    """
    merged = dict(first)
    for name, value in second.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _merge(merged[name], value) if both else value
    return merged


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """Return training options as JSON values, without those that do not change the result."""
    return {
        name: asdict(value) if hasattr(value, "__dataclass_fields__") else value
        for name, value in options.items()
        if name not in _NOT_IN_RESULT
    }
