"""Folders of runs: whose they are, and that one process at a time trains into one. Trains nothing, reads no state."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from stmemory.errors import OptionError
from stmemory.files import whole_file
from stmemory.training.config import TrainingConfig

__all__ = ["expect_no_run", "expect_no_weights", "expect_own_config", "held", "write_config"]

_CONFIG, _STATE, _LOCK = "config.json", "state.pt", ".lock"


def expect_own_config(out: Path, config: TrainingConfig) -> None:
    """Refuse a folder whose `config.json` is of another run, of exported weights, or of something else; none is fine.

    Args:
        out: folder of the run.
        config: of the run; fields that a run may change, such as `save_every`, are not compared.

    Raises:
        OptionError: the folder is taken.

    >>> expect_own_config(Path("no/such/run"), TrainingConfig())
    """
    path = out / _CONFIG
    expect_no_weights(out)
    if not path.exists():
        return
    try:
        written = TrainingConfig.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OptionError(f"{path}: expected the configuration of this run, got another file ({error}); train into another folder") from error
    if written != config:
        raise OptionError(
            f"{path}: expected the configuration that this run began with, got another, and no state yet; go on with that one, "
            "train into another folder, or delete this one"
        )


def expect_no_weights(out: Path) -> None:
    """Refuse to train into a folder of exported weights, whose `config.json` the run's would replace.

    Raises:
        OptionError: the folder holds the `config.json` of weights.

    >>> expect_no_weights(Path("no/such/folder"))
    """
    if _is_of_weights(out / _CONFIG):
        raise OptionError(f"{out}: expected a folder for a run, got one of exported weights, which a run would destroy; name another folder")


def expect_no_run(out: Path) -> None:
    """Refuse to write weights into the folder of a run, whose `config.json` theirs would replace.

    Raises:
        OptionError: the folder holds a `state.pt`, or a `config.json` that is not of weights.

    >>> expect_no_run(Path("no/such/folder"))
    """
    config = out / _CONFIG
    if (out / _STATE).exists() or (config.exists() and not _is_of_weights(config)):
        raise OptionError(f"{out}: expected a folder for weights, got that of a run, whose {_CONFIG} they would replace; name another folder")


def write_config(out: Path, config: TrainingConfig) -> None:
    """Say in the folder what is trained there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_config(Path(folder), TrainingConfig(seed=3))
    ...     TrainingConfig.load(Path(folder) / "config.json").seed
    3
    """
    with whole_file(out / _CONFIG) as part:
        part.write_text(config.to_json(), encoding="utf-8")


@contextmanager
def held(out: Path) -> Iterator[None]:
    """Keep other processes from training into a folder meanwhile, where the platform has locks of files.

    The lock is the process's, and ends with it, however it ends; worker processes do not inherit it, so that those of a run that
    was killed do not keep it for a moment, as they would with `flock`.

    Args:
        out: folder of the run; made if missing.

    Raises:
        OptionError: another process trains into it.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, held(Path(folder)):
    ...     pass
    """
    locks = _locks()
    if locks is None:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    path = out / _LOCK
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locks.lockf(lock, locks.LOCK_EX | locks.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(lock)
            raise OptionError(f"{out}: expected a folder that no other process trains into, got one of a run that is under way; wait for its end, or stop it") from error
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


def _is_of_weights(config: Path) -> bool:
    try:
        found = json.loads(config.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(found, dict) and "format_version" in found


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
