"""Write lwfm/cli/help.json: the arguments of every command, as the help shows them.

    python tools/update_help.py

To be run after a change of a command's signature or docstring; a test fails as long as the file is outdated.
"""

from __future__ import annotations

import json
from importlib.metadata import version

from lwfm.cli import COMMANDS
from lwfm.cli.help import ARGUMENTS
from lwfm.cli.parser import describe_arguments


def main() -> None:
    """Write the file."""
    commands = {
        name: {title: [each._asdict() for each in group] for title, group in describe_arguments(name).items()}
        for name in COMMANDS
    }
    described = {"jsonargparse": version("jsonargparse"), "commands": commands}
    ARGUMENTS.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {ARGUMENTS}")


if __name__ == "__main__":
    main()
