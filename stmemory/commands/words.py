"""What commands say: exit codes, complaints, progress. The terminal is written to from here and from the commands
alone."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = [
    "BAD_ARGUMENTS",
    "DONE",
    "FAILED",
    "complain",
    "end_line",
    "say_at_once",
    "score_heads",
    "score_line",
    "teller",
    "warnings_said",
]

DONE = 0
FAILED = 1
BAD_ARGUMENTS = 2


def teller(total: int | None, part: str) -> Callable[[int], None]:
    """Write progress to stderr when it is due."""
    from stmemory.progress import Progress

    progress = Progress(total, live=sys.stderr.isatty(), label=part)

    def tell(done: int) -> None:
        print(progress.line(done) or "", end="", file=sys.stderr, flush=True)

    return tell


def end_line(wanted: bool = True) -> None:
    """Leave the line that a live progress bar draws on."""
    if wanted and sys.stderr.isatty():
        print(file=sys.stderr)


def complain(message: str) -> None:
    """Write to stderr what went wrong."""
    print(f"stmemory: {message}", file=sys.stderr)


class _Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        end_line()
        complain(record.getMessage())


@contextmanager
def warnings_said() -> Iterator[None]:
    """Write to stderr, while a command runs, what the library logs as a warning: lost streams, damaged frames that were
    left out."""
    handler, log = _Complaints(logging.WARNING), logging.getLogger("stmemory")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def score_heads(*, speed: bool = False) -> str:
    """Heads of the columns of `score_line`."""
    return f"{'clip':<24}{'objects':>8}{'J':>8}{'F':>8}{'J&F':>8}" + (f"{'frames/s':>10}" if speed else "")


def score_line(name: str, objects: int, region: float, boundary: float, speed: float | None = None) -> str:
    """A row of scores, in percent; a dash where there is nothing to score."""
    values = [100 * value for value in (region, boundary, (region + boundary) / 2)]
    cells = [f"{'-':>8}" if value != value else f"{value:>8.1f}" for value in values]
    return f"{name:<24}{objects:>8}{''.join(cells)}" + ("" if speed is None or speed != speed else f"{speed:>10.1f}")


def say_at_once(line: str) -> None:
    """Write a line to stderr in the midst of whatever runs: past Python's buffers, since a signal may come while they
    are written to."""
    os.write(2, f"{os.linesep * sys.stderr.isatty()}{line}{os.linesep}".encode())
