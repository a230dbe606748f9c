"""A bank in a file: safetensors with a version and a digest. Nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path

from stmemory.errors import WeightsError
from stmemory.memory.bank import MemoryBank
from stmemory.tensor_file import read_tensor_file, write_tensor_file

__all__ = ["FORMAT_VERSION", "load_bank", "save_bank"]

FORMAT_VERSION = 2  # 2 added a digest of all of the file
_KIND = "stmemory.bank"


def save_bank(bank: MemoryBank, path: str | Path) -> None:
    """Write all that a bank remembers to a safetensors file, with the format's version, the capacity and the policy's
    name.

    The file appears whole or not at all, and has a digest of all that is in it.

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
    write_tensor_file(path, bank.state_dict(), about)


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
    bank.load_state_dict(file.tensors)
