"""A bank in a file: safetensors with a version. Nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from stmemory.errors import WeightsError
from stmemory.files import whole_file
from stmemory.memory.bank import MemoryBank

__all__ = ["FORMAT_VERSION", "load_bank", "save_bank"]

FORMAT_VERSION = 1


def save_bank(bank: MemoryBank, path: str | Path) -> None:
    """Write all that a bank remembers to a safetensors file, with the format's version, the capacity and the policy's name.

    The file appears whole or not at all.

    >>> import tempfile, torch
    >>> bank = MemoryBank(2); bank.write(torch.rand(1, 4, 3, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_bank(bank, f"{folder}/bank.safetensors")
    ...     twin = MemoryBank(2); load_bank(twin, f"{folder}/bank.safetensors")
    >>> bool((twin.templates == bank.templates).all())
    True
    """
    about = {
        "format": "stmemory.bank",
        "version": str(FORMAT_VERSION),
        "capacity": str(bank.capacity),
        "policy": bank.policy.name,
    }
    with whole_file(path) as part:
        save_file({name: t.detach().contiguous() for name, t in bank.state_dict().items()}, str(part), metadata=about)


def load_bank(bank: MemoryBank, path: str | Path) -> None:
    """Fill a bank of the same capacity and kind from such a file.

    Raises:
        WeightsError: the file is missing, is not such a file, or is of a newer format.
        BankError: it holds another kind of bank.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"load_bank: expected a bank written by save_bank at {path}, got: {error}") from error
    version = about.get("version", "")
    if about.get("format") != "stmemory.bank" or version not in map(str, range(1, FORMAT_VERSION + 1)):
        raise WeightsError(
            f"load_bank: expected a stmemory.bank of version {FORMAT_VERSION} or older at {path}, got "
            f"{about.get('format', 'another file')} version {version or 'unknown'}; update stmemory or save it again"
        )
    bank.load_state_dict(state)
