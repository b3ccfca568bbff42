"""Answers of the heartbeat separator: both parts, traces, and images of the heart through a beat."""

from __future__ import annotations

import csv
import io
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.decomposition import PCA

from lwfm._common.files import atomic_path, write_bytes_atomically
from lwfm.figures import check_figure_suffix, save_figure
from lwfm.metric.data.eit import ELECTRODES, MEASURED, read_recordings
from lwfm.metric.systems.eit_heartbeat import beat_waves, find_beats
from lwfm.metric.systems.system import check_names_differ

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from lwfm.metric.data.eit import Recording
    from lwfm.metric.systems.eit_heartbeat import EITHeartbeatSeparator, Parts

    Array = npt.NDArray[np.float64]

_SIZE = 32
_PHASES = 16
"""Images of a beat."""
_LAMBDA = 0.02
_SCALE = 8
"""Pixels of the animation for one of the image."""


def predict(
    separator: EITHeartbeatSeparator,
    inputs: Sequence[Path],
    out: Path,
    figure: Path | None,
    *,
    names: Sequence[str] = (),
) -> str:
    """Separate recordings; write a CSV of traces, both parts as arrays, and an animation of the heart.

    Parameters
    ----------
    separator : EITHeartbeatSeparator
        Fitted.
    inputs : sequence of Path
        Recordings.
    out : Path
        CSV file: recording, seconds, heart, breath (the strongest component of each part). Beside it, for
        each recording, ``NAME-heart.npy`` and ``NAME-breath.npy`` [T, M], and ``NAME-heart.gif``, the
        image of the heart through a mean beat, for pixels, or for voltages if pyEIT is installed.
    figure : Path, optional
        Traces and images of the first recording.
    names : sequence of str
        Recordings of the inputs to separate; by default all.
    """
    if figure is not None:
        check_figure_suffix(figure)
    recordings = [each for path in inputs for each in read_recordings(path, separator.rate, names=names)]
    check_names_differ(each.name for each in recordings)
    lines, answers = [], []
    for each in recordings:
        answers.append(Answer(each, separator.separate(each), separator.heart_))
        lines.append(answers[-1].write(out.parent))
    with atomic_path(out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["recording", "seconds", "heart", "breath"])
        for answer in answers:
            table.writerows(answer.rows())
    if figure is not None:
        save_figure(answers[0].figure(), figure)
        lines.append(f"traces and images of {answers[0].recording.name}: {figure}")
    return "\n".join([*lines, f"traces: {out}"])


class Answer:
    """A separated recording.

    Parameters
    ----------
    recording : Recording
        What was separated.
    parts : Parts
        Of it.
    heart : float
        Beats a second, about.
    """

    def __init__(self, recording: Recording, parts: Parts, heart: float) -> None:
        self.recording, self.parts = recording, parts
        self.traces = [PCA(1, random_state=0).fit_transform(part)[:, 0] for part in parts]
        self.traces[0] *= np.sign((self.traces[0] ** 3).mean()) or 1
        self.beats = find_beats(self.traces[0], recording.rate, heart)

    def rows(self) -> list[list[Any]]:
        """Return the rows of the table of traces."""
        seconds = np.arange(len(self.traces[0])) / self.recording.rate
        return [
            [self.recording.name, f"{second:.3f}", f"{heart:.6g}", f"{breath:.6g}"]
            for second, heart, breath in zip(seconds, *self.traces, strict=True)
        ]

    def write(self, folder: Path) -> str:
        """Write both parts and the animation to a folder; return a line about them."""
        name = self.recording.name
        for part, values in zip(("heart", "breath"), self.parts, strict=True):
            stream = io.BytesIO()
            np.save(stream, values.astype(np.float32), allow_pickle=False)
            write_bytes_atomically(folder / f"{name}-{part}.npy", stream.getvalue())
        written = f"{name}: {len(self.beats)} beats; {name}-heart.npy, {name}-breath.npy"
        images = self.beat()
        if images is not None:
            write_bytes_atomically(folder / f"{name}-heart.gif", animation(images))
            written += f", {name}-heart.gif"
        return f"{written} in {folder}"

    def beat(self) -> Array | None:
        """Return images [16, H, W] of the heart through its mean beat; None where there can be none."""
        if len(self.beats) < 3:
            return None
        waves = beat_waves(self.beats, np.arange(self.beats[0], self.beats[-1]))
        heart = self.parts.heart[self.beats[0] : self.beats[-1]]
        shape = np.linalg.lstsq(waves, heart, rcond=None)[0]
        # One beat of a unit length, in as many steps as there are images.
        means = beat_waves(np.array([0, _PHASES]), np.arange(_PHASES)) @ shape
        return images_of(means, self.recording)

    def figure(self) -> Figure:
        """Draw traces, the spread of both parts as images, and the heart through its mean beat."""
        figure = Figure(figsize=(10, 6.5), layout="constrained")
        grid = figure.add_gridspec(3, 6)
        seconds = np.arange(len(self.traces[0])) / self.recording.rate
        shown = seconds < 30
        for row, (title, trace) in enumerate(zip(("heart", "breath"), self.traces, strict=True)):
            axes = figure.add_subplot(grid[row, :4])
            axes.plot(seconds[shown], trace[shown], linewidth=0.8, color=("tab:red", "tab:blue")[row])
            axes.set_ylabel(title, fontsize=8)
            axes.tick_params(labelsize=7)
            axes.margins(x=0)
        axes.set_xlabel(f"seconds; {self.recording.name}", fontsize=8, parse_math=False)
        for row, (title, part) in enumerate(zip(("heart", "breath"), self.parts, strict=True)):
            images = images_of(part, self.recording)
            if images is None:
                continue
            axes = figure.add_subplot(grid[row, 4:])
            axes.imshow(images.std(0), cmap="magma")
            axes.set_title(f"spread of the {title}", fontsize=8)
            axes.set_axis_off()
        images = self.beat()
        if images is None:
            return figure
        limit = np.nanmax(np.abs(images))
        for column, number in enumerate(range(0, _PHASES, 3)):
            axes = figure.add_subplot(grid[2, column])
            axes.imshow(images[number], cmap="RdBu_r", vmin=-limit, vmax=limit)
            axes.set_title(f"{number}/{_PHASES} of a beat", fontsize=8)
            axes.set_axis_off()
        return figure


def animation(images: Array) -> bytes:
    """Return a GIF of images [K, H, W], red where conductivity is above its mean, blue where it is below."""
    from matplotlib import colormaps

    limit = np.nanmax(np.abs(images)) or 1
    colored = colormaps["RdBu_r"](np.nan_to_num(images / limit / 2) + 0.5)[..., :3]
    frames = [
        Image.fromarray((255 * each).astype(np.uint8)).resize(
            (_SCALE * images.shape[2], _SCALE * images.shape[1]), Image.Resampling.BICUBIC
        )
        for each in colored
    ]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:], duration=80, loop=0)
    return stream.getvalue()


def images_of(changes: npt.NDArray[Any], recording: Recording) -> Array | None:
    """Return changes [T, M] as images [T, H, W]; None for channels that are neither pixels nor voltages.

    Voltages are divided by their mean, and reconstructed by one step of Gauss and Newton.
    """
    if recording.shape:
        return np.asarray(changes, dtype=np.float64).reshape(-1, *recording.shape)
    if changes.shape[1] != len(MEASURED) or not find_spec("pyeit"):
        return None
    mean = recording.frames.mean(0, dtype=np.float64)
    smallest = 1e-3 * np.abs(mean).max()
    relative = changes / np.where(np.abs(mean) < smallest, smallest, mean)
    matrix, pixels = _reconstruction()
    images = np.full((len(changes), _SIZE * _SIZE), np.nan)
    images[:, pixels >= 0] = (relative @ matrix.T)[:, pixels[pixels >= 0]]
    return images.reshape(-1, _SIZE, _SIZE)


@lru_cache(maxsize=1)
def _reconstruction() -> tuple[Array, npt.NDArray[np.int64]]:
    """Return the matrix [elements, 208] from relative voltages to conductivity, and each pixel's element.

    The weights of regularization are the square roots of the sensitivities' diagonal.
    """
    from pyeit import mesh
    from pyeit.eit import protocol
    from pyeit.eit.fem import EITForward

    body = mesh.create(ELECTRODES, h0=0.1)
    plan = protocol.create(ELECTRODES, dist_exc=1, step_meas=1, parser_meas="std")
    jacobian, base = EITForward(body, plan).compute_jac()
    relative = jacobian / base[:, None]
    square = relative.T @ relative
    weights = np.sqrt(np.diag(square).clip(1e-12))
    weights *= _LAMBDA * np.diag(square).mean() / weights.mean() * len(weights) ** 0.5
    matrix = np.linalg.solve(square + np.diag(weights), relative.T)
    centers = body.node[body.element].mean(1)[:, :2]
    place = (np.arange(_SIZE) + 0.5) / _SIZE * 2 - 1
    x, y = np.meshgrid(place, -place)
    distance = np.square(x.ravel()[:, None] - centers[:, 0]) + np.square(y.ravel()[:, None] - centers[:, 1])
    inside = np.hypot(x, y).ravel() < 1
    return matrix, np.where(inside, distance.argmin(1), -1)
