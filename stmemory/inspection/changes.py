"""What a frame did to an object's slots, told from how they were before and after. Keeps nothing, draws nothing.

The bank keeps no record of its decisions, so that it never grows. They can be read off: a slot whose template changed
while its frame stayed was fused into, one with another frame was written anew, and what stood there went into the fused
ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stmemory.memory.bank import MemoryBank
from stmemory.memory.slots import SlotInfo

__all__ = ["OUTCOMES", "Change", "RowState", "compare", "row_state"]

# What became of an object's frame, best first.
OUTCOMES = {
    "pinned": "given, stored for good",
    "stored": "stored",
    "provisional": "stored until the next frame",
    "distilled": "only fused into other slots",
    "gate": "too uncertain: not stored",
    "absent": "not seen: not stored",
    "unwritten": "not stored, as asked",
}


@dataclass(frozen=True)
class RowState:
    """One object's slots at one moment.

    Attributes:
        slots: those in use, by slot number.
        versions: of all K slots; a slot's grows whenever its template changes.
        provisional: whether the newest slot gives way to the next frame.
    """

    slots: Mapping[int, SlotInfo]
    versions: tuple[int, ...]
    provisional: bool


@dataclass(frozen=True)
class Change:
    """What one frame did to one object's slots.

    Attributes:
        frame: its index.
        outcome: what became of the frame, one of `OUTCOMES`.
        slot: the slot that it was written to; None if it was not.
        left: what stood in that slot before; None if it was free.
        fate: of what stood there: `"fused"` into the slots `into`, `"replaced"` because it was provisional, or
            `"dropped"`.
        into: slots that were fused into.
        unpinned: slots that may go and change from now on.
        freed: slots that were emptied.
    """

    frame: int
    outcome: str
    slot: int | None = None
    left: SlotInfo | None = None
    fate: str | None = None
    into: tuple[int, ...] = ()
    unpinned: tuple[int, ...] = ()
    freed: tuple[int, ...] = ()


def row_state(bank: MemoryBank, row: int) -> RowState:
    """How the slots of one row are now.

    Args:
        bank: the memory.
        row: one of its rows; one that it does not have yet is empty.

    >>> import torch
    >>> bank = MemoryBank(2)
    >>> bank.write(torch.rand(1, 4, 3, 3), frame=7)
    >>> [slot.frame for slot in row_state(bank, 0).slots.values()]
    [7]
    """
    if row >= bank.rows:
        return RowState({}, (0,) * bank.capacity, False)
    versions = tuple(bank.version[row].tolist())
    provisional = bool(bank.state_dict()["provisional"][row])
    return RowState({info.slot: info for info in bank.describe(row)}, versions, provisional)


def compare(before: RowState, after: RowState, *, frame: int, missed: str = "unwritten") -> Change:
    """Say what happened between two moments with at most one write between them.

    Args:
        before: the slots before the frame.
        after: the slots after it.
        frame: its index.
        missed: the outcome to tell if nothing was written, one of `OUTCOMES`.

    >>> import torch
    >>> bank = MemoryBank(2, policy="drop")
    >>> for frame in range(2):
    ...     bank.write(torch.rand(1, 4, 3, 3), frame=frame)
    >>> before = row_state(bank, 0)
    >>> bank.write(torch.rand(1, 4, 3, 3), frame=2)
    >>> change = compare(before, row_state(bank, 0), frame=2)
    >>> change.outcome, change.slot, change.left.frame, change.fate
    ('stored', 0, 0, 'dropped')
    """
    written, into = list[SlotInfo](), list[SlotInfo]()
    for slot, info in after.slots.items():
        old = before.slots.get(slot)
        if old is None:
            written.append(info)
        elif before.versions[slot] != after.versions[slot]:
            fused = info.frame == old.frame and info.frames_inside != 1  # what was written anew holds one frame
            (into if fused else written).append(info)
    unpinned = tuple(
        slot
        for slot, info in sorted(after.slots.items())
        if not info.pinned and slot in before.slots and before.slots[slot].pinned and info not in written
    )
    freed = tuple(sorted(set(before.slots) - set(after.slots)))
    targets = tuple(sorted(info.slot for info in into))
    if not written:
        return Change(frame, "distilled" if targets else missed, into=targets, unpinned=unpinned, freed=freed)
    new = min(written, key=lambda info: info.age)
    left = before.slots.get(new.slot)
    fate = None
    if left is not None:
        replaced = before.provisional and left.age == 0
        fate = "replaced" if replaced else "fused" if targets else "dropped"
    outcome = "pinned" if new.pinned else "provisional" if after.provisional and new.age == 0 else "stored"
    return Change(frame, outcome, new.slot, left, fate, targets, unpinned, freed)
