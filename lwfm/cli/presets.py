"""``lwfm presets``: list the configurations and plans that the package brings, or print one."""

from __future__ import annotations

from lwfm.presets import list_presets, preset_path

_USES = {
    "pretrain": "lwfm pretrain --preset NAME",
    "train": "lwfm train --preset NAME",
    "experiment": "lwfm experiment NAME",
}


def presets(name: str | None = None) -> str:
    """List the presets by the command that takes them, or return the YAML of one.

    A preset sets options as a file given by `--config` does; options of the command line override it. To
    change more of it, write it to a file: `lwfm presets paper > mine.yaml`.

    Parameters
    ----------
    name : str, optional
        The preset to print; by default all are listed.

    Returns
    -------
    str
        What the command prints.

    Raises
    ------
    UserError
        If there is no preset of this name.

    Examples
    --------
    >>> print(presets("recommended").splitlines()[1])
    #   lwfm train --preset recommended --root FOLDER --out runs/recommended
    """
    if name is not None:
        return preset_path(name).read_text(encoding="utf-8").rstrip("\n")
    width = max(len(preset.name) for preset in list_presets())
    return "\n\n".join(
        "\n".join([use, *(f"  {each.name:<{width}}  {each.summary}" for each in list_presets(command))])
        for command, use in _USES.items()
    )
