"""Reading tables of cells: normalization, genes, refusals."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from lwfm.errors import UserError
from lwfm.metric.data import cells
from lwfm.metric.data.cells import open_cells, read_orthologues
from tests.helpers.cell_files import make_counts, write_h5ad

if TYPE_CHECKING:
    from pathlib import Path


def normalized(counts: np.ndarray) -> np.ndarray:
    logarithms: np.ndarray = np.log1p(counts / counts.sum(1, keepdims=True) * 1e4)
    return logarithms


def test_counts_become_logarithms_and_logarithms_stay(tmp_path: Path) -> None:
    counts, types = make_counts()
    expected = normalized(counts)
    read = open_cells(write_h5ad(tmp_path / "counts.h5ad", counts, types)).read()
    np.testing.assert_allclose(read, expected, rtol=1e-5)
    again = open_cells(write_h5ad(tmp_path / "logs.h5ad", expected, types)).read()
    np.testing.assert_allclose(again, expected, rtol=1e-6)


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_csv_reads_as_h5ad_does(tmp_path: Path, ending: str) -> None:
    import pandas

    counts, types = make_counts(5)
    table = pandas.DataFrame(counts, columns=[f"g{n}" for n in range(60)], index=[f"c{n}" for n in range(15)])
    table["cell_type"] = types
    table.to_csv(tmp_path / f"cells.{ending}")
    file = open_cells(tmp_path / f"cells.{ending}")
    np.testing.assert_allclose(file.read(), normalized(counts), rtol=1e-5)
    assert file.column("cell_type").tolist() == types
    assert file.cells[:2] == ("c0", "c1")


def test_genes_are_aligned_by_name_and_by_orthologues(tmp_path: Path) -> None:
    counts, types = make_counts(5)
    file = open_cells(write_h5ad(tmp_path / "cells.h5ad", counts, types))
    with pytest.warns(UserWarning, match="lacks 1 of 3 genes"):
        read = file.read(["g7", "absent", "g2"])
    np.testing.assert_allclose(read, np.c_[file.read()[:, 7], np.zeros(15), file.read()[:, 2]])
    (tmp_path / "genes.csv").write_text("g7,G7\ng2,G2\n")
    (mapped,) = file.batches(["G2", "G7"], read_orthologues(tmp_path / "genes.csv"))
    np.testing.assert_allclose(mapped, file.read()[:, [2, 7]])


@pytest.mark.parametrize("ending", ["h5ad", "csv"])
def test_missing_annotations_are_no_type(tmp_path: Path, ending: str) -> None:
    import pandas

    counts, types = make_counts(5)
    path = tmp_path / f"cells.{ending}"
    if ending == "h5ad":
        write_h5ad(path, counts, [None, *types[1:]])
    else:
        table = pandas.DataFrame(counts, columns=[f"g{n}" for n in range(60)])
        table["cell_type"] = [None, *types[1:]]
        table.to_csv(path)
    file = open_cells(path)
    assert file.columns["cell_type"].tolist() == ["", *types[1:]]
    with pytest.raises(UserError, match=r"cells\..* has no cell_type of 1 of its 15 cells"):
        file.column("cell_type")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x - 1, "negative values: they are already scaled"),
        (lambda x: x * 100.5, "neither counts nor logarithms"),
        (lambda x: np.where(x > 3, np.nan, x), "NaN"),
    ],
    ids=["scaled", "tpm", "nan"],
)
def test_other_values_are_refused(tmp_path: Path, change: object, message: str) -> None:
    counts, types = make_counts(5)
    assert callable(change)
    file = open_cells(write_h5ad(tmp_path / "cells.h5ad", change(counts).astype(np.float32), types))
    with pytest.raises(UserError, match=message):
        file.read()


def test_foreign_genes_and_missing_annotations_are_refused(tmp_path: Path) -> None:
    file = open_cells(write_h5ad(tmp_path / "cells.h5ad", *make_counts(5)))
    with pytest.raises(UserError, match="has none of the 1 genes of the model, such as ENSG1"):
        file.read(["ENSG1"])
    with pytest.raises(UserError, match="no annotation 'type' of its cells: cell_type, protocol"):
        file.column("type")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\x89HDF\r\n\x1a\n broken", "cannot be read as a table of cells"), (None, "there is no file")],
    ids=["damaged", "absent"],
)
def test_damaged_files_are_refused_with_their_name(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "cells.h5ad"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        open_cells(path)
    assert "cells.h5ad" in str(caught.value)


def test_a_table_of_one_column_is_refused(tmp_path: Path) -> None:
    (tmp_path / "genes.csv").write_text("a,b\nc\n")
    with pytest.raises(UserError, match=r"line 2 of .*genes\.csv has one column"):
        read_orthologues(tmp_path / "genes.csv")


def test_values_that_cannot_be_read_are_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    """Of a file whose tables of names are whole: values are read later, part by part."""

    class Damaged:
        def __getitem__(self, _rows: slice) -> None:
            raise KeyError("message not aligned")

    counts, types = make_counts()
    file = open_cells(write_h5ad(tmp_path / "counts.h5ad", counts, types))
    with pytest.raises(UserError, match=r"values of .*counts\.h5ad cannot be read: .*not aligned"):
        replace(file, table=Damaged()).read()


def test_indices_beyond_the_genes_are_refused(tmp_path: Path) -> None:
    """SciPy reads and writes beyond its memory for them."""
    counts, types = make_counts()
    file = open_cells(write_h5ad(tmp_path / "counts.h5ad", counts, types))
    damaged = csr_matrix(counts)
    damaged.indices[0] = 2**30
    with pytest.raises(UserError, match=r"values of .*counts\.h5ad cannot be read"):
        replace(file, table=damaged).read()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the HDF5 library crashes on it"),
        ("import time; time.sleep(60)", "does not end within 1 s"),
    ],
    ids=["crash", "hang"],
)
def test_files_on_which_hdf5_crashes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    """Some flipped bits of the file's structures end the process that reads them."""
    monkeypatch.setattr(cells, "_OPEN_IN_CHILD", code)
    monkeypatch.setattr(cells, "_CHILD_SECONDS", 1 if "sleep" in code else 300)
    with pytest.raises(UserError, match=rf"counts\.h5ad is damaged: .*{message}"):
        open_cells(write_h5ad(tmp_path / "counts.h5ad", *make_counts()))


def test_a_whole_file_is_opened_in_the_child_too(tmp_path: Path) -> None:
    path = write_h5ad(tmp_path / "counts.h5ad", *make_counts())
    child = subprocess.run(
        [sys.executable, "-c", cells._OPEN_IN_CHILD, str(path)], capture_output=True, text=True, check=False
    )
    assert (child.returncode, child.stderr) == (0, "")
