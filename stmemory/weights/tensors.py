"""Files of tensors in the safetensors format, and memory banks and learned policies in such files."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from stmemory.errors import OptionError, WeightsError
from stmemory.io.files import file_path, whole_file
from stmemory.memory.bank import MemoryBank
from stmemory.memory.policy import LearnedPolicy

__all__ = [
    "FORMAT_VERSION",
    "POLICY_FILE",
    "TensorFile",
    "load_bank",
    "load_policy",
    "read_tensor_file",
    "save_bank",
    "save_policy",
    "tensor_bytes",
    "words_of",
    "write_tensor_file",
]

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
    """Write tensors and a digest of the whole file, atomically and with the rights of a new file.

    Banks, policies, streams and training material are written by this function. Folders of weights, which keep the
    digest in `config.json`, take `tensor_bytes`.

    Args:
        path: where it goes.
        tensors: by name; on any device, with a graph or without.
        about: text by name, for the header; `digest` is reserved.

    Raises:
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_tensor_file(f"{folder}/a", {"x": torch.ones(2)}, {"format": "mine"})
    ...     read_tensor_file(f"{folder}/a", "mine").about
    {'format': 'mine'}
    """
    head, tail = _around_digest(tensor_bytes(tensors, {**about, "digest": _BLANK.decode()})) or (b"", b"")
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


def tensor_bytes(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> bytes:
    """The content of a safetensors file. Equal tensors make equal bytes: the text in the header is sorted, which
    safetensors itself does not do.

    Args:
        tensors: by name; on any device, with a graph or without.
        about: text by name, for the header.
    """
    # copies, since safetensors refuses tensors that share memory
    content = save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})
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


FORMAT_VERSION = 2  # 2 added a digest of all of the file
_KIND = "stmemory.bank"


def save_bank(bank: MemoryBank, path: str | Path) -> None:
    """Write all that a bank remembers to a safetensors file, with the format's version, the capacity and the policy's
    name.

    The file is written atomically, with a digest of all of it.

    Raises:
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.

    >>> import tempfile, torch
    >>> bank = MemoryBank(2); bank.write(torch.rand(1, 4, 3, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_bank(bank, f"{folder}/bank.safetensors")
    ...     twin = MemoryBank(2); load_bank(twin, f"{folder}/bank.safetensors")
    >>> bool((twin.templates == bank.templates).all())
    True
    """
    about = {
        "format": _KIND,
        "version": str(FORMAT_VERSION),
        "capacity": str(bank.capacity),
        "policy": bank.policy.name,
    }
    write_tensor_file(path, bank.contents(), about)


def load_bank(bank: MemoryBank, path: str | Path) -> None:
    """Fill a bank of the same capacity and kind from such a file.

    Raises:
        WeightsError: the file is missing, damaged by as little as one bit, not such a file, or of a newer format.
        BankError: it holds another kind of bank.
        OptionError: the path is no name of a file.
    """
    file = read_tensor_file(path, "a bank written by save_bank")
    found, version = file.about.get("format"), file.about.get("version", "")
    number = int(version) if version.isdecimal() and len(version) < 10 else 0
    if found != _KIND or not 1 <= number <= FORMAT_VERSION:
        raise WeightsError(
            f"{path}: expected a {_KIND} of version {FORMAT_VERSION} or older, got {found or 'another file'} version "
            f"{version or 'unknown'}; update stmemory or save it again"
        )
    if number > 1 and not file.whole:
        raise WeightsError(
            f"{path}: expected a bank with the digest that save_bank writes, got one without; the file is damaged, "
            "save it again"
        )
    bank.load_contents(file.tensors)


POLICY_FILE = "policy.safetensors"

_VERSION = 2  # 2 added a digest of all of the file


def save_policy(policy: LearnedPolicy, path: str | Path) -> None:
    """Write the weights of a learned policy, atomically.

    Args:
        policy: trained or not.
        path: the file, or a folder, which gets `policy.safetensors`.

    Raises:
        OptionError: the path is no name of a file.
        FileError: the file cannot be written there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_policy(LearnedPolicy(hidden=8), folder)
    ...     load_policy(folder).remove_score[0].out_features
    8
    """
    about = {"format": "stmemory.policy", "version": str(_VERSION), "temperature": str(policy.temperature)}
    write_tensor_file(_file(path), policy.state_dict(), about)


def load_policy(path: str | Path) -> LearnedPolicy:
    """A learned policy from such a file, in eval mode; give it to `TrackingOptions(policy=...)` or
    `MemoryBank(policy=...)`.

    Args:
        path: the file, or the folder that holds `policy.safetensors`.

    Raises:
        WeightsError: there is no such file, it is damaged by as little as one bit, or it holds something else.
        OptionError: the path is no name of a file.
    """
    path = _file(path)
    file = read_tensor_file(path, "a policy that save_policy wrote")
    about, tensors = file.about, file.tensors
    found, version = about.get("format"), about.get("version")
    if found != "stmemory.policy" or version not in ("1", "2") or (version == "2" and not file.whole):
        came = f"{found or 'another file'} of version {version or 'unknown'}"
        came += "" if file.whole or version == "1" else ", without a digest"
        raise WeightsError(
            f"{path}: expected a policy of version {_VERSION} or older that save_policy wrote, got {came}; use "
            "another copy"
        )
    try:
        temperature = float(about["temperature"])
        if not 0 < temperature < math.inf:
            raise WeightsError(
                f"{path}: expected a policy with a temperature above 0, got {about['temperature'][:40]}; the file is "
                "damaged"
            )
        policy = LearnedPolicy(hidden=len(tensors["remove_score.0.bias"]), temperature=temperature)
        policy.load_state_dict(tensors)
    except (KeyError, ValueError, TypeError, RuntimeError, OptionError) as error:
        raise WeightsError(
            f"{path}: expected a policy that save_policy wrote, got: {error}; use another copy"
        ) from error
    return policy.eval()


def _file(path: str | Path) -> Path:
    """The file, where a folder was named that holds it."""
    folder = isinstance(path, str | Path) and Path(path).is_dir()
    return Path(path) / POLICY_FILE if folder else file_path(path)
