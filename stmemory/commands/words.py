"""What commands say: exit codes, complaints, progress. The terminal is written to from here and from the commands alone."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["BAD_ARGUMENTS", "DONE", "FAILED", "complain", "end_line", "teller"]

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
