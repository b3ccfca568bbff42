"""Train the networks and evaluate the rows of a table, resuming where it stopped: ``lwfm experiment``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lwfm._common.devices import Accelerator  # noqa: TC001 - read by the command line
from lwfm._common.ranges import check_at_least
from lwfm.data import open_images
from lwfm.data.overlap import check_splits
from lwfm.errors import UserError
from lwfm.experiments.network import FixedNetwork, TrainedNetwork, digest, weights_file
from lwfm.experiments.plan import DataChoice, Plan, plain_options, read_plan
from lwfm.experiments.table import ExperimentTable, RowResult, make_table
from lwfm.model import ModelConfig

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lwfm.data.image_sets import Split
    from lwfm.experiments.network import PlannedNetwork
    from lwfm.experiments.plan import NetworkOptions


def experiment(
    plan: Path,
    *,
    root: Path | None = None,
    out: Path = Path("runs/experiment"),
    data: list[str] | None = None,
    missing: Literal["train", "skip"] = "train",
    workers: int = 0,
    accelerator: Accelerator = "auto",
    progress: bool = True,
) -> ExperimentTable:
    """Train and evaluate every row of a table, and write it as Markdown and JSON.

    The same command resumes where it stopped, after the last complete epoch: networks are found by the
    fingerprint of their options and images, rows by that of their options, weights, images and episodes.
    The table is rewritten after each row, from all results so far. Ctrl-C leaves every file whole.

    Parameters
    ----------
    plan : Path
        What to do: the name of a plan that the package brings (`lwfm presets` lists them), or a YAML file.
    root : Path, optional
        The folder of every data set of the plan that names none (but for emoji); relative ones that it names
        are within it.
    out : Path
        Folder for networks/, rows/, maps/, table.md and table.json. It can hold several plans' networks.
    data : list of str, optional
        Names of the plan's data sets to use; by default all.
    missing : str
        train missing networks, or skip their rows.
    workers : int
        Processes that decode images; 0 uses this one.
    accelerator : str
        Where to compute: auto takes a GPU when there is one.
    progress : bool
        Whether training shows its progress bar.

    Returns
    -------
    ExperimentTable
        See :meth:`ExperimentTable.markdown`.

    Raises
    ------
    UserError
        For an invalid plan, missing data, or invalid options of training and evaluation.
    KeyboardInterrupt
        After Ctrl-C.
    """
    check_at_least(0, workers=workers)
    described, options = read_plan(plan)
    chosen = _choose(described, data, root)
    networks = list(_networks(described, chosen, options, Path(out)))
    found: list[RowResult] = []
    table = make_table(described, chosen, found)
    for number, network in enumerate(networks, 1):
        _report(f"[{number}/{len(networks)}] {network.name} on {network.data_name}, seed {network.seed}")
        if not network.is_ready:
            if missing == "skip":
                _report("  not trained, left out")
                continue
            network.train(workers=workers, accelerator=accelerator, progress=progress)
        for result in network.results(described, Path(out), workers=workers, accelerator=accelerator):
            found.append(result)
            table = make_table(described, chosen, found)
            table.write(Path(out))
    return table


def _choose(plan: Plan, names: list[str] | None, root: Path | None) -> dict[str, DataChoice]:
    """Return the chosen data sets, with their folders."""
    if unknown := set(names or ()) - set(plan.data):
        raise UserError(f"the plan has no data {min(unknown)}; it has {', '.join(plan.data)}")
    chosen = {}
    for name, choice in plan.data.items():
        if names is not None and name not in names:
            continue
        place = choice.root or (None if choice.data == "emoji" else root)
        if root is not None and choice.root is not None:
            place = root / choice.root
        if choice.data != "emoji" and place is None:
            raise UserError(
                f"the data {name} need --root FOLDER, which holds them (or leave them out by --data)"
            )
        chosen[name] = DataChoice(**{**asdict(choice), "root": place})
    return chosen


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _networks(
    plan: Plan, data: dict[str, DataChoice], options: Mapping[str, NetworkOptions], out: Path
) -> Iterator[PlannedNetwork]:
    """Yield all networks that rows need, seed by seed, so that every row is in the table early."""
    needed = _needed(plan)
    learning = any(not isinstance(options[name], ModelConfig) for name in needed)
    prints = {name: _fingerprints(choice, learning) for name, choice in data.items()}
    made: dict[tuple[int, str, str | None], TrainedNetwork] = {}
    for seed, (name, choice), network in product(plan.seeds, data.items(), needed):
        given, images = options[network], prints[name]
        if isinstance(given, ModelConfig):
            if seed == plan.seeds[0]:
                yield FixedNetwork(network, name, choice, seed, images[choice.split], given)
            continue
        trained = plain_options(given)
        weights = (trained.get("model") or {}).get("weights", "none")
        described = [trained, [images["train"], images["val"]], seed, *weights_file(weights)]
        start = made.get((seed, name, plan.start(network)))
        described += [start.folder.name] if start else []
        made[seed, name, network] = TrainedNetwork(
            name=network,
            data_name=name,
            data=choice,
            seed=seed,
            images=images[choice.split],
            options=given,
            folder=out / "networks" / f"{network}-{name}-{seed}-{digest(described)[:8]}",
            stage=plan.stage(network),
            start=start,
        )
        yield made[seed, name, network]


def _needed(plan: Plan) -> list[str]:
    """Return the networks that rows need, each after the one that its training starts from."""
    found: dict[str, None] = {}
    for row in plan.rows:
        if start := plan.start(row.network):
            found[start] = None
        found[row.network] = None
    return list(found)


def _fingerprints(choice: DataChoice, learning: bool) -> dict[str, str]:
    """Return the fingerprint of the images of each split that is read, those of ``learning`` among them.

    UserError where two of them share a class or an image.
    """
    splits: list[Split] = ["train", "val", choice.split] if learning else [choice.split]
    opened = [
        open_images(choice.data, choice.root, split, class_split=choice.class_split, crop=choice.crop)
        for split in dict.fromkeys(splits)
    ]
    check_splits(opened, choice.overlap)
    return {images.split: images.fingerprint for images in opened}
