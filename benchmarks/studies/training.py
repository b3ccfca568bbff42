"""Does training with a form of comparison help? A network is trained with each, on equal terms.

    python -m benchmarks.studies.training --root build/grocery

The plan is benchmarks/studies/training.yaml: rows on validation classes only, for choosing. It is run by
`lwfm experiment` and goes on where it stopped; networks named in FORMS get a head that the package does not
have.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import yaml

from benchmarks.studies.trained_heads import LearnedWeights, WeightedMatches
from lwfm.experiments.run import experiment
from lwfm.model import build_head

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lwfm.nn import LWFMHead

PLAN = Path(__file__).with_suffix(".yaml")
FORMS: dict[str, type[LWFMHead]] = {"learned-weights": LearnedWeights, "weighted-matches": WeightedMatches}
"""Networks of the plan whose head is of another class."""


def with_head(form: type[LWFMHead] | None) -> AbstractContextManager[Any]:
    """Build the heads of networks, but not those that are put on them afterwards, as this class."""
    if form is None:
        return nullcontext()
    return mock.patch("lwfm.model.network.build_head", partial(build_head, form=form))


def part_of(plan: dict[str, Any], network: str) -> dict[str, Any]:
    """Take one network of a plan, and its rows."""
    options = dict(plan["networks"][network])
    options["config"] = str((PLAN.parent / options["config"]).resolve())
    rows = [row for row in plan["rows"] if row["network"] == network]
    return {**plan, "networks": {network: options}, "rows": rows}


def main() -> None:
    """Train, evaluate, write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--root", type=Path, help="the photographs, see benchmarks/studies/hold_out_classes.py"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/experiment"))
    parser.add_argument("--data", nargs="+", help="by default all of the plan")
    parser.add_argument("--networks", nargs="+", help="by default all of the plan")
    options = parser.parse_args()
    plan = yaml.safe_load(PLAN.read_text(encoding="utf-8"))
    options.out.mkdir(parents=True, exist_ok=True)
    where = {"root": options.root, "out": options.out, "data": options.data}
    for seed, name in product(plan["seeds"], options.networks or plan["networks"]):
        part = options.out / f"study-{name}-{seed}.yaml"
        part.write_text(yaml.safe_dump({**part_of(plan, name), "seeds": [seed]}), encoding="utf-8")
        with with_head(FORMS.get(name)):
            experiment(part, **where)
    print(experiment(PLAN, missing="skip", **where).markdown())


if __name__ == "__main__":
    main()
