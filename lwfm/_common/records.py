"""JSON of files: parsed strictly, and built into dataclasses after a check of all types."""

from __future__ import annotations

import json
import math
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from lwfm.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from jsonargparse import ArgumentParser

Record = TypeVar("Record")


def parse_json(text: str) -> Any:
    """Parse JSON whose numbers have at most 64 bits.

    Raises
    ------
    ValueError
        For anything else: NaN and infinite numbers, huge integers, and nesting too deep to be read, too.

    Examples
    --------
    >>> parse_json('{"way": 5}')
    {'way': 5}
    >>> parse_json('{"accuracy": NaN}')
    Traceback (most recent call last):
    ...
    ValueError: NaN is not a finite number
    """
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_of_64_bits)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _of_64_bits(text: str) -> int:
    number = int(text) if len(text) <= 20 else 2**64  # int() of very many digits is refused by Python itself
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"the number {text[:20]}{'...' * (len(text) > 20)} does not fit into 64 bits")
    return number


def read_json(path: Path) -> Any:
    """Read a file by :func:`parse_json`; UserError naming it when that fails."""
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError too
        raise UserError(f"{path} is not JSON in UTF-8: {error}") from error


def build_record(kind: type[Record], values: Any, *, others: bool = False) -> Record:
    """Build a dataclass from JSON values, lists becoming tuples where it has tuples.

    With ``others`` the values may have further entries, which are left out. A field may be a TypedDict, but
    no dataclass: the parser would import what the values name as its class.

    Raises
    ------
    UserError
        Naming the first entry that is missing, unknown, or of another type.

    Examples
    --------
    >>> from lwfm.data.white_levels import WhiteLevels
    >>> build_record(WhiteLevels, {"integers": 4095, "floats": None})
    WhiteLevels(integers=4095, floats=None)
    """
    from jsonargparse import ArgumentError  # an extra, and slow to import

    if not isinstance(values, dict):
        raise UserError(f"expected entries by name, got {str(values)[:40]!r}")
    hints, parser = get_type_hints(kind), _parser(kind)  # type: ignore[arg-type]  # a class is hashable
    if others:
        values = {name: value for name, value in values.items() if name in hints}
    try:
        found = parser.instantiate(parser.parse_object(values)).as_dict()
    except (ArgumentError, TypeError, ValueError, KeyError) as error:
        raise UserError(" ".join(str(error).split())) from error
    for name, hint in hints.items():  # the parser accepts None for all that has a default
        if found[name] is None and type(None) not in get_args(hint):
            raise UserError(f"{name} must not be null")
    return kind(**found)


@cache
def _parser(kind: type[Any]) -> ArgumentParser:
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind)
    return parser
