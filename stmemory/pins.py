"""Which templates stay for good: how many slots of an object may be pinned. Stores nothing itself."""

from __future__ import annotations

from stmemory.memory.bank import MemoryBank

__all__ = ["room_for_pin"]


def room_for_pin(bank: MemoryBank, row: int) -> bool:
    """Whether one more slot of a row may be pinned, so that two stay free; the oldest correction gives way, the first
    template never.

    >>> import torch
    >>> bank = MemoryBank(3)
    >>> bank.write(torch.rand(1, 2, 4), pinned=True)
    >>> room_for_pin(bank, 0)
    False
    """
    pins = [slot for slot in bank.describe(row) if slot.pinned]
    if len(pins) < max(1, bank.capacity - 2):
        return True
    if len(pins) > 1:
        bank.unpin(pins[1].slot, row=row)
    return len(pins) > 1
