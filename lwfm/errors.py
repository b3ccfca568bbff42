"""The exceptions for a mistake of the user or in their files."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class UserError(ValueError):
    """An input of the user is wrong; the message says what, where, and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


class UnsavedResultError(UserError):
    """A file of a result could not be written; the command line prints the result all the same.

    Attributes
    ----------
    result : object
        What the function would have returned.
    """

    def __init__(self, message: str, result: object) -> None:
        super().__init__(message)
        self.result = result


@contextmanager
def keeping(result: object) -> Iterator[None]:
    """Attach the result to a UserError of the block, which writes it.

    Examples
    --------
    >>> try:
    ...     with keeping(0.93):
    ...         raise UserError("cannot write answers.csv: the disk is full")
    ... except UnsavedResultError as error:
    ...     print(error, error.result)
    cannot write answers.csv: the disk is full 0.93
    """
    try:
        yield
    except UserError as error:
        raise UnsavedResultError(str(error), result) from error
