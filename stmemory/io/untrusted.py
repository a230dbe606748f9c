"""Names, paths, JSON and arrays out of files: checked once, where they enter, since a file may say anything."""

from __future__ import annotations

import json
import math
import os
import re
import tokenize
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import OptionError

__all__ = [
    "UNREADABLE_ARRAY",
    "checked_name",
    "checked_path",
    "expect_below",
    "parse_json",
    "read_array",
    "read_json",
    "shown",
    "whole",
]

DEEPEST = 64  # levels of lists and objects in each other; what follows walks over values by recursion
LARGEST = 2**31  # bytes of a JSON file; ten times as much is needed to hold its values
_LONGEST_NAME = 255  # bytes, what file systems take
_NO_BRACKETS = bytes(set(range(256)) - set(b'[]{}"'))
_LONG_NUMBER = re.compile(r"[0-9]{19}|[eE]\+?[0-9]{3}")
# What numpy raises on a damaged header, which is a Python expression, depends on the damage.
UNREADABLE_ARRAY = (
    *(OSError, ValueError, TypeError, EOFError, SyntaxError, tokenize.TokenError),
    *(ArithmeticError, LookupError, AttributeError, RecursionError, MemoryError),
)


def checked_name(name: object, *, what: str, ending: str = "") -> str:
    """A name that a file gives, once it is sure that it is one file or folder in the place where it is put.

    Args:
        name: as it stands in the file.
        what: the thing that is named and its place, for the message.
        ending: what is put after it.

    Raises:
        OptionError: it is no text, is empty, `.` or `..`, holds a separator of any platform, a drive letter or a
            control character, or is too long.

    >>> checked_name("walk", what="meta.json: a video")
    'walk'
    >>> checked_name("../walk", what="meta.json: a video")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    stmemory.errors.OptionError: meta.json: a video: expected the name of one file or folder, got '../walk', ...
    """
    fault = _fault_of(name, ending)
    if fault:
        raise OptionError(
            f"{what}: expected the name of one file or folder, got {shown(name)}, "
            f"which {fault}; rename it, or correct the file that names it"
        )
    return str(name)


def checked_path(path: object, *, what: str) -> Path:
    """A relative path that a file gives, with `/` between its parts, once it is sure that each part is a name.

    Args:
        path: as it stands in the file.
        what: the thing that is named and its place, for the message.

    Raises:
        OptionError: it is no text or absolute, or a part of it is not as `checked_name` asks for.

    >>> checked_path("walk/00000.jpg", what="a picture").as_posix()
    'walk/00000.jpg'
    """
    faults = [_fault_of(part, "") for part in path.split("/")] if isinstance(path, str) else ["is no text"]
    if isinstance(path, str) and path.startswith("/"):
        faults.insert(0, "is absolute")
    fault = next(filter(None, faults), "")
    if fault:
        raise OptionError(
            f"{what}: expected a path below the folder of the data, got "
            f"{shown(path)}, which {fault}; correct the file that names it"
        )
    return Path(str(path))


def expect_below(path: Path, root: Path) -> None:
    """Refuse a place to write or remove that is not below a folder, once links are followed.

    Args:
        path: path of a file or folder, which need not be there.
        root: the folder that the user named.

    Raises:
        OptionError: a link leads out of the folder.

    >>> expect_below(Path("out/masks"), Path("out"))
    """
    try:
        inside = path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError, ValueError):  # links in a circle, or a name that cannot be
        inside = False
    if not inside:
        raise OptionError(
            f"{path}: expected a place below {root}, got a link that leads elsewhere; nothing was written or removed "
            "there: delete the link, or choose another folder for the results"
        )


def parse_json(content: str | bytes) -> Any:
    """The values of a JSON text, read strictly.

    There is no NaN and no infinity in it, no number that 64 bits do not hold, and at most 64 levels.

    Args:
        content: all of it; bytes are UTF-8, or UTF-16 and UTF-32 with their mark.

    Raises:
        OptionError: it is something else.

    >>> parse_json('{"steps": [1, 2.5]}')
    {'steps': [1, 2.5]}
    >>> parse_json("[NaN]")
    Traceback (most recent call last):
    stmemory.errors.OptionError: expected JSON, got NaN, which is no number; replace it
    """
    try:
        text = content if isinstance(content, str) else content.decode(json.detect_encoding(content))
        # a call for each number is slow, and few files have numbers that could be too large
        long = _LONG_NUMBER.search(text) is not None
        values = json.loads(
            text, parse_constant=_refused, parse_float=_finite if long else None, parse_int=_whole if long else None
        )
    except OptionError:
        raise
    except (ValueError, RecursionError) as error:
        said = (
            "lists or objects that are nested too deep"
            if isinstance(error, RecursionError)
            else f"something else: {error}"
        )
        raise OptionError(f"expected JSON, got {said}; the file is damaged or of another kind") from error
    if _depth(text) > DEEPEST:
        raise OptionError(
            f"expected JSON of at most {DEEPEST} levels, got lists or objects that are nested deeper; the file is "
            "damaged or of another kind"
        )
    return values


def read_json(path: str | os.PathLike[str], *, most: int = LARGEST) -> Any:
    """The values of a JSON file; see `parse_json`.

    Args:
        path: path of the file.
        most: bytes that it may have.

    Raises:
        OptionError: it is too large, or no JSON.
        OSError: there is no such file, or it cannot be read.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.json").write_text('{"steps": 1}')
    ...     read_json(Path(folder, "a.json"))
    {'steps': 1}
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would be waited for
            raise OptionError("expected a file, got a device or a pipe; name a file")
        size = path.stat().st_size
        if size > most:
            raise OptionError(f"expected a JSON file of at most {most:,} bytes, got {size:,}; is it another file?")
        return parse_json(path.read_bytes())
    except ValueError as error:  # of ours, or a name that no file can have
        raise OptionError(f"{path}: {error}") from error
    except MemoryError as error:
        raise OptionError(
            f"{path}: expected a file whose values fit into memory, got a larger one; split it"
        ) from error


def read_array(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array of a `.npy` file, which stays on the disk until it is looked at; runs no code of the file.

    Args:
        path: path of the file.

    Raises:
        OptionError: it is missing, damaged or something else.

    >>> read_array("no/such/file.npy")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    stmemory.errors.OptionError: no/such/file.npy: expected a .npy file with one array, got: No such file ...
    """
    try:
        array: object = np.load(path, mmap_mode="r", allow_pickle=False)
    except UNREADABLE_ARRAY as error:
        # of what is no array numpy says that it may be loaded unsafely, which must not be done here
        came = (
            error.strerror
            if isinstance(error, OSError) and error.strerror
            else "a file that holds no array, or a part of one"
        )
        raise OptionError(
            f"{os.fspath(path)}: expected a .npy file with one array, got: {came}; write it with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray):
        raise OptionError(
            f"{os.fspath(path)}: expected a .npy file with one array, got: several arrays; write one with numpy.save"
        )
    return array


def whole(value: object, *, what: str, least: int = 0, most: int = 2**31 - 1) -> int:
    """A whole number that a file gives.

    Args:
        value: as it stands in the file; `2.0` and `"2"` are 2.
        what: the thing that is counted and its place, for the message.
        least: the smallest one.
        most: the largest one.

    Raises:
        OptionError: it is something else, or out of range.

    >>> whole(2.0, what="height")
    2
    """
    number = None
    if (
        (isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value))
        or (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer())
    ):
        number = int(value)
    if number is None or not least <= number <= most:
        raise OptionError(
            f"{what}: expected a whole number from {least} to {most}, "
            f"got {shown(value)}; the file is damaged or of another kind"
        )
    return number


def shown(value: object) -> str:
    """A value as messages show it, cut where it is long.

    >>> shown("a" * 1000)
    "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..."
    """
    try:
        text = repr(value[:100] if isinstance(value, str | bytes | list) else value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or what holds itself
        text = f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}..."


def _fault_of(name: object, ending: str) -> str:
    """What is wrong with a name; empty if nothing is."""
    if not isinstance(name, str):
        return "is no text"
    if not name.strip(". "):
        return "names a folder itself, or the one above" if name else "is empty"
    if "/" in name or "\\" in name:
        return "has a separator in it"
    if re.match("[A-Za-z]:", name):
        return "begins with a drive letter"
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "has a control character in it"
    try:
        length = len(os.fsencode(name + ending))
    except UnicodeError:
        return "has a character that no name can have"
    return "is too long" if length > _LONGEST_NAME else ""


def _refused(constant: str) -> Any:
    raise OptionError(f"expected JSON, got {constant}, which is no number; replace it")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise OptionError(f"expected JSON, got the number {digits[:40]}, which is too large; replace it")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= (number := int(digits)) < 2**64:
        raise OptionError(
            f"expected JSON, got the number {digits[:40]}{'...' * (len(digits) > 40)}, "
            "which 64 bits do not hold; replace it"
        )
    return number


def _depth(text: str) -> int:
    """Levels of a text that is JSON."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return 0
    if "\\" in text:
        text = re.sub(r'"[^"\\]*(?:\\.[^"\\]*)*"', "", text)
    brackets = text.encode("utf-8", "surrogatepass").translate(None, _NO_BRACKETS)
    marks = np.frombuffer(re.sub(b'"[^"]*"', b"", brackets), np.uint8)
    steps = np.where((marks == ord("[")) | (marks == ord("{")), 1, -1)
    return int(steps.cumsum().max(initial=0))
