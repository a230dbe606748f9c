"""States of runs: `state.pt`, read with care and written whole. Does not know what is trained."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from stmemory.errors import OptionError, WeightsError
from stmemory.files import whole_file

__all__ = ["expect_same", "read_state", "write_state"]

_DAMAGED = (OSError, RuntimeError, UnpicklingError, EOFError, struct.error, ValueError, TypeError, LookupError, AttributeError)


def read_state(path: Path, *, needs: Sequence[str] = ("average",)) -> dict[str, Any]:
    """Read what `write_state` wrote, without running code of the file.

    All tensors are on the CPU, and go from there to where they belong. On CUDA this matters for more than memory: Adam takes its
    counters of steps as they come, and would wait for the GPU in each step if they lay there.

    Args:
        path: of the file.
        needs: names that are wanted of it.

    Raises:
        WeightsError: there is no such file, it is damaged, or it is something else.

    >>> read_state(Path("no/such/state.pt"))
    Traceback (most recent call last):
    stmemory.errors.WeightsError: no/such/state.pt: expected the state of a run, got no such file; train first, or check the path
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected the state of a run, got no such file; train first, or check the path")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGED as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: expected the state.pt of a run, got a damaged or foreign file ({why}); use a copy of it, or begin anew in another folder") from error
    missing = [name for name in needs if name not in state] if isinstance(state, dict) else list(needs)
    if missing:
        raise WeightsError(f"{path}: expected the state.pt of a run, got one without {', '.join(missing)}; name another file")
    found: dict[str, Any] = state
    return found


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state, whole or not at all.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run" / "state.pt"
    >>> write_state(path, {"average": {"weight": torch.ones(2)}})
    >>> read_state(path)["average"]["weight"]
    tensor([1., 1.])
    """
    with whole_file(path) as part:
        torch.save(dict(state), part)


def expect_same(path: Path, what: str, written: object, wanted: object, *, advice: str) -> None:
    """Refuse to go on from a state that was written with something else.

    Args:
        path: of the state.
        what: that something, and who it is of: `configuration that this run`.
        written: with the state.
        wanted: now.
        advice: what to do instead.

    Raises:
        OptionError: the two differ.

    >>> expect_same(Path("state.pt"), "configuration that this run", 1, 2, advice="train into another folder")
    Traceback (most recent call last):
    stmemory.errors.OptionError: state.pt: expected the configuration that this run began with, got another; train into another folder
    """
    if written != wanted:
        raise OptionError(f"{path}: expected the {what} began with, got another; {advice}")
