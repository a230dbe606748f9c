"""Files that are written atomically, and checks of the places that results go to."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType

from stmemory.errors import FileError, OptionError

__all__ = ["expect_folder", "file_path", "out_file", "out_folder", "png_path", "rename_file", "whole_file"]

_ENDING = ".stmemory-part"
_LONGEST = 200  # bytes of a name that is kept in the name of its part; file systems take 255
_ABANDONED = 3600.0  # seconds after which a part counts as left behind, where the file system has no locks
# What a full disk, a limit or a read-only disk says in the midst of writing, without a file's name.
_NO_ROOM = {errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write beside a file, and put the result in its place at the end; an error or ctrl-C leaves what was there.

    The result is on the disk before it takes the name, so a power cut leaves the old file or the new one. It gets the
    rights that a new file gets (the umask's). A part that a killed process left behind is removed when the same file is
    written again.

    Args:
        path: path to write to. Missing parent folders are made; a file that is there is replaced.

    Returns:
        A context that gives the path to write to: of a new, empty file.

    Raises:
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(f"{folder}/a/0.txt") as part:
    ...         _ = part.write_text("all of it")
    ...     [file.name for file in Path(folder, "a").iterdir()]
    ['0.txt']
    """
    path = file_path(path)
    try:
        made = [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        part, lock = _new_part(path)
    except OSError as error:
        raise _file_error(path, error) from error
    try:
        try:
            yield part
            _sync(part, os.O_RDWR | _flag("O_NOFOLLOW") | _flag("O_BINARY"))
            os.replace(part, path)
        except OSError as error:
            if error.errno in _NO_ROOM or str(part) in (str(error.filename), str(error.filename2)):
                raise _file_error(path, error) from error
            raise
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)
        if lock is not None:
            os.close(lock)
    for folder in (path.parent, *(folder.parent for folder in made)):
        with suppress(OSError):  # not every platform lets a folder be opened
            _sync(folder, os.O_RDONLY)


def rename_file(source: Path, target: Path) -> None:
    """Give a file that was written whole another name in its folder, in place of what has that name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a").write_text("all of it")
    ...     rename_file(Path(folder, "a"), Path(folder, "b"))
    ...     Path(folder, "b").read_text()
    'all of it'
    """
    os.replace(source, target)
    with suppress(OSError):  # not every platform lets a folder be opened
        _sync(target.parent, os.O_RDONLY)


def file_path(path: str | os.PathLike[str]) -> Path:
    """The path of a file that a user named, checked to be one; touches no disk.

    Args:
        path: a str or a path, not an open file.

    Raises:
        OptionError: it is something else, is empty, or holds a character that no name can hold.

    >>> file_path("a.png").name
    'a.png'
    """
    try:
        name = os.fsdecode(path)
    except (TypeError, UnicodeError) as error:
        raise OptionError(
            "path: expected the name of a file, a str or a Path, got "
            f"{type(path).__name__}; write to a file, and read it back from there"
        ) from error
    if "\0" in name or not Path(name).name:
        raise OptionError(f"path: expected the name of a file, got {name!r}; name a file in a folder")
    return Path(name)


def png_path(path: str | os.PathLike[str], instead: str) -> Path:
    """The path of a PNG that a user named, whose name says so or says nothing.

    Args:
        path: with the ending `.png`, in either case, or with none.
        instead: advice for another kind of file, for messages.

    Raises:
        OptionError: the name says that it is another kind of file, or it is no name of a file.

    >>> png_path("a.PNG", "").name
    'a.PNG'
    """
    named = file_path(path)
    if named.suffix.lower() not in ("", ".png"):
        raise OptionError(
            f"{named}: expected a name that ends in .png, since a PNG is written, got {named.suffix!r}; {instead}"
        )
    return named


def _new_part(path: Path) -> tuple[Path, int | None]:
    """A new, empty file beside a path, and the descriptor that locks it while it is written; parts left behind are
    removed.

    It is never one that is there already: no other file is written to, and no link is followed. The names are few and
    always the same, so that those left behind have a bound and are found again without a look at all files of the
    folder.
    """
    encoded = os.fsencode(path.name)
    name = path.name if len(encoded) <= _LONGEST else hashlib.sha256(encoded).hexdigest()
    number = 0
    while True:
        part = path.with_name(f".{name}{number or ''}{_ENDING}")
        try:
            handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | _flag("O_NOFOLLOW") | _flag("O_BINARY"), 0o666)
        except FileExistsError:
            number += not _removed_if_abandoned(part)
            continue
        if _locks() is None:  # Windows renames no file that is open
            os.close(handle)
            return part, None
        if _locked(handle) is not False and _is_open_as(handle, part):
            return part, handle
        os.close(handle)  # another process took it for abandoned meanwhile


def _removed_if_abandoned(part: Path) -> bool:
    """Remove a part that no process writes any more, and say whether the name is free now."""
    try:
        handle = os.open(part, os.O_RDONLY | _flag("O_NOFOLLOW") | _flag("O_NONBLOCK"))
    except FileNotFoundError:
        return True
    except OSError:  # a link, or a file of another user
        return False
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            return False
        locked = _locked(handle)
        if (
            locked is False
            or (locked is None and time.time() - about.st_mtime < _ABANDONED)
            or not _is_open_as(handle, part)
        ):
            return False
        if _locks() is not None:  # while it is held: no other process takes it meanwhile
            os.unlink(part)
            return True
    except OSError:
        return False
    finally:
        os.close(handle)
    try:
        os.unlink(part)
    except OSError:  # another process has it open
        return False
    return True


def _locked(handle: int) -> bool | None:
    """Lock an open file; whether that worked, or None where there are no locks."""
    locks = _locks()
    if locks is None:
        return None
    try:
        locks.flock(handle, locks.LOCK_EX | locks.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return None
    return True


def _is_open_as(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False


def _sync(path: Path, mode: int) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, mode)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flag(name: str) -> int:
    flag: int = getattr(os, name, 0)
    return flag


def _locks() -> ModuleType | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl


def _file_error(path: Path, error: OSError) -> FileError:
    return FileError(
        f"{path}: the file cannot be written: {error.strerror or error}; free some space there, or choose another place"
    )


def out_file(path: str | os.PathLike[str]) -> Path:
    """The file of results that a command names, checked before any work is done; makes nothing.

    Args:
        path: path of a file that is there or can be made, with its folder.

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
            raise OptionError(
                f"expected a file in a folder, got {str(path)!r}, and {str(place)!r} is a file; choose another place"
            )
    return path


def out_folder(path: str | os.PathLike[str]) -> Path:
    """The folder of results that a user names, checked before any work is done; makes nothing.

    Args:
        path: path of a folder that is there or can be made.

    Returns:
        The same, as a path.

    Raises:
        OptionError: it is a file or lies in one; or it is new and has the name of a report or a table.

    >>> out_folder("results").name
    'results'
    >>> out_folder("results/report.json")
    Traceback (most recent call last):
    stmemory.errors.OptionError: out: expected the name of a folder, got 'results/report.json'; name the folder
    results for results/report.json
    """
    path = Path(path)
    expect_folder(path)
    if not path.exists() and path.suffix.lower() in (".json", ".csv"):
        parent = path.parent if path.parent.name else path.with_suffix("")
        raise OptionError(
            f"out: expected the name of a folder, got {str(path)!r}; name the folder {parent} for {parent / path.name}"
        )
    return path


def expect_folder(path: Path) -> None:
    """Refuse a place for results that is a file or lies in one.

    Raises:
        OptionError: it does.

    >>> expect_folder(Path("no/such/folder"))
    """
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            where = (
                f"the file {str(path)!r}" if place == path else f"{str(path)!r}, which lies in the file {str(place)!r}"
            )
            raise OptionError(f"out: expected a folder for the results, got {where}; give the name of a folder")
