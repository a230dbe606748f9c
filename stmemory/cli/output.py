"""What commands print: progress, warnings, messages and exit codes."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from stmemory.errors import OptionError

__all__ = [
    "BAD_ARGUMENTS",
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "Progress",
    "clock_time",
    "complain",
    "end_line",
    "progress_on_stderr",
    "say_at_once",
    "score_heads",
    "score_line",
    "warnings_said",
    "with_flags",
]

WIDTH = 24  # characters of the bar
RECENT = 50  # times of frames that the speed is measured over


class Progress:
    """Says at times how far a run is. What it keeps does not grow with the run.

    Args:
        total: frames in all; None where that is not known.
        label: what is going on.
        live: for a terminal: a bar that draws over itself, ten times a second; else a whole line every ten seconds.
        clock: seconds, growing.

    Raises:
        OptionError: `total` is below 1.

    >>> ticks = iter((0.0, 2.0))
    >>> progress = Progress(4, live=True, clock=lambda: next(ticks))
    >>> progress.line(0), progress.line(2).strip()
    (None, '############------------ 2/4 frames, 1.0 frames/s, 0:02 to go')
    """

    def __init__(
        self, total: int | None, *, live: bool, label: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        if total is not None and total < 1:
            raise OptionError(f"Progress: expected a total of 1 frame or more, or None, got {total}")
        self.total = total
        self.live = live
        self.label = f"{label} " if label else ""
        self._clock = clock
        self._shown_at = -float("inf")
        self._recent: deque[tuple[float, int]] = deque(maxlen=RECENT)

    def line(self, done: int) -> str | None:
        """Text to write now, or None when nothing is due.

        Args:
            done: frames done so far. The first call sets the start: frames done before it do not count as speed.
        """
        now = self._clock()
        self._recent.append((now, done))
        last = done == self.total
        first = len(self._recent) == 1
        if (first and not last) or (now - self._shown_at < (0.1 if self.live else 10) and not last):
            return None
        self._shown_at = now
        text = ", ".join(part for part in (self._done(done), self._speed(), self._rest(done)) if part)
        return f"\r{self.label + text:<79}" if self.live else f"{self.label}{text}\n"

    def _done(self, done: int) -> str:
        if self.total is None:
            return f"{done} frames"
        filled = min(WIDTH, WIDTH * done // self.total)
        bar = "#" * filled + "-" * (WIDTH - filled) + " " if self.live else ""
        return f"{bar}{done}/{self.total} frames"

    def _rate(self) -> float:
        """Frames per second lately; 0 while it is not known."""
        (began, first), (now, last) = self._recent[0], self._recent[-1]
        return (last - first) / (now - began) if now > began else 0.0

    def _speed(self) -> str:
        rate = self._rate()
        return f"{rate:.1f} frames/s" if rate else ""

    def _rest(self, done: int) -> str:
        rate = self._rate()
        return f"{clock_time((self.total - done) / rate)} to go" if rate and self.total and done < self.total else ""


def clock_time(seconds: float) -> str:
    """Seconds as people read them.

    Args:
        seconds: 0 or more.

    Returns:
        `M:SS`, or `H:MM:SS` from one hour on.

    >>> clock_time(75.4), clock_time(3675)
    ('1:15', '1:01:15')
    """
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


DONE = 0
FAILED = 1
BAD_ARGUMENTS = 2
INTERRUPTED = 130  # 128 and SIGINT, as shells have it


def progress_on_stderr(total: int | None, part: str) -> Callable[[int], None]:
    """Write progress to stderr when it is due."""

    progress = Progress(total, live=sys.stderr.isatty(), label=part)

    def show(done: int) -> None:
        print(progress.line(done) or "", end="", file=sys.stderr, flush=True)

    return show


def end_line(wanted: bool = True) -> None:
    """Leave the line that a live progress bar draws on."""
    if wanted and sys.stderr.isatty():
        print(file=sys.stderr)


def complain(message: str) -> None:
    """Write to stderr what went wrong, in the words of the command line."""
    print(f"stmemory: {with_flags(message)}", file=sys.stderr)


# Arguments of the library by the flags of the command line, where the two have other names.
_FLAGS = {"out": "-o", "start_from": "--init", "source": "--imagenet"}
_SAME = (
    "damaged",
    "device",
    "force",
    "frames",
    "jobs",
    "prompter",
    "ray",
    "reconnect",
    "resume",
    "save_every",
    "seconds",
    "threads",
)
_FLAGS |= {name: f"--{name}" for name in _SAME}


def with_flags(message: str) -> str:
    """A message of the library with flags for the arguments that it names.

    >>> with_flags("out: expected a folder; pass resume=True to go on, or source=FILE")
    '-o: expected a folder; pass --resume to go on, or --imagenet FILE'
    """
    names = "|".join(_FLAGS)
    message = re.sub(rf"^({names})(?=: expected)", lambda found: _FLAGS[found[1]], message)
    message = re.sub(rf"\b({names})=(?:True\b|\.\.\.)", lambda found: _FLAGS[found[1]], message)
    return re.sub(rf"\b({names})[=(]([A-Z]{{3,}})\b\)?", lambda found: f"{_FLAGS[found[1]]} {found[2]}", message)


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
