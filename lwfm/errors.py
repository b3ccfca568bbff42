"""The one exception that stands for a mistake of the user or of their files."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user gave is wrong; the message says what, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """
