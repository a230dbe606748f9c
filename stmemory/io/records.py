"""Dataclasses from JSON: each value is checked against its field, and a message names its place in the file."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from stmemory.errors import OptionError
from stmemory.io.untrusted import parse_json, shown

__all__ = ["check_types", "check_values", "load_record", "parse_record", "read_record"]

_Record = TypeVar("_Record")
_SCALARS: dict[object, tuple[tuple[type, ...], str]] = {
    int: ((int,), "a whole number"),
    float: ((int, float), "a finite number"),
    str: ((str,), "text"),
    bool: ((bool,), "true or false"),
    Mapping: ((Mapping,), "an object of settings, in { and }"),
}


def read_record(kind: type[_Record], values: object, where: str = "", *, complete: bool = False) -> _Record:
    """Make a dataclass of a JSON object, and those inside of it of the objects inside.

    Fields may be int, float, str, bool, mappings, dataclasses, and tuples of one of these of any length, which are
    lists in JSON. An int is a float.

    Args:
        kind: kind of the record.
        values: its fields; those that are not there keep their defaults.
        where: the object's place in the file, such as `phases[0]`; empty for the file's own.
        complete: whether all fields must be there, as in a file that a program wrote.

    Raises:
        OptionError: it is no object, a name does not exist or is missing, or a value is of another type or out of its
            range.

    >>> read_record(dataclasses.make_dataclass("Phase", [("steps", "int", 5)]), {"step": 3}, "phases[0]")
    Traceback (most recent call last):
    stmemory.errors.OptionError: phases[0].step: expected the name of a setting, got one that does not exist; did you
    mean steps?
    """
    own, inside, hints = kind.__name__, where and f"{where}.", _hints(kind)
    given = _checked(Mapping, values, where)
    unknown, missing = [sorted(set(a) - set(b), key=str) for a, b in ((given, hints), (hints, given))]
    if complete and (unknown or missing):
        raise OptionError(
            f"{where or own}: expected all of its settings and no others, got unknown keys {unknown}, missing keys "
            f"{missing}; the file is of another version of stmemory"
        )
    if unknown:
        near = difflib.get_close_matches(str(unknown[0]), hints, 1)
        advice = f"did you mean {near[0]}?" if near else f"there are {', '.join(hints)}"
        raise OptionError(
            f"{inside}{unknown[0]}: expected the name of a setting, got one that does not exist; {advice}"
        )
    fields = {name: _checked(hints[name], value, f"{inside}{name}") for name, value in given.items()}
    try:
        return kind(**fields)
    except OptionError as error:
        said = str(error)
        if said.startswith(f"{own}."):
            raise OptionError(f"{inside}{said.removeprefix(f'{own}.')}") from error
        if said.startswith(f"{own}: ") and where:
            raise OptionError(f"{where}: {said.removeprefix(f'{own}: ')}") from error
        raise
    except (TypeError, ValueError) as error:  # of values inside of mappings
        raise OptionError(f"{where or own}: expected values of the types that are documented, got: {error}") from error


def parse_record(kind: type[_Record], text: str) -> _Record:
    """Make a dataclass of a JSON text, see `read_record` and `parse_json`.

    Raises:
        OptionError: it is no JSON, or does not describe such a record.

    >>> parse_record(dataclasses.make_dataclass("Phase", [("steps", "int", 5)]), "{")
    Traceback (most recent call last):
    stmemory.errors.OptionError: see Phase: expected JSON, got something else: Expecting property name enclosed in
    double quotes: line 1 column 2 (char 1); the file is damaged or of another kind
    """
    try:
        values = parse_json(text)
    except OptionError as error:
        raise OptionError(f"see {kind.__name__}: {error}") from error
    return read_record(kind, values)


def load_record(kind: type[_Record], path: str | Path, *, what: str) -> _Record:
    """Make a dataclass of a JSON file, see `read_record`.

    Args:
        kind: kind of the record.
        path: path of the file.
        what: is described there, for messages.

    Raises:
        OptionError: the file is missing, is no text, is no JSON, or does not describe such a record.

    >>> load_record(dataclasses.make_dataclass("Run", [("steps", "int", 5)]), "no/such.json", what="a run")
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such.json: expected the JSON of a run, see Run, got: No such file or directory;
    check the path
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        came = f": {error.strerror or error}" if isinstance(error, OSError) else " a file that is no text"
        raise OptionError(
            f"{path}: expected the JSON of {what}, see {kind.__name__}, got{came}; check the path"
        ) from error
    try:
        return parse_record(kind, text)
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error


def check_types(record: Any) -> None:
    """Refuse a field of a dataclass that is not of its type, where that is int, float, str, bool or a mapping.

    Raises:
        OptionError: a field is of another type; true and false are no numbers, and neither are NaN and infinity.

    >>> check_types(dataclasses.make_dataclass("Phase", [("steps", "int")])(2.5))
    Traceback (most recent call last):
    stmemory.errors.OptionError: Phase.steps: expected a whole number, got 2.5
    """
    for name, hint in _hints(type(record)).items():
        if hint in _SCALARS:
            _checked(hint, getattr(record, name), f"{type(record).__name__}.{name}")


def check_values(record: object, checks: Sequence[tuple[str, bool, str]]) -> None:
    """Refuse a record of which a field is out of its range.

    Args:
        record: record of any kind.
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


def _hints(kind: type) -> dict[str, Any]:
    """Types of a dataclass's fields by name; of mappings `Mapping` alone."""
    known: Any = kind
    hints = get_type_hints(kind)
    types_of = {field.name: hints.get(field.name) for field in dataclasses.fields(known)}
    return {name: Mapping if _is_mapping(hint) else hint for name, hint in types_of.items()}


def _is_mapping(hint: object) -> bool:
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _checked(hint: Any, value: object, where: str) -> Any:
    """A value as a field of that type holds it."""
    if hint in _SCALARS:
        kinds, expected = _SCALARS[hint]
        fine = isinstance(value, kinds) and isinstance(value, bool) == (hint is bool)
        if not fine or (isinstance(value, float) and not math.isfinite(value)):
            raise OptionError(f"{where}{': ' * bool(where)}expected {expected}, got {shown(value)}")
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return read_record(hint, value, where)
    elif get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise OptionError(f"{where}: expected a list, in [ and ], got {shown(value)}")
        return tuple(_checked(get_args(hint)[0], item, f"{where}[{number}]") for number, item in enumerate(value))
    return value
