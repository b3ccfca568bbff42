"""Configurations and experiment plans that the package brings, by name; ``lwfm presets`` lists them.

Each is a YAML file of this folder whose comment begins with one line of what it is for and names the command
that takes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from lwfm.errors import UserError

__all__ = ["Preset", "list_presets", "preset_path"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Preset:
    """A shipped configuration or plan.

    Attributes
    ----------
    name : str
        Its name, for `--preset`.
    command : str
        The command whose options it sets: pretrain or train; or experiment, for a plan.
    summary : str
        What it is for.
    path : Path
        Its YAML file.
    """

    name: str
    command: str
    summary: str
    path: Path


def list_presets(command: str | None = None) -> list[Preset]:
    """List the presets, by name.

    Parameters
    ----------
    command : str, optional
        pretrain, train or experiment: only the presets of this command.

    Examples
    --------
    >>> print(*(preset.name for preset in list_presets("experiment")))
    ablation from-scratch from-scratch-resnet12 from-scratch-resnet12-small heads paper-or-recommended
    """
    presets = [_read(path) for path in sorted(_FOLDER.glob("*.yaml"), key=lambda path: path.stem)]
    return [preset for preset in presets if command in (None, preset.command)]


def preset_path(name: str, command: str | None = None) -> Path:
    """Return the YAML file of a preset.

    Parameters
    ----------
    name : str
        Its name, see :func:`list_presets`.
    command : str, optional
        The command that it must be for.

    Raises
    ------
    UserError
        If there is no such preset, or it is for another command; names the nearest one and all others.

    Examples
    --------
    >>> preset_path("recommended").name
    'recommended.yaml'
    """
    presets = {preset.name: preset for preset in list_presets()}
    if name in presets and command in (None, presets[name].command):
        return presets[name].path
    suitable = [preset.name for preset in list_presets(command)]
    if name in presets:
        wrong = f"the preset {name} is for lwfm {presets[name].command}, not for lwfm {command}"
    else:
        wrong = f"there is no preset {name}"
        if near := get_close_matches(name, suitable, n=1):
            wrong += f"; did you mean {near[0]}?"
    raise UserError(f"{wrong}\nPresets{f' of lwfm {command}' if command else ''}: {', '.join(suitable)}")


def _read(path: Path) -> Preset:
    """Read what the comment at the beginning of a preset says about it."""
    text = path.read_text(encoding="utf-8")
    found = re.match(r"# (?P<summary>.+)\n(?:# .*\n)*?#   lwfm (?P<command>\w+) ", text)
    assert found, f"{path} does not begin with a line of what it is for, and its command"  # noqa: S101
    return Preset(path.stem, found["command"], found["summary"].rstrip("."), path)
