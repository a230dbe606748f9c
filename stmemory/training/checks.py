"""Checks of configurations: types and ranges of a record's fields. Knows no configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from stmemory.errors import OptionError

__all__ = ["check_types", "check_values"]

_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
_WORDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


def check_types(record: Any) -> None:
    """Refuse a field of a dataclass that is not of its type, where that is int, float, str or bool; an int is a float.

    Args:
        record: a dataclass whose annotations are not evaluated.

    Raises:
        OptionError: a field is of another type; true and false are no numbers.

    >>> check_types(dataclasses.make_dataclass("Phase", [("steps", "int")])(2.5))
    Traceback (most recent call last):
    stmemory.errors.OptionError: Phase: expected steps to be a whole number, got 2.5
    """
    for field in dataclasses.fields(record):
        kind, value = str(field.type), getattr(record, field.name)
        if kind in _TYPES and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "bool")):
            raise OptionError(f"{type(record).__name__}: expected {field.name} to be {_WORDS[kind]}, got {value!r}")


def check_values(record: object, checks: Sequence[tuple[str, bool, str]]) -> None:
    """Refuse a record of which a field is out of its range.

    Args:
        record: of any kind.
        checks: name of a field, whether it is fine, and what was expected of it.

    Raises:
        OptionError: a field is not fine.

    >>> phase = dataclasses.make_dataclass("Phase", ["steps"])(0)
    >>> check_values(phase, [("steps", phase.steps >= 1, "1 or more")])
    Traceback (most recent call last):
    stmemory.errors.OptionError: Phase: expected steps of 1 or more, got 0
    """
    for name, fine, expected in checks:
        if not fine:
            raise OptionError(f"{type(record).__name__}: expected {name} of {expected}, got {getattr(record, name)}")
