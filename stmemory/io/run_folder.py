"""The lock of a run's folder: one run at a time writes into it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from stmemory.errors import OptionError

__all__ = ["held"]

_LOCK = ".lock"
_OURS: set[str] = set()  # folders that this process holds: a lock of a file keeps out other processes alone
_GUARD = threading.Lock()


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
