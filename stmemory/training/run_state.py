"""States of runs: `state.pt`, read with care and written whole, with a digest. Does not know what is trained.

The file is what `torch.save` writes, a ZIP archive; the SHA-256 of it is the archive's comment, which other readers
pass over.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from stmemory.errors import OptionError, WeightsError
from stmemory.files import whole_file

__all__ = ["expect_same", "read_state", "write_state"]

_COMMENT = b"stmemory.state sha256 "  # and 64 hexadecimal digits
_END = b"PK\x05\x06"  # begins the last 22 bytes of an archive without a comment
_DAMAGED = (
    OSError,
    RuntimeError,
    UnpicklingError,
    EOFError,
    struct.error,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
)


def read_state(path: Path, *, needs: Sequence[str] = ("average",)) -> dict[str, Any]:
    """Read what `write_state` wrote, without running code of the file.

    All tensors are on the CPU, and go from there to where they belong. On CUDA this matters for more than memory: Adam
    takes its counters of steps as they come, and would wait for the GPU in each step if they lay there.

    Args:
        path: of the file.
        needs: names that are wanted of it.

    Raises:
        WeightsError: there is no such file, it is damaged by as little as one bit, or it is something else.

    >>> read_state(Path("no/such/state.pt"))
    Traceback (most recent call last):
    stmemory.errors.WeightsError: no/such/state.pt: expected the state of a run, got no such file; train first, or check
    the path
    """
    if not path.is_file():
        raise WeightsError(f"{path}: expected the state of a run, got no such file; train first, or check the path")
    try:
        state = torch.load(io.BytesIO(_checked(path, path.read_bytes())), map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except _DAMAGED as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path}: expected the state.pt of a run, got a damaged or foreign file ({why}); use a copy of it, or "
            "begin anew in another folder"
        ) from error
    missing = [name for name in needs if name not in state] if isinstance(state, dict) else list(needs)
    if missing:
        raise WeightsError(
            f"{path}: expected the state.pt of a run, got one without {', '.join(missing)}; name another file"
        )
    found: dict[str, Any] = state
    return found


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state, whole or not at all.

    Raises:
        FileError: the file cannot be written there.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "run" / "state.pt"
    >>> write_state(path, {"average": {"weight": torch.ones(2)}})
    >>> read_state(path)["average"]["weight"]
    tensor([1., 1.])
    """
    buffer = io.BytesIO()  # torch's own writer turns a full disk into a riddle
    torch.save(dict(state), buffer)
    content = buffer.getbuffer()
    comment = _COMMENT + hashlib.sha256(content).hexdigest().encode()
    with whole_file(path) as part, part.open("wb") as file:
        file.write(content[:-2])
        file.write(struct.pack("<H", len(comment)) + comment)


def _checked(path: Path, content: bytes) -> bytes:
    """What `torch.save` wrote, without the digest; states of earlier versions have none.

    Raises:
        WeightsError: the digest is another, or something stands where it should.
    """
    if content[-22:-18] == _END or content[:2] != b"PK":  # of an earlier version, or of another program
        return content
    length = len(_COMMENT) + 64
    plain = content[: -length - 2] + b"\0\0"
    if content[-length:] != _COMMENT + hashlib.sha256(plain).hexdigest().encode():
        raise WeightsError(
            f"{path}: expected the state.pt of a run, got a damaged or foreign file (its digest is another, or there "
            "is none); use a copy "
            "of it, or begin anew in another folder"
        )
    return plain


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
    stmemory.errors.OptionError: state.pt: expected the configuration that this run began with, got another; train into
    another folder
    """
    if written != wanted:
        raise OptionError(f"{path}: expected the {what} began with, got another; {advice}")
