"""Checks of configurations: names, types and ranges of a record's fields, told by the field. Knows no configuration."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from stmemory.errors import OptionError
from stmemory.untrusted import parse_json, shown

__all__ = ["check_types", "check_values", "read_json", "read_list", "read_record", "read_records"]

_Record = TypeVar("_Record")
_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "dict[str, Any]": (Mapping,),
    "Mapping[str, Any]": (Mapping,),
}
_OBJECT = "an object of settings, in { and }"
_WORDS = {
    "int": "a whole number",
    "float": "a finite number",
    "str": "text",
    "bool": "true or false",
    "dict[str, Any]": _OBJECT,
    "Mapping[str, Any]": _OBJECT,
}


def check_types(record: Any) -> None:
    """Refuse a field of a dataclass that is not of its type, where that is int, float, str, bool or a mapping; an int
    is a float.

    Args:
        record: a dataclass whose annotations are not evaluated.

    Raises:
        OptionError: a field is of another type; true and false are no numbers, and neither are NaN and infinity.

    >>> check_types(dataclasses.make_dataclass("Phase", [("steps", "int")])(2.5))
    Traceback (most recent call last):
    stmemory.errors.OptionError: Phase.steps: expected a whole number, got 2.5
    """
    for field in dataclasses.fields(record):
        _check_type(str(field.type), getattr(record, field.name), f"{type(record).__name__}.{field.name}")


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
    stmemory.errors.OptionError: Phase.steps: expected 1 or more, got 0
    """
    for name, fine, expected in checks:
        if not fine:
            raise OptionError(f"{type(record).__name__}.{name}: expected {expected}, got {getattr(record, name)!r}")


def read_record(kind: type[_Record], values: object, where: str = "") -> _Record:
    """Make a dataclass of a JSON object; what is wrong is told by its place in the file.

    Args:
        kind: of the record.
        values: its fields; those that are not there keep their defaults.
        where: the object's place in the file, such as `phases[0]`; empty for the file's own.

    Raises:
        OptionError: it is no object, a name does not exist, or a value is of another type or out of its range.

    >>> read_record(dataclasses.make_dataclass("Phase", [("steps", "int", 5)]), {"step": 3}, "phases[0]")
    Traceback (most recent call last):
    stmemory.errors.OptionError: phases[0].step: expected the name of a setting, got one that does not exist; did you
    mean steps?
    """
    known: Any = kind
    if not isinstance(values, Mapping):
        raise OptionError(f"{where}{': ' * bool(where)}expected {_OBJECT}, got {shown(values)}")
    inside, types = where and f"{where}.", {field.name: str(field.type) for field in dataclasses.fields(known)}
    for name, value in values.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, 1)
            advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(types)}"
            raise OptionError(f"{inside}{name}: expected the name of a setting, got one that does not exist; {advice}")
        _check_type(types[name], value, f"{inside}{name}")
    own = kind.__name__
    try:
        return kind(**values)
    except OptionError as error:
        said = str(error)
        if said.startswith(f"{own}."):
            raise OptionError(f"{inside}{said.removeprefix(f'{own}.')}") from error
        if said.startswith(f"{own}: ") and where:
            raise OptionError(f"{where}: {said.removeprefix(f'{own}: ')}") from error
        raise
    except (TypeError, ValueError) as error:  # of values inside of values
        raise OptionError(f"{where or own}: expected values of the types that are documented, got: {error}") from error


def read_json(text: str, *, see: str) -> Any:
    """The values of a JSON text, see `parse_json`.

    Args:
        text: all of it.
        see: the record that says what belongs there.

    Raises:
        OptionError: it is no JSON.

    >>> read_json("{", see="TrainingConfig")
    Traceback (most recent call last):
    stmemory.errors.OptionError: see TrainingConfig: expected JSON, got something else: Expecting property name enclosed
    in double quotes: line 1 column 2 (char 1); the file is damaged or of another kind
    """
    try:
        return parse_json(text)
    except OptionError as error:
        raise OptionError(f"see {see}: {error}") from error


def read_records(kind: type[_Record], values: object, where: str) -> tuple[_Record, ...]:
    """Make dataclasses of a JSON list of objects, see `read_record`.

    Raises:
        OptionError: it is no list, or one of them is wrong.

    >>> phase = dataclasses.make_dataclass("Phase", [("steps", "int", 5)])
    >>> [each.steps for each in read_records(phase, [{"steps": 3}, {}], "phases")]
    [3, 5]
    """
    return tuple(
        read_record(kind, value, f"{where}[{number}]") for number, value in enumerate(read_list(values, where))
    )


def read_list(values: object, where: str) -> list[Any]:
    """A list as it is.

    Args:
        values: from JSON.
        where: its place in the file.

    Raises:
        OptionError: it is something else.

    >>> read_list({"root": "mine"}, "sources")
    Traceback (most recent call last):
    stmemory.errors.OptionError: sources: expected a list, in [ and ], got {'root': 'mine'}
    """
    if not isinstance(values, list):
        raise OptionError(f"{where}: expected a list, in [ and ], got {shown(values)}")
    return values


def _check_type(kind: str, value: object, name: str) -> None:
    fine = kind not in _TYPES or (isinstance(value, _TYPES[kind]) and (kind == "bool" or not isinstance(value, bool)))
    if not fine or (kind in _TYPES and isinstance(value, float) and not math.isfinite(value)):
        raise OptionError(f"{name}: expected {_WORDS[kind]}, got {shown(value)}")
