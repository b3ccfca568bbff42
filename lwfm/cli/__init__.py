"""The command line ``lwfm``; :data:`COMMANDS` lists what it does."""

from __future__ import annotations

from lwfm.cli.commands import COMMANDS
from lwfm.cli.main import main

__all__ = ["COMMANDS", "main"]
