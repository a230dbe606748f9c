"""The folder of a run: the record that says what the run is of, what a later run may do there, and a lock."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from stmemory.errors import OptionError
from stmemory.io.files import whole_file
from stmemory.io.untrusted import read_json

__all__ = ["expect_same", "foreign_files", "held", "read_record", "write_record"]

_LOCK = ".lock"
_MOST = 5  # differences that a message names
_OURS: set[str] = set()  # folders that this process holds: a lock of a file keeps out other processes alone
_GUARD = threading.Lock()


def read_record(path: Path, kind: str) -> dict[str, Any] | None:
    """What a record says; None where there is none of that kind, or none that can be read.

    Args:
        path: path of the file.
        kind: what it says under `format`.

    >>> read_record(Path("no/such/run.json"), "mine 1") is None
    True
    """
    try:
        found: object = read_json(path)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and found.get("format") == kind else None


def write_record(path: Path, facts: Mapping[str, object]) -> None:
    """Write a record, atomically.

    Args:
        path: path of the file.
        facts: plain JSON values, `format` among them.

    Raises:
        FileError: the file cannot be written there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_record(Path(folder, "run.json"), {"format": "mine 1", "seed": 3})
    ...     read_record(Path(folder, "run.json"), "mine 1")
    {'format': 'mine 1', 'seed': 3}
    """
    with whole_file(path) as part:
        part.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def expect_same(
    place: Path,
    what: str,
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    *,
    free: Collection[str] = (),
    advice: str = "run it as it was begun, or begin again with force=True",
) -> None:
    """Refuse to resume a run that was begun with other facts; the message names them.

    Args:
        place: place of the run, for the message.
        what: kind of the run, for the message.
        old: facts that it was begun with, plain JSON values.
        new: facts of now.
        free: names of facts that may change.
        advice: advice for the message.

    Raises:
        OptionError: a fact differs.

    >>> expect_same(Path("out"), "run", {"seed": 1}, {"seed": 2}, advice="choose another folder")
    Traceback (most recent call last):
    stmemory.errors.OptionError: out: cannot resume another run: seed was 1, is 2; choose another folder
    """
    changes = list[str]()
    for name in sorted({*old, *new} - set(free)):
        pairs = {name: (old.get(name), new.get(name))}
        before, now = pairs[name]
        if isinstance(before, dict) and isinstance(now, dict):
            pairs = {key: (before.get(key), now.get(key)) for key in sorted({*before, *now})}
        changes += [
            f"{key.replace('_', ' ')} was {_short(a)}, is {_short(b)}" for key, (a, b) in pairs.items() if a != b
        ]
    if changes:
        more = f"; and {len(changes) - _MOST} more" if len(changes) > _MOST else ""
        raise OptionError(f"{place}: cannot resume another {what}: {'; '.join(changes[:_MOST])}{more}; {advice}")


def foreign_files(folder: Path, found: str, *, of: str) -> OptionError:
    """The error that refuses a folder with files that no known run wrote.

    Args:
        folder: folder of the run.
        found: record that is there.
        of: whose folder it should be.
    """
    return OptionError(
        f"{folder}: expected an empty folder or one of {of}, got {found}: no run is known to have written what is "
        "there, so even force=True does not delete it; move it away, or choose another folder"
    )


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:8]}..." if len(text) == 64 else text[:200]


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keep other runs out of a folder: those of this process, and of others where the platform has locks of files.

    The lock is the process's, and ends with it, however it ends; worker processes do not inherit it, so that those of a
    run that was killed do not keep it for a moment, as they would with `flock`.

    Args:
        out: folder of the run; made if missing.

    Raises:
        OptionError: another run writes into it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, held(Path(folder)):
    ...     pass
    """
    key = str(out.resolve())
    with _GUARD:
        if key in _OURS:
            raise _taken(out)
        _OURS.add(key)
    try:
        with _locked(out):
            yield
    finally:
        with _GUARD:
            _OURS.discard(key)


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    locks = _locks()
    if locks is None:
        yield
        return
    path = out / _LOCK
    while True:
        try:
            out.mkdir(parents=True, exist_ok=True)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise OptionError(
                f"{out}: expected a folder to write to, got: {error.strerror}; choose another folder for the results"
            ) from error
        try:
            locks.lockf(lock, locks.LOCK_EX | locks.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(lock)
            raise _taken(out) from error
        except OSError:  # a file system without locks
            pass
        if _is_open_as(lock, path):
            break
        os.close(lock)  # the process that held it removed it meanwhile
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _taken(out: Path) -> OptionError:
    return OptionError(
        f"{out}: expected a folder that no other run writes into, got one of a run that is under way; wait for its "
        "end, stop it, or choose another folder"
    )


def _is_open_as(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _locks() -> ModuleType | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl
