"""The annotator of cells: its loss, the released code's faults as an ablation, rejection, commands."""

from __future__ import annotations

import csv
import json
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import TripletMarginLoss
from sklearn.base import clone

from lwfm._common.tensor_files import read_tensor_file, write_tensor_file
from lwfm.cli import main
from lwfm.errors import UserError
from lwfm.metric import CellTypeAnnotator
from lwfm.metric.data.cells import CellFile
from lwfm.metric.decisions import UNKNOWN, NeighborVote
from lwfm.metric.systems.cell_comparison import _DECIDED, _TRAINED, Plain, _Cells, _choices, _grid, evaluate
from lwfm.metric.systems.cell_types import PUBLISHED, Detached, fit
from tests.helpers.cell_files import TYPES, anndata, make_counts, write_h5ad

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def fitted() -> CellTypeAnnotator:
    counts, types = make_counts()
    return CellTypeAnnotator(epochs=30, threshold=0).fit(np.log1p(counts), np.array(types))


def test_types_are_recognized_at_another_depth(fitted: CellTypeAnnotator) -> None:
    counts, types = make_counts(seed=1)
    answers = fitted.predict(np.log1p(counts))
    assert (answers == np.array(types)).mean() > 0.9
    assert set(answers) <= {*TYPES, UNKNOWN}


def test_the_limit_is_the_usual_distance_of_the_annotated_cells(fitted: CellTypeAnnotator) -> None:
    assert fitted.limit_ == fitted.decision_.usual_distance(0.99)
    distances = fitted.decision_.distances(fitted.decision_.references)  # not left out: nearer
    assert (distances <= fitted.limit_).mean() >= 0.99


def test_embeddings_are_joined_by_the_cells_themselves(fitted: CellTypeAnnotator) -> None:
    cells = np.log1p(make_counts(2)[0])
    joined = fitted.transform(cells)
    assert joined.shape == (6, 64 + 60)
    np.testing.assert_allclose(np.linalg.norm(joined[:, :64], axis=1), 10, rtol=1e-5)
    expected = 10 * cells / np.linalg.norm(cells, axis=1, keepdims=True)
    np.testing.assert_allclose(joined[:, 64:], expected, rtol=1e-5)


def test_networks_are_joined_to_the_length_of_one_beside_the_cells_once(tmp_path: Path) -> None:
    counts, types = make_counts(10)
    annotator = CellTypeAnnotator(epochs=2, networks=2).fit(np.log1p(counts), np.array(types))
    joined = annotator.transform(np.log1p(counts))
    assert joined.shape == (30, 2 * 64 + 60)
    np.testing.assert_allclose(np.linalg.norm(joined[:, :128], axis=1), 10, rtol=1e-5)
    annotator.save(tmp_path / "cells.safetensors")
    loaded = CellTypeAnnotator.load(tmp_path / "cells.safetensors")
    np.testing.assert_array_equal(loaded.transform(np.log1p(counts)), joined)


def test_the_published_form_compares_learned_embeddings_alone() -> None:
    counts, types = make_counts(10)
    annotator = CellTypeAnnotator(epochs=2, **PUBLISHED).fit(np.log1p(counts), np.array(types))
    assert annotator.transform(np.log1p(counts)).shape == (30, 64)
    assert isinstance(annotator.decision_, NeighborVote)
    assert (annotator.decision_.k, annotator.decision_.weights) == (6, "distance")


@pytest.mark.parametrize(("balance", "expected"), [(0.0, 0.1), (0.5, 0.25), (1.0, 0.5)], ids=str)
def test_rare_types_are_sampled_as_often_as_balance_demands(balance: float, expected: float) -> None:
    codes = np.repeat([0, 1], [900, 100])
    annotator = CellTypeAnnotator(balance=balance, batch_size=100, epochs=20)
    batches = annotator._batches(codes, codes, np.random.default_rng(0))
    assert batches.shape == (200, 100)
    assert codes[batches].mean() == pytest.approx(expected, abs=0.02)


def rare_cells() -> _Cells:
    """Four batches of two types, of which one has two cells in each."""
    random = np.random.default_rng(0)
    types = np.array(["often"] * 40 + ["rarely"] * 2)
    values = random.random((168, 5)) + np.tile(types == "rarely", 4)[:, None] * np.arange(5)
    return _Cells(np.repeat(list("abcd"), 42), np.tile(types, 4), values.astype(np.float32))


def test_the_choice_is_that_of_held_out_batches() -> None:
    cells, make = rare_cells(), partial(Plain, 40)
    choices: list[dict[str, Any]] = [{"plain": 1.0, "vote": "cells"}, {"plain": 1.0, "vote": "types"}]
    assert _choices(cells, [make], [{}], choices) == dict.fromkeys("abcd", choices[1])
    two = cells.some(np.isin(cells.batches, ["a", "b"]))
    assert _choices(two, [make], [{}], choices) == dict.fromkeys("ab", choices[0])
    assert _choices(cells, [make], [{}], choices[:1]) == dict.fromkeys("abcd", choices[0])


def test_a_batch_has_no_part_in_its_own_choice() -> None:
    cells, make = rare_cells(), partial(Plain, 40)
    choices: list[dict[str, Any]] = [{"plain": 1.0, "vote": "cells"}, {"plain": 1.0, "vote": "types"}]
    values = np.where((cells.batches == "c")[:, None], cells.values[::-1], cells.values)
    types = np.where(cells.batches == "c", "often", cells.types)
    changed = _choices(_Cells(cells.batches, types, values), [make], [{}], choices)
    assert changed["c"] == _choices(cells, [make], [{}], choices)["c"]


def test_parameters_of_training_are_chosen_too() -> None:
    make = partial(CellTypeAnnotator, epochs=1)
    decided: list[dict[str, Any]] = [{"plain": 0.0, "vote": "types"}]
    trained: list[dict[str, Any]] = [{"hidden": 1, "dropout": 1.0}, {"hidden": 32, "dropout": 0.0}]
    assert _choices(rare_cells(), [make], trained, decided)["a"] == {**trained[1], **decided[0]}


def test_where_nothing_can_be_chosen_the_class_decides() -> None:
    defaults = CellTypeAnnotator().get_params()
    assert {**_grid(_TRAINED, {})[0], **_grid(_DECIDED, {})[0]}.items() <= defaults.items()


def test_cells_of_another_kind_are_unknown() -> None:
    counts, types = make_counts(60)
    known = np.array(types) != "delta"
    annotator = CellTypeAnnotator(epochs=30).fit(np.log1p(counts[known]), np.array(types)[known])
    answers = annotator.predict(np.log1p(counts))
    assert (answers[~known] == UNKNOWN).mean() > 0.7
    assert (answers[known] == UNKNOWN).mean() < 0.1


def gradient(loss: torch.nn.Module) -> float:
    torch.manual_seed(0)
    embeddings = torch.randn(8, 4, requires_grad=True)
    loss(embeddings, torch.arange(8) % 2).backward()
    assert embeddings.grad is not None
    return float(embeddings.grad.abs().sum())


def test_the_triplet_term_has_a_gradient_but_not_as_released() -> None:
    triplet = TripletMarginLoss(margin=0.5, distance=CosineSimilarity())
    assert gradient(triplet) > 0
    assert gradient(Detached(triplet)) == 0


def test_every_type_is_sampled_but_the_last_as_released() -> None:
    codes = np.repeat(np.arange(3), 10)
    sampled = {
        released: set(
            codes[
                CellTypeAnnotator(released=released, batch_size=5, epochs=2)
                ._batches(codes, codes, np.random.default_rng(0))
                .ravel()
            ]
        )
        for released in (False, True)
    }
    assert sampled == {False: {0, 1, 2}, True: {0, 1}}


def test_a_saved_annotator_answers_as_before(fitted: CellTypeAnnotator, tmp_path: Path) -> None:
    cells = np.log1p(make_counts(seed=2)[0])
    fitted.save(tmp_path / "cells.safetensors")
    loaded = CellTypeAnnotator.load(tmp_path / "cells.safetensors")
    assert loaded.predict(cells).tolist() == fitted.predict(cells).tolist()
    assert loaded.limit_ == fitted.limit_


def test_a_file_without_cells_of_a_type_is_refused(fitted: CellTypeAnnotator, tmp_path: Path) -> None:
    path = tmp_path / "cells.safetensors"
    fitted.save(path)
    description, tensors = read_tensor_file(path, key="lwfm_metric", what="system")
    write_tensor_file(path, {**tensors, "codes": tensors["codes"] * 0}, description, key="lwfm_metric")
    with pytest.raises(UserError, match="not a whole model: a class of 3 has no reference"):
        CellTypeAnnotator.load(path)


def test_the_commands_evaluate_fit_and_predict(tmp_path: Path) -> None:
    root = write_h5ad(tmp_path / "cells.h5ad", *make_counts())
    options = ["--options", "{epochs: 3}"]
    result = tmp_path / "result.json"
    arguments = ["metric", "evaluate", "cell_types", "--root", str(root), "--seeds", "1", *options]
    assert main([*arguments, "--out", str(result)]) == 0
    rows = json.loads(result.read_text())["rows"]
    assert {row["role"] for row in rows} == {"system", "baseline", "ablation"}
    assert {"macro-F1", "accuracy", "macro-F1 a", "macro-F1 b"} <= set(rows[0]["scores"])

    model, out, figure = tmp_path / "m.safetensors", tmp_path / "out" / "cells.csv", tmp_path / "map.png"
    fit = ["metric", "fit", "cell_types", "--root", str(root), "--out", str(model)]
    assert main([*fit, "--options", "{epochs: 20, kept: null}"]) == 0
    counts, types = make_counts(10, seed=3)
    query = write_h5ad(tmp_path / "query.h5ad", counts, types, prefix="ortho")
    (tmp_path / "genes.csv").write_text("".join(f"ortho{n},g{n}\n" for n in range(60)))
    predict = ["metric", "predict", str(model), str(query), "--out", str(out), "--figure", str(figure)]
    assert main([*predict, "--options", f"{{orthologues: {tmp_path / 'genes.csv'}}}"]) == 0
    answers = [row["cell_type"] for row in csv.DictReader(out.open())]
    assert (np.array(answers) == np.array(types)).mean() > 0.8
    written = anndata.read_h5ad(out.with_name("query-annotated.h5ad"))
    assert written.obs["lwfm_cell_type"].astype(str).tolist() == answers
    np.testing.assert_array_equal(written.X.toarray(), counts)
    assert figure.stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of at least 1, not 0"),
        ({"dropout": 2}, "dropout must be a number from 0 to 1, not 2"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number above 0, not nan"),
        ({"kept": 0}, "kept must be a number above 0, not 0"),
        ({"noise": -1}, "noise must be a number of at least 0, not -1"),
        ({"vote": "all"}, "vote must be one of types, cells, not 'all'"),
        ({"plain": -1}, "plain must be a number of at least 0, not -1"),
        ({"released": "no"}, "released must be true or false, not 'no'"),
        ({"k": 2.5}, "k must be a whole number of at least 1, not 2.5"),
    ],
    ids=["epochs", "dropout", "learning-rate", "kept", "noise", "vote", "plain", "released", "k"],
)
def test_wrong_parameters_are_refused_before_training(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CellTypeAnnotator(**options).fit(np.zeros((4, 3)), np.arange(4) % 2)  # type: ignore[arg-type]


def test_evaluation_with_fewer_cells_than_neighbors(tmp_path: Path) -> None:
    """The neighbors without training are as many as there are cells, too."""
    root = write_h5ad(tmp_path / "cells.h5ad", *make_counts(4))
    result = evaluate(root, [0], epochs=1, k=50)
    assert {len(row.scores["macro-F1"]) for row in result.rows} == {1}


def test_the_system_of_an_evaluation_is_trained_as_the_class_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, bool]] = []
    fit = CellTypeAnnotator.fit

    def spy(self: CellTypeAnnotator, *data: object) -> CellTypeAnnotator:
        trained.append((self.loss, self.released))
        return fit(self, *data)

    monkeypatch.setattr(CellTypeAnnotator, "fit", spy)
    result = evaluate(write_h5ad(tmp_path / "cells.h5ad", *make_counts(5)), [0], epochs=1)
    roles = ["system", "ablation", "ablation", "baseline", "baseline", "baseline", "baseline"]
    assert [row.role for row in result.rows] == roles
    joint, entropy = ("joint", False), ("cross_entropy", False)
    assert trained[::2] == [joint, joint, ("joint", True), entropy, entropy]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"released": True}, "released is set by evaluate itself"),
        ({"seed": 3}, "seed is set by evaluate itself"),
        ({"threshold": 0.9}, "threshold is not used by evaluate"),
        ({"batch": "one"}, "has one one only, same: nothing to hold out"),
        ({"label": "types"}, "no annotation 'types'"),
    ],
    ids=["released", "seed", "threshold", "one-batch", "label"],
)
def test_options_that_an_evaluation_cannot_heed_are_refused(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    path = write_h5ad(tmp_path / "cells.h5ad", *make_counts(4))
    table = anndata.read_h5ad(path)
    table.obs["one"] = "same"
    table.write_h5ad(path)
    with pytest.raises(UserError, match=message):
        evaluate(path, [0], epochs=1, **options)  # type: ignore[arg-type]


def test_fit_reads_the_types_before_the_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_h5ad(tmp_path / "cells.h5ad", *make_counts(4))
    monkeypatch.setattr(CellFile, "read", lambda _: pytest.fail("the matrix was read first"))
    with pytest.raises(UserError, match="no annotation 'types'"):
        fit(path, label="types")


def test_a_model_without_names_of_genes_answers_no_files(
    fitted: CellTypeAnnotator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted.save(tmp_path / "m.safetensors")
    query = write_h5ad(tmp_path / "query.h5ad", *make_counts(4))
    words = ["metric", "predict", str(tmp_path / "m.safetensors"), str(query)]
    assert main([*words, "--out", str(tmp_path / "x.csv")]) == 2
    assert "without names of genes" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_two_files_of_one_name_are_refused(
    fitted: CellTypeAnnotator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = clone(fitted).fit(np.log1p(make_counts(4)[0]), np.array(make_counts(4)[1]))
    named.genes_ = tuple(f"g{n}" for n in range(60))
    named.save(tmp_path / "m.safetensors")
    words = ["metric", "predict", str(tmp_path / "m.safetensors"), "a/query.h5ad", "b/query.h5ad"]
    assert main([*words, "--out", str(tmp_path / "x.csv")]) == 2
    assert "two inputs are named query.h5ad" in capsys.readouterr().err
    inputs = [str(tmp_path / "q.h5ad"), str(tmp_path / "q-annotated.h5ad")]
    assert main([*words[:3], *inputs, "--out", str(tmp_path / "x.csv")]) == 2
    assert "q.h5ad with annotations would replace the input" in capsys.readouterr().err


def test_answers_need_one_search_for_neighbors(
    fitted: CellTypeAnnotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = Mock(wraps=fitted.decision_.compare)
    monkeypatch.setattr(fitted.decision_, "compare", search)
    fitted.answers(fitted.decision_.references[:3])
    assert search.call_count == 1


def test_an_unknown_option_of_predict_is_refused(
    fitted: CellTypeAnnotator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted.save(tmp_path / "m.safetensors")
    words = ["metric", "predict", str(tmp_path / "m.safetensors"), "x.h5ad", "--out", "x.csv"]
    assert main([*words, "--options", "{genes: 1}"]) == 2
    assert "has no option genes: orthologues" in capsys.readouterr().err
