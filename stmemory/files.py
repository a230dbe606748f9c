"""Files that appear whole or not at all, and the folder of results that they go to. Knows no format."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stmemory.errors import OptionError

__all__ = ["out_file", "out_folder", "whole_file"]

_LONGEST_NAME = 255  # bytes, what file systems take


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write beside a file, and put the result in its place at the end; an error or ctrl-C leaves what was there.

    Args:
        path: where it goes. Missing parent folders are made; a file that is there is replaced.

    Returns:
        A context that gives the path to write to.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(f"{folder}/a/0.txt") as part:
    ...         _ = part.write_text("all of it")
    ...     [file.name for file in Path(folder, "a").iterdir()]
    ['0.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(_part_name(path.name))
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def out_file(path: str | os.PathLike[str]) -> Path:
    """The file of results that a command names, checked before any work is done; makes nothing.

    Args:
        path: of a file that is there or can be made, with its folder.

    Returns:
        The same, as a path.

    Raises:
        OptionError: it is a folder, or lies in a file.

    >>> out_file("results/clips.png").name
    'clips.png'
    """
    path = Path(path)
    if path.is_dir():
        raise OptionError(f"expected a file to write to, got the folder {str(path)!r}; name a file in it")
    for place in path.parents:
        if place.exists() and not place.is_dir():
            raise OptionError(f"expected a file in a folder, got {str(path)!r}, and {str(place)!r} is a file; choose another place")
    return path


def out_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of results that `-o` names, checked before any work is done; makes nothing.

    Args:
        path: of a folder that is there or can be made.

    Returns:
        The same, as a path.

    Raises:
        OptionError: it is a file or lies in one; or it is new and has the name of a report or a table.

    >>> out_folder("results").name
    'results'
    >>> out_folder("results/report.json")
    Traceback (most recent call last):
    stmemory.errors.OptionError: -o: expected the name of a folder, got 'results/report.json'; for results/report.json pass -o results
    """
    path = Path(path)
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            where = f"the file {str(path)!r}" if place == path else f"{str(path)!r}, which lies in the file {str(place)!r}"
            raise OptionError(f"-o: expected a folder for the results, got {where}; give the name of a folder")
    if not path.exists() and path.suffix.lower() in (".json", ".csv"):
        parent = path.parent if path.parent.name else path.with_suffix("")
        raise OptionError(f"-o: expected the name of a folder, got {str(path)!r}; for {parent / path.name} pass -o {parent}")
    return path


def _part_name(name: str) -> str:
    """What a file is called while it is written: its own name, hidden, or a short one where that would be too long."""
    ending = f".{os.getpid()}.{threading.get_ident()}"
    own = f".{name}{ending}"
    return own if len(os.fsencode(own)) <= _LONGEST_NAME else f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}{ending}"
