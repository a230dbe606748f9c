"""Files that appear whole or not at all. Knows no format."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole_file"]


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
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
