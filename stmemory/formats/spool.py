"""Lists that JSON files hold by object, gathered by frame: they wait in files beside the result, not in memory."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

__all__ = ["Spool", "column", "write_list"]


class Spool:
    """Appends rows to named files in a folder, and reads them back.

    Args:
        folder: an empty one; whoever made it deletes it.

    >>> import tempfile
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

    def rows(self, name: str) -> Iterator[list[object]]:
        """Read the rows of a name, in order; none if nothing was appended."""
        path = self._folder / name
        if path.exists():
            with path.open(encoding="utf-8") as file:
                yield from map(json.loads, file)


def column(rows: Iterable[list[object]], place: int, length: int) -> Iterator[object]:
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
        position = int(str(row[0]))
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
