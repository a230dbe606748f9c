"""Folders of runs: whose they are. Trains nothing, reads no state. That one run at a time trains into one is
`run_lock.py`'s."""

from __future__ import annotations

from pathlib import Path

from stmemory.errors import OptionError
from stmemory.files import whole_file
from stmemory.training.config import TrainingConfig
from stmemory.untrusted import read_json

__all__ = ["expect_no_run", "expect_no_weights", "expect_own_config", "write_config"]

_CONFIG, _STATE = "config.json", "state.pt"


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
        written = TrainingConfig.load(path)
    except ValueError as error:
        raise OptionError(
            f"{path}: expected the configuration of this run, got another file ({error}); train into another folder"
        ) from error
    if written != config:
        raise OptionError(
            f"{path}: expected the configuration that this run began with, got another, and no state yet; go on with "
            "that one, "
            "train into another folder, or delete this one"
        )


def expect_no_weights(out: Path) -> None:
    """Refuse to train into a folder of exported weights, whose `config.json` the run's would replace.

    Raises:
        OptionError: the folder holds the `config.json` of weights.

    >>> expect_no_weights(Path("no/such/folder"))
    """
    if _is_of_weights(out / _CONFIG):
        raise OptionError(
            f"{out}: expected a folder for a run, got one of exported weights, which a run would destroy; name "
            "another folder"
        )


def expect_no_run(out: Path) -> None:
    """Refuse to write weights into the folder of a run, whose `config.json` theirs would replace.

    Raises:
        OptionError: the folder holds a `state.pt`, or a `config.json` that is not of weights.

    >>> expect_no_run(Path("no/such/folder"))
    """
    config = out / _CONFIG
    if (out / _STATE).exists() or (config.exists() and not _is_of_weights(config)):
        raise OptionError(
            f"{out}: expected a folder for weights, got that of a run, whose {_CONFIG} they would replace; name "
            "another folder"
        )


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


def _is_of_weights(config: Path) -> bool:
    try:
        found = read_json(config)
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "format_version" in found
