"""Chest films in the layout of NIH ChestX-ray14: a table of findings, and images in folders or a zip.

The table is ``Data_Entry*.csv`` of NIH (columns ``Image Index``, ``Finding Labels`` with ``|`` between the
findings, ``Patient ID``) or ``labels.csv`` with columns ``image``, ``patient_id`` and one of 0 and 1 for each
finding (-1 or empty: not known). Images lie anywhere below the folder, or in zips in it. Films of patients in
``test_list.txt``, where there is one, are for testing.
"""

from __future__ import annotations

import csv
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from sklearn.model_selection import GroupShuffleSplit

from lwfm._common.progress import progress
from lwfm._common.ranges import check_between, check_counts
from lwfm._common.text import listed, one_line
from lwfm.data import open_image
from lwfm.data.decoding import image_endings
from lwfm.errors import UserError
from lwfm.metric.data.archives import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""The 14 findings of ChestX-ray14, in the order of its paper."""
NO_FINDING = "No Finding"
_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "-1": -1, "-1.0": -1, "": -1}


@dataclass(frozen=True, eq=False)
class Films:
    """Films and their findings.

    Attributes
    ----------
    images : ndarray
        [N, 1, size, size] float32 from 0 to 1.
    targets : ndarray
        [N, C] int64: 1, 0, or -1 where it is not known.
    findings : tuple of str
        Names [C].
    patients, names : ndarray
        [N] patient and file name of each film.
    test : ndarray
        [N] bool: for testing by the official list; all False where there is none.
    """

    images: npt.NDArray[np.float32]
    targets: npt.NDArray[np.int64]
    findings: tuple[str, ...]
    patients: npt.NDArray[np.str_]
    names: npt.NDArray[np.str_]
    test: npt.NDArray[np.bool_]

    def split(self, seed: int, share: float = 0.3) -> npt.NDArray[np.bool_]:
        """Return which films [N] are for testing: the official list, or those of a share of the patients."""
        if self.test.any():
            return self.test
        rows = GroupShuffleSplit(1, test_size=share, random_state=seed)
        _, chosen = next(rows.split(self.targets, groups=self.patients))
        return np.isin(np.arange(len(self.targets)), chosen)


def read_films(root: Path, *, size: int = 64, findings: Sequence[str] | None = None) -> Films:
    """Read films and their findings; the images are brought to `size` pixels, with a progress bar.

    Parameters
    ----------
    root : Path
        The folder, or a zip of it.
    size : int
        Height and width of the images in memory.
    findings : sequence of str, optional
        Which findings, by default those of :data:`FINDINGS` that the table has. Films with
        other ones only are films without finding.

    Raises
    ------
    UserError
        For a missing or damaged table, zip or image, images that the table does not name, and official
        lists that put a patient on both sides.
    """
    check_counts(size=size)
    check_between(16, 1024, size=size)
    with ExitStack() as stack:
        folder = root
        if not root.is_dir():
            folder = stack.enter_context(unpacked(root, other="a folder", content="chest films"))
        table = _find_table(folder, root)
        rows = _read_table(table, findings)
        paths = _find_images(folder, root, stack)
        names = [name for name in rows.names if name in paths]
        if not names:
            raise UserError(
                f"{root} holds none of the images that {table.name} names, such as {rows.names[0]}"
            )
        kept = np.isin(rows.names, names)
        images = read_images([paths[name] for name in rows.names[kept]], size)
        test = _official_test(table.parent, rows)
    return Films(images, rows.targets[kept], rows.findings, rows.patients[kept], rows.names[kept], test[kept])


def read_images(paths: Iterable[Path], size: int) -> npt.NDArray[np.float32]:
    """Read images as gray arrays [N, 1, size, size] from 0 to 1; UserError naming one that cannot be read."""
    found = [
        np.asarray(open_image(path).convert("L").resize((size, size), Image.Resampling.BOX), dtype=np.uint8)
        for path in progress(list(paths), "reading", "film")
    ]
    if not found:
        raise UserError("there is no film to read")
    return (np.stack(found)[:, None] / np.float32(255)).astype(np.float32)


def _find_table(folder: Path, root: Path) -> Path:
    for pattern in ("Data_Entry*.csv", "labels.csv", "*/Data_Entry*.csv", "*/labels.csv"):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise UserError(f"{root} holds several tables of findings: {listed([p.name for p in found], 3)}")
        if found:
            return found[0]
    raise UserError(
        f"{root} holds no table of findings: Data_Entry*.csv of NIH, or labels.csv with the columns image, "
        "patient_id and one of 0 and 1 for each finding"
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    names: npt.NDArray[np.str_]
    patients: npt.NDArray[np.str_]
    targets: npt.NDArray[np.int64]
    findings: tuple[str, ...]


def read_targets(path: Path, findings: Sequence[str]) -> npt.NDArray[np.int64]:
    """Read the findings [N, C] alone of a table, such as one that simulated films draw their labels from."""
    if not path.is_file():
        raise UserError(f"there is no table of findings {path}")
    return _read_table(path, findings).targets


def _read_table(path: Path, findings: Sequence[str] | None) -> _Rows:
    """Read either kind of table."""
    try:
        if path.suffix == ".gz":
            import gzip

            text = gzip.decompress(path.read_bytes()).decode("utf-8-sig")
        else:
            text = path.read_text(encoding="utf-8-sig")
        reader = csv.DictReader(text.splitlines(), strict=True)
        rows, columns = list(reader), list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, EOFError, csv.Error) as error:
        raise UserError(f"cannot read the table {path}: {error}") from error
    if not rows:
        raise UserError(f"the table {path} has no row")
    if "Finding Labels" in columns:
        return _nih_rows(path, rows, columns, findings)
    return _indicator_rows(path, rows, columns, findings)


def _nih_rows(
    path: Path, rows: list[dict[str, Any]], columns: list[str], findings: Sequence[str] | None
) -> _Rows:
    _check_columns(path, columns, ("Image Index", "Patient ID"))
    _check_cells(path, rows, ("Image Index", "Finding Labels", "Patient ID"))
    sets = [set(row["Finding Labels"].split("|")) - {NO_FINDING} for row in rows]
    everything = sorted(set().union(*sets))
    if findings is None and (unknown := [name for name in everything if name not in FINDINGS]):
        raise UserError(
            f"{path} has findings that are not among the 14 of NIH, such as {one_line(unknown[0])!r}: name "
            "those to read by the option findings"
        )
    chosen = tuple(findings) if findings else tuple(name for name in FINDINGS if name in everything)
    if missing := [name for name in chosen if name not in everything]:
        raise UserError(f"{path} has no film with {listed(missing, 5)}; there are {listed(everything, 20)}")
    targets = np.array([[name in each for name in chosen] for each in sets], dtype=np.int64)
    return _joined(path, rows, "Image Index", "Patient ID", targets, chosen)


def _indicator_rows(
    path: Path, rows: list[dict[str, Any]], columns: list[str], findings: Sequence[str] | None
) -> _Rows:
    chosen = tuple(findings) if findings else tuple(name for name in FINDINGS if name in columns)
    if not chosen:
        raise UserError(
            f"{path} has no column of a finding, such as Effusion: name them by the option findings"
        )
    _check_columns(path, columns, ("patient_id", *chosen))
    _check_cells(path, rows, ("patient_id", *chosen))
    for number, row in enumerate(rows, start=2):
        for name in chosen:
            if row[name].strip() not in _VALUES:
                raise UserError(
                    f"{path}, line {number}: {name} must be 0, 1 or -1, not {one_line(row[name])!r}"
                )
    targets = np.array([[_VALUES[row[name].strip()] for name in chosen] for row in rows], dtype=np.int64)
    if "image" not in columns:
        rows = [{**row, "image": str(number)} for number, row in enumerate(rows)]
    return _joined(path, rows, "image", "patient_id", targets, chosen)


def _check_columns(path: Path, columns: list[str], needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in columns]:
        raise UserError(f"{path} lacks the column {missing[0]}; it has {listed(columns, 20)}")


def _check_cells(path: Path, rows: list[dict[str, Any]], needed: Sequence[str]) -> None:
    for number, row in enumerate(rows, start=2):
        if empty := [name for name in needed if row[name] is None]:
            raise UserError(f"{path}, line {number} is cut short: it has no {empty[0]}")


def _joined(
    path: Path,
    rows: list[dict[str, Any]],
    name: str,
    patient: str,
    targets: npt.NDArray[np.int64],
    findings: tuple[str, ...],
) -> _Rows:
    names = np.array([Path(row[name]).name for row in rows])
    unique, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise UserError(f"{path} names the image {unique[counts > 1][0]} twice")
    return _Rows(names, np.array([row[patient] for row in rows]), targets, findings)


def _find_images(folder: Path, root: Path, stack: ExitStack) -> dict[str, Path]:
    """Return the images below a folder, and in the zips in it, by their names."""
    zips = sorted(folder.glob("*.zip"))
    opened = [unpacked(path, other="a folder", content="chest films") for path in zips]
    folders = [folder, *(stack.enter_context(each) for each in opened)]
    paths: dict[str, Path] = {}
    for each in folders:
        for path in sorted(each.rglob("*")):
            if path.suffix.lower() in image_endings():
                if path.name in paths:
                    raise UserError(f"{root} holds two images of the name {path.name}")
                paths[path.name] = path
    return paths


def _official_test(folder: Path, rows: _Rows) -> npt.NDArray[np.bool_]:
    """Return which rows test_list.txt names; all False without that file."""
    path = folder / "test_list.txt"
    if not path.is_file():
        return np.zeros(len(rows.names), dtype=bool)
    try:
        test = np.isin(rows.names, path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list {path}: {error}") from error
    if test.all() or not test.any():
        raise UserError(f"{path} names {'all' if test.all() else 'none'} of the images in the table")
    both = np.intersect1d(rows.patients[test], rows.patients[~test])
    if len(both):
        raise UserError(f"{path}: the patient {both[0]} has films in it and others that are not")
    return test
