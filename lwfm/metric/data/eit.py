"""Series of electrical impedance tomography (EIT): EIDORS .mat and Viasys .get files, and arrays of NumPy.

Frames hold the voltages of 16 electrodes with adjacent drive and measurement: 208 values, for each driving
pair i the measuring pairs j that share no electrode with it, in ascending order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lwfm._common.ranges import check_positive
from lwfm._common.text import listed
from lwfm.errors import UserError
from lwfm.metric.data.archives import files_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    Frames = npt.NDArray[np.float32]

ELECTRODES = 16
SUFFIXES = (".mat", ".get", ".npy")
_LEAST = 16
"""Frames of a recording, at least."""
_PAIRS = np.arange(ELECTRODES)
MEASURED = np.array(
    [ELECTRODES * i + j for i in _PAIRS for j in _PAIRS if (j - i) % ELECTRODES not in {0, 1, ELECTRODES - 1}]
)
"""Places of the 208 measured values among the 256 of all pairs, ``16 i + j``."""


@dataclass(frozen=True, eq=False)
class Recording:
    """Frames of one person.

    Attributes
    ----------
    name : str
        Of the file, or of the variable in it.
    rate : float
        Frames a second.
    frames : ndarray
        [T, M] float32: voltages (M = 208), or pixels.
    shape : tuple of int
        (H, W) of pixels, () for voltages and other channels.
    """

    name: str
    rate: float
    frames: Frames
    shape: tuple[int, ...] = ()


def read_recordings(root: Path, rate: float, *, names: Sequence[str] = ()) -> list[Recording]:
    """Read all recordings of a file, folder or zip.

    Parameters
    ----------
    root : Path
        EIDORS ``.mat`` files (each matrix of 208 or 256 rows is a recording), Viasys ``.get`` files, and
        ``.npy`` arrays [T, M] or [T, H, W].
    rate : float
        Frames a second, which the files do not hold.
    names : sequence of str
        Recordings to read; by default all.

    Raises
    ------
    UserError
        Naming the file and what is wrong with it, or the recordings that there are.
    """
    check_positive(rate=rate)
    with files_of(root, SUFFIXES, what="recording") as paths:
        found = [each for path in paths for each in _read(path, rate)]
    if missing := [name for name in names if name not in {each.name for each in found}]:
        raise UserError(
            f"{root} has no recording {missing[0]}: there are {listed([each.name for each in found], 12)}"
        )
    return [each for each in found if not names or each.name in names]


def _read(path: Path, rate: float) -> list[Recording]:
    readers = {".mat": _read_mat, ".get": _read_get, ".npy": _read_npy}
    recordings = []
    for name, frames, shape in readers[path.suffix.lower()](path):
        if not np.isfinite(frames).all():
            raise UserError(f"the recording {name} of {path} holds NaN or infinite values")
        if len(frames) < _LEAST:
            raise UserError(
                f"the recording {name} of {path} has {len(frames)} frames; at least {_LEAST} are needed"
            )
        if not frames.std(0).any():
            raise UserError(f"no value of the recording {name} of {path} changes")
        recordings.append(Recording(name, rate, frames, shape))
    return recordings


def _read_mat(path: Path) -> list[tuple[str, Frames, tuple[int, ...]]]:
    from scipy.io import loadmat

    try:
        content = loadmat(path)
    except Exception as error:  # scipy raises anything on damaged files
        raise UserError(f"{path} is not a readable .mat file (up to version 7.2): {error}") from error
    found: list[tuple[str, Frames, tuple[int, ...]]] = []
    for name, values in content.items():
        shaped = isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "iuf"
        if shaped and values.shape[0] in {len(MEASURED), ELECTRODES**2} and values.shape[1] >= _LEAST:
            rows = values[MEASURED] if len(values) == ELECTRODES**2 else values
            found.append((name, np.ascontiguousarray(rows.T, dtype=np.float32), ()))
    if not found:
        kinds = [f"{name} {list(np.shape(values))}" for name, values in content.items() if name[0] != "_"]
        raise UserError(
            f"{path} holds no series of frames: a matrix of 208 or 256 rows and at least {_LEAST} columns; "
            f"it has {listed(kinds, 8)}"
        )
    return found


def _read_get(path: Path) -> list[tuple[str, Frames, tuple[int, ...]]]:
    """Read frames of 256 little-endian float32: 16 times 13 measurements that begin beside the driving pair.

    The order is not documented; in it, and not in ascending order, the voltages of exchanged pairs are equal.
    """
    content = path.read_bytes()
    if len(content) == 0 or len(content) % (4 * ELECTRODES**2):
        raise UserError(
            f"{path} is not a whole Viasys file: frames have {4 * ELECTRODES**2} bytes, it has {len(content)}"
        )
    values = np.frombuffer(content, "<f4").reshape(-1, ELECTRODES**2)[:, : len(MEASURED)]
    pairs = (_PAIRS[:, None] + 2 + np.arange(ELECTRODES - 3)) % ELECTRODES
    order = np.argsort(pairs, axis=1) + (ELECTRODES - 3) * _PAIRS[:, None]
    return [(path.stem, np.ascontiguousarray(values[:, order.ravel()], dtype=np.float32), ())]


def _read_npy(path: Path) -> list[tuple[str, Frames, tuple[int, ...]]]:
    try:
        values = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy raises anything on damaged files
        raise UserError(f"{path} is not a readable array: {error}") from error
    if values.ndim not in {2, 3} or values.dtype.kind not in "iuf":
        raise UserError(
            f"{path} must hold numbers [frames, channels] or [frames, height, width], not "
            f"{values.dtype} {list(values.shape)}"
        )
    shape = tuple(values.shape[1:]) if values.ndim == 3 else ()
    frames = values.reshape(len(values), -1).astype(np.float32)
    if frames.shape[1] == ELECTRODES**2 and not shape:
        frames = frames[:, MEASURED]
    return [(path.stem, frames, shape)]
