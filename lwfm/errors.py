"""The exception for a mistake of the user or in their files."""

from __future__ import annotations


class UserError(ValueError):
    """An input of the user is wrong; the message says what, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """
