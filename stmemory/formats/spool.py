"""Lists that JSON files hold by object, gathered by frame: they wait in files beside the result, not in memory."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

__all__ = ["Spool", "column", "spool_beside", "write_list"]


class Spool:
    """Appends rows to named files in a folder, and reads them back.

    Args:
        folder: an empty one; whoever made it deletes it.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     spool = Spool(Path(folder))
    ...     spool.append("7", [0, "a"])
    ...     list(spool.rows("7")), list(spool.rows("8"))
    ([[0, 'a']], [])
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def append(self, name: str, row: object) -> None:
        """Append a row, which JSON can hold. No file is kept open, since there may be many."""
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self, name: str) -> Iterator[list[Any]]:
        """Read the rows of a name, in order; none if nothing was appended."""
        path = self._folder / name
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)


@contextmanager
def spool_beside(path: Path) -> Iterator[Spool]:
    """A spool in a hidden folder beside a file that is being written; the folder goes at the end.

    Args:
        path: of the file. Missing parent folders are made.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with spool_beside(Path(folder, "a.json")) as spool:
    ...         spool.append("7", [0, "a"])
    ...     list(Path(folder).iterdir())
    []
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.stem[:20]}.", dir=path.parent) as folder:
        yield Spool(Path(folder))


def column(rows: Iterable[list[Any]], place: int, length: int) -> Iterator[object]:
    """One value of each row, at the position that its first value says; None in between.

    Args:
        rows: each begins with its position, rising.
        place: of the value in the row.
        length: of the whole.

    >>> list(column([[1, "a"], [3, "b"]], 1, 5))
    [None, 'a', None, 'b', None]
    """
    at = 0
    for row in rows:
        position: int = row[0]
        yield from itertools.repeat(None, position - at)
        yield row[place]
        at = position + 1
    yield from itertools.repeat(None, length - at)


def write_list(out: TextIO, items: Iterable[object]) -> None:
    """Write a JSON list, item by item.

    Args:
        out: an open file.
        items: what JSON can hold.

    >>> import sys
    >>> write_list(sys.stdout, [1, None])
    [1, null]
    """
    out.write("[")
    for number, item in enumerate(items):
        out.write((", " if number else "") + json.dumps(item))
    out.write("]")
