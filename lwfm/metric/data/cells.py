"""Tables of cells and genes: AnnData files (.h5ad), read in parts, and .csv or .csv.gz."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lwfm._common.progress import progress
from lwfm._common.text import listed
from lwfm.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Values = npt.NDArray[np.float32]

_AT_ONCE = 2048
_LARGEST_LOGARITHM = 30.0
_PER_CELL = 1e4
_CHILD_SECONDS = 300
_OPEN_IN_CHILD = """
import sys
from pathlib import Path
from lwfm.metric.data import cells
cells._open_h5ad(Path(sys.argv[1])).table[:1]
"""


@dataclass(frozen=True, eq=False)
class CellFile:
    """A file of cells: names and annotations in memory, values read in parts.

    Attributes
    ----------
    path : Path
        The file.
    genes, cells : tuple of str
        Names of its columns and rows.
    columns : dict of str to ndarray
        Annotations [N] of the cells, as text; "" for missing ones.
    table : object
        The AnnData object, or the numbers [N, G] of a CSV file.
    """

    path: Path
    genes: tuple[str, ...]
    cells: tuple[str, ...]
    columns: dict[str, npt.NDArray[np.str_]]
    table: Any

    def column(self, name: str) -> npt.NDArray[np.str_]:
        """Return an annotation [N].

        Raises
        ------
        UserError
            For an annotation that is not there, naming those that are, and for one that some cells lack.
        """
        if name not in self.columns:
            known = listed(sorted(self.columns), 15) or "none"
            raise UserError(f"{self.path} has no annotation {name!r} of its cells: {known}")
        column = self.columns[name]
        if missing := int((column == "").sum()):
            raise UserError(
                f"{self.path} has no {name} of {missing} of its {len(column)} cells: annotate or remove them"
            )
        return column

    def batches(self, genes: Sequence[str], orthologues: Mapping[str, str] | None = None) -> Iterator[Values]:
        """Yield the values [n, G] of some genes, part by part of the cells, with a progress bar.

        Values are the logarithm of one plus counts per 10 000, computed where the file has counts.

        Parameters
        ----------
        genes : sequence of str
            G names. A gene that the file does not have is 0, with a warning.
        orthologues : mapping, optional
            Names of the file's genes to those asked for.

        Raises
        ------
        UserError
            For values that are neither counts nor logarithms, and where no gene is there.
        """
        places = self._places(genes, orthologues or {})
        present = places >= 0
        starts = range(0, len(self.cells), _AT_ONCE)
        kind = ""
        for start in progress(starts, f"reading {self.path.name}", "part"):
            dense = self._part(start)
            kind = kind or self._kind(dense)
            if kind == "counts":
                dense = np.log1p(dense * (_PER_CELL / np.maximum(dense.sum(1, keepdims=True), 1)))
            values = np.zeros((len(dense), len(genes)), dtype=np.float32)
            values[:, present] = dense[:, places[present]]
            yield values

    def _part(self, start: int) -> Values:
        """Read the values [n, genes of the file] of some cells; UserError for damaged ones."""
        try:
            part = self.table[start : start + _AT_ONCE]
            if hasattr(part, "check_format"):
                part.check_format(full_check=True)  # SciPy crashes on indices beyond the columns
            return np.asarray(part.toarray() if hasattr(part, "toarray") else part, dtype=np.float32)
        except Exception as error:  # the libraries raise anything on damaged files
            raise UserError(f"the values of {self.path} cannot be read: {error}") from error

    def read(self, genes: Sequence[str] | None = None) -> Values:
        """Read the values [N, G] of all cells; see :meth:`batches`."""
        return np.concatenate(list(self.batches(self.genes if genes is None else genes)))

    def _places(self, genes: Sequence[str], orthologues: Mapping[str, str]) -> npt.NDArray[np.int64]:
        """Return the column of each gene, -1 for none."""
        place: dict[str, int] = {}
        for number, gene in enumerate(self.genes):
            place.setdefault(orthologues.get(gene, gene), number)
        places = np.array([place.get(gene, -1) for gene in genes], dtype=np.int64)
        missing = int((places < 0).sum())
        if missing == len(genes):
            raise UserError(
                f"{self.path} has none of the {len(genes)} genes of the model, such as {genes[0]}; "
                f"its own are such as {self.genes[0]}: names of another kind or species need a table "
                "of orthologues"
            )
        if missing:
            warnings.warn(
                f"{self.path} lacks {missing} of {len(genes)} genes: they count as not expressed",
                stacklevel=3,
            )
        return places

    def _kind(self, values: Values) -> str:
        """Return ``counts`` or ``logarithms``; UserError for other values."""
        if not np.isfinite(values).all():
            raise UserError(f"{self.path} holds NaN or infinite values")
        if values.min() < 0:
            raise UserError(
                f"{self.path} holds negative values: they are already scaled; give counts, or log1p of "
                "counts per 10 000, before scaling"
            )
        if (values == np.round(values)).all() and values.max() > 1:
            return "counts"
        if values.max() > _LARGEST_LOGARITHM:
            raise UserError(
                f"{self.path} holds values up to {values.max():.0f} that are no whole numbers: neither "
                "counts nor logarithms; give one of them"
            )
        return "logarithms"


def open_cells(path: Path) -> CellFile:
    """Open an .h5ad, .csv or .csv.gz file.

    Of a CSV file the first column names the cells, columns of numbers are genes, others are annotations.

    Raises
    ------
    UserError
        For a missing or damaged file, naming it and what is wrong.
    """
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    opener = _open_h5ad if path.suffix == ".h5ad" else _open_csv
    if path.suffix == ".h5ad":
        _check_in_child(path)
    try:
        file = opener(path)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # the libraries raise anything on damaged files
        raise UserError(f"{path} cannot be read as a table of cells: {error}") from error
    if not file.cells or not file.genes:
        raise UserError(f"{path} holds {len(file.cells)} cells and {len(file.genes)} genes")
    return file


def _check_in_child(path: Path) -> None:
    """Open a file in a child process first; UserError if the HDF5 library crashes or hangs on it.

    Errors that it reports are left to this process, which meets them too.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _OPEN_IN_CHILD, str(path)]
    try:
        child = subprocess.run(  # noqa: S603
            command, env=environment, capture_output=True, check=False, timeout=_CHILD_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{path} is damaged: opening it does not end within {_CHILD_SECONDS} s") from error
    if child.returncode < 0:
        raise UserError(f"{path} is damaged: the HDF5 library crashes on it")


def _open_h5ad(path: Path) -> CellFile:
    import anndata  # the extra `cells`

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = anndata.read_h5ad(path, backed="r")
    columns = {str(name): _as_text(data.obs[name]) for name in data.obs.columns}
    return CellFile(path, tuple(map(str, data.var_names)), tuple(map(str, data.obs_names)), columns, data.X)


def _open_csv(path: Path) -> CellFile:
    import pandas

    table = pandas.read_csv(path, index_col=0)
    numbers = table.select_dtypes("number")
    others = {str(name): _as_text(table[name]) for name in table.columns.difference(numbers.columns)}
    genes, cells = tuple(map(str, numbers.columns)), tuple(map(str, table.index))
    return CellFile(path, genes, cells, others, numbers.to_numpy(np.float32))


def _as_text(column: Any) -> npt.NDArray[np.str_]:
    """Return a column of a table as text [N], with "" for missing values."""
    values = column.astype(object)
    return np.asarray(values.where(values.notna(), "").astype(str), dtype=str)


def read_orthologues(path: Path) -> dict[str, str]:
    """Read a CSV table of two columns, gene of the data and gene of the model; further columns are ignored.

    Raises
    ------
    UserError
        For a missing file, or a line of fewer than two columns (naming it).
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the table of orthologues {path}: {error}") from error
    for number, line in enumerate(lines, start=1):
        if len(line) < 2:
            raise UserError(
                f"line {number} of {path} has one column: the gene of the data, that of the model"
            )
    return {line[0]: line[1] for line in lines}
