"""Files of FewShotClassifier: what is read again, older ones, damaged ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.torch
import torch

from lwfm import FewShotClassifier
from lwfm.errors import UserError
from lwfm.model import LWFM, save_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_a_loaded_classifier_predicts_the_same(
    fitted: FewShotClassifier, queries: list[Path], shots: tuple[list[Path], list[str]], tmp_path: Path
) -> None:
    path = tmp_path / "classifier.safetensors"
    fitted.set_params(unknown_below=0.3).save(path)
    with safetensors.safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["lwfm_classifier"])["classes"] == fitted.classes_.tolist()
    loaded = FewShotClassifier.load(path)
    np.testing.assert_array_equal(loaded.predict_proba(queries), fitted.predict_proba(queries))
    assert loaded.get_params()["unknown_below"] == 0.3
    assert (loaded.temperature_, loaded.support_.names) == (fitted.temperature_, fitted.support_.names)
    again, once = (each.partial_fit(shots[0][:1], ["new"]) for each in (loaded, fitted))
    np.testing.assert_array_equal(again.predict_proba(queries), once.predict_proba(queries))


def change_file(
    path: Path,
    tensors: Callable[[dict[str, torch.Tensor]], object] = lambda _: None,
    description: Callable[[dict[str, Any]], object] = lambda _: None,
) -> None:
    """Change tensors or description of a classifier's file."""
    with safetensors.safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["lwfm_classifier"])
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors(held)
    description(described)
    safetensors.torch.save_file(held, path, metadata={"lwfm_classifier": json.dumps(described)})


TENSORS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "labels": lambda tensors: tensors["support_labels"].add_(1),
    "negative-label": lambda tensors: tensors["support_labels"][0].fill_(-1),
    "wild-label": lambda tensors: tensors["support_labels"][0].fill_(2**60),
    "float-labels": lambda tensors: tensors.update(support_labels=tensors["support_labels"].float()),
    "float8-labels": lambda tensors: tensors.update(
        support_labels=tensors["support_labels"].to(torch.float8_e4m3fn)
    ),
    "scalar-labels": lambda tensors: tensors.update(support_labels=torch.tensor(0)),
    "nan": lambda tensors: tensors["support.0"][0].fill_(float("nan")),
    "dtypes": lambda tensors: tensors.update({"support.0": tensors["support.0"].double()}),
}
"""Changes of a classifier's tensors that make its file unusable."""

DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], object]] = {
    "names": lambda state: state["names"].pop(),
    "name": lambda state: state.update(names=3),
    "parameters": lambda state: state["parameters"].update(color="red"),
    "batch_size": lambda state: state["parameters"].update(batch_size=0),
    "temperature": lambda state: state.update(temperature=-1),
    "white": lambda state: state.update(white={"integers": "x"}),
    "normalization": lambda state: state["model"].update(normalization={"mean": [0]}),
    "model-number": lambda state: state.update(model=3),
}
"""Such changes of its description."""


def test_files_of_classifiers_without_newer_options_are_read(
    fitted: FewShotClassifier, queries: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "classifier.safetensors"
    fitted.save(path)

    def without(description: dict[str, Any]) -> None:
        del description["parameters"]["transductive"], description["parameters"]["views"]
        del description["model"]["config"]["centre"], description["model"]["config"]["regression_weight"]

    change_file(path, description=without)
    np.testing.assert_array_equal(
        FewShotClassifier.load(path).predict_proba(queries), fitted.predict_proba(queries)
    )


@pytest.mark.parametrize("damage", ["missing", "text", "model", *TENSORS, *DESCRIPTIONS])
def test_other_and_damaged_files_are_refused(
    fitted: FewShotClassifier, network: LWFM, tmp_path: Path, damage: str
) -> None:
    path = tmp_path / "classifier.safetensors"
    if damage == "text":
        path.write_text("no tensors")
    elif damage == "model":
        save_model(network, path)
    elif damage != "missing":
        fitted.save(path)
        if damage in TENSORS:
            change_file(path, TENSORS[damage])
        else:
            change_file(path, description=DESCRIPTIONS[damage])
    with pytest.raises(UserError, match=r"classifier\.safetensors"):
        FewShotClassifier.load(path)
