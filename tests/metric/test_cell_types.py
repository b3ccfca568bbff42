"""The annotator of cells: its loss, the released code's faults as an ablation, rejection, commands."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import TripletMarginLoss

from lwfm.cli import main
from lwfm.metric import CellTypeAnnotator
from lwfm.metric.systems.cell_types import UNKNOWN, Detached
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


def test_the_quantile_keeps_its_share_of_the_reference(fitted: CellTypeAnnotator) -> None:
    decision = fitted.decision_
    left_out = decision._knn.kneighbors(n_neighbors=fitted.k)[0].mean(1)
    assert (left_out <= decision.usual_distance(0.95)).mean() == pytest.approx(0.95, abs=0.01)
    assert fitted.limit_ == decision.usual_distance(0.99)


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


def test_an_unknown_option_of_predict_is_refused(
    fitted: CellTypeAnnotator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted.save(tmp_path / "m.safetensors")
    words = ["metric", "predict", str(tmp_path / "m.safetensors"), "x.h5ad", "--out", "x.csv"]
    assert main([*words, "--options", "{genes: 1}"]) == 2
    assert "has no option genes: orthologues" in capsys.readouterr().err
