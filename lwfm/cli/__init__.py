"""The command line ``lwfm``."""

from __future__ import annotations

from lwfm.cli.commands import COMMANDS, build_parser, join_configurations, main

__all__ = ["COMMANDS", "build_parser", "join_configurations", "main"]
