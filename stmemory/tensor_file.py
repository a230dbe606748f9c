"""A file of named tensors and words, safetensors, with a SHA-256 of every byte of it. Written whole, never
unpickled."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from stmemory.errors import WeightsError
from stmemory.files import file_path, whole_file

__all__ = ["TensorFile", "read_tensor_file", "with_words", "words_of", "write_tensor_file"]

_BLANK = b"0" * 64
_DIGEST = re.compile(rb'"digest":"([0-9a-f]{64})"')


@dataclass(frozen=True, eq=False)
class TensorFile:
    """What such a file holds.

    Attributes:
        tensors: by name, on the CPU.
        about: the words beside them.
        whole: whether the file has a digest, which was right; files of earlier versions have none.
    """

    tensors: dict[str, Tensor]
    about: dict[str, str]
    whole: bool


def write_tensor_file(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> None:
    """Write tensors, with the digest of all of the file; it appears whole or not at all.

    Args:
        path: where it goes.
        tensors: by name; on any device, with a graph or without.
        about: words; `digest` is no key of theirs.

    Raises:
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensor_file(f"{folder}/a", {"x": torch.ones(2)}, {"format": "mine"})
    ...     read_tensor_file(f"{folder}/a", "mine").about
    {'format': 'mine'}
    """
    plain = {
        name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()
    }  # safetensors refuses to share
    head, tail = _around_digest(with_words(save(plain), {**about, "digest": _BLANK.decode()})) or (b"", b"")
    digest = _sha256(head, tail).encode()
    with whole_file(path) as part, part.open("wb") as file:
        for piece in (head, digest, tail):
            file.write(piece)


def read_tensor_file(path: str | os.PathLike[str], what: str) -> TensorFile:
    """Read such a file, or another one of safetensors, which then has no digest.

    Args:
        path: of the file.
        what: it is to be, for messages.

    Raises:
        OptionError: the path is no name of a file.
        WeightsError: there is no such file; it is no safetensors, or damaged by as little as one bit.
    """
    path = file_path(path)
    try:
        if not path.is_file():
            found = "a folder or a device" if path.exists() else "no such file"
            raise WeightsError(f"{path}: expected {what}, got {found}; check the path")
        content = path.read_bytes()
        around = _around_digest(content)
        if around is not None and _sha256(*around).encode() != content[len(around[0]) : len(around[0]) + len(_BLANK)]:
            raise WeightsError(
                f"{path}: expected {what}, got a damaged one: its digest is not that of its content; use another copy"
            )
        tensors = load(content)
        known = words_of(content)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{path}: expected {what}, got a damaged or foreign file ({error}); use another copy"
        ) from error
    about = {name: words for name, words in known.items() if name != "digest"}
    return TensorFile(tensors, about, around is not None)


def with_words(content: bytes, about: Mapping[str, str]) -> bytes:
    """A safetensors file with words in its header, which come in order: safetensors itself shuffles them."""
    known = _header(content)
    head = json.dumps(
        {"__metadata__": dict(sorted(about.items())), **json.loads(known)}, separators=(",", ":")
    ).encode()
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + content[8 + len(known) :]


def words_of(content: bytes) -> dict[str, str]:
    """The words in the header of a safetensors file that `load` takes; none where it has none."""
    words: dict[str, str] = json.loads(_header(content)).get("__metadata__", {})
    return words


def _header(content: bytes) -> bytes:
    """The JSON that a safetensors file begins with, after its length in eight bytes."""
    return content[8 : 8 + int.from_bytes(content[:8], "little")]


def _around_digest(content: bytes) -> tuple[bytes, bytes] | None:
    """What is before and after the digest; None where there is none."""
    found = _DIGEST.search(_header(content))
    return None if found is None else (content[: 8 + found.start(1)], content[8 + found.end(1) :])


def _sha256(head: bytes, tail: bytes) -> str:
    digest = hashlib.sha256(head)
    digest.update(_BLANK)
    digest.update(tail)
    return digest.hexdigest()
