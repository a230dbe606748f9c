"""What happened to each slot of a stream's memory, frame by frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stmemory.errors import OptionError
from stmemory.memory.bank import MemoryBank
from stmemory.memory.slots import NO_FRAME, SlotInfo

__all__ = [
    "COLUMNS",
    "KINDS",
    "OUTCOMES",
    "Change",
    "History",
    "RowState",
    "compare",
    "fused_words",
    "kind_of",
    "row_state",
]

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
    provisional = bool(bank.contents()["provisional"][row])
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
            fused = info.frame == old.frame and info.frames_inside != 1  # a slot that was written again holds one frame
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


COLUMNS = 1024
# What a slot is when it is read. Which slot that is changes all the time, so over a long video kinds tell more than
# numbers.
KINDS = {
    "pinned": "pinned, as given",
    "fused": "several frames fused into one",
    "newest": "one frame, the newest",
    "older": "one frame, an older one",
}


class History:
    """Of one object with K slots.

    Attributes:
        first: index of the frame that the first column begins with.
        stride: frames a column stands for.
        origin: int64 `[K, COLUMNS]`, the frame that each slot was written at, as the column ends; -1 for an empty slot.
        size: int64 `[K, COLUMNS]`, how many frames it holds, as the column ends.
        pinned: bool `[K, COLUMNS]`, as the column ends.
        writes: int64 `[K, COLUMNS]`, how often it was written to.
        drops: int64 `[K, COLUMNS]`, how often what it held was lost for good.
        fusions: int64 `[K, COLUMNS]`, how often another template was distilled into it.
        inside: int64 `[K, COLUMNS]`, how many of the column's frames each slot holds now; a frame counts once, however
            often it was fused in, as long as a column is one frame.
        outcomes: int64 `[len(OUTCOMES), COLUMNS]`, what became of the frames.
        share: float64 `[K, COLUMNS]`, sum over the frames that were read of the share of attention that each slot got.
        kinds: float64 `[len(KINDS), COLUMNS]`, the same share, by kind of slot.
        reads: int64 `[COLUMNS]`, how many frames that are.
        score: float64 `[COLUMNS]`, the lowest score of the frames; infinite where there was none.
        changes: the latest ones, at most `COLUMNS`.

    >>> History(5, first=0).origin.shape
    (5, 1024)
    """

    def __init__(self, slots: int, *, first: int) -> None:
        self.first, self.stride, self.last = first, 1, first - 1
        shape = (slots, COLUMNS)
        self.origin = np.full(shape, NO_FRAME, np.int64)
        self.size, self.pinned = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
        self.writes, self.drops, self.fusions, self.inside = (np.zeros(shape, np.int64) for _ in range(4))
        self.outcomes = np.zeros((len(OUTCOMES), COLUMNS), np.int64)
        self.share, self.kinds = np.zeros(shape), np.zeros((len(KINDS), COLUMNS))
        self.reads = np.zeros(COLUMNS, np.int64)
        self.score = np.full(COLUMNS, np.inf)
        self.changes: deque[Change] = deque(maxlen=COLUMNS)

    @property
    def columns(self) -> int:
        """How many are in use."""
        return (self.last - self.first) // self.stride + 1

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays; the same for any length of video."""
        return sum(array.nbytes for array in vars(self).values() if isinstance(array, np.ndarray))

    def add(
        self,
        change: Change,
        state: RowState,
        *,
        before: RowState | None = None,
        share: NDArray[np.float64] | None = None,
        score: float = np.inf,
    ) -> None:
        """Take down one frame, or one more change of the last.

        Args:
            change: what it did.
            state: the slots after it.
            before: the slots before it, those that were read.
            share: `[K]`, of the attention of the object's cells; None if there was no read.
            score: the object's.

        Raises:
            OptionError: the frame comes before the first.
        """
        if change.frame < self.first:
            raise OptionError(f"add: expected frame {self.first} or later, got {change.frame}; frames come in order")
        while (change.frame - self.first) // self.stride >= COLUMNS:
            self._halve()
        self.last = max(self.last, change.frame)
        column = (change.frame - self.first) // self.stride
        self.origin[:, column], self.size[:, column], self.pinned[:, column] = NO_FRAME, 0, False
        for slot, info in state.slots.items():
            self.origin[slot, column] = info.frame
            self.size[slot, column] = info.frames_inside
            self.pinned[slot, column] = info.pinned
        self.outcomes[list(OUTCOMES).index(change.outcome), column] += 1
        self.score[column] = min(self.score[column], score)
        if share is not None:
            self.share[:, column] += share
            self.reads[column] += 1
            for slot, info in ({} if before is None else before.slots).items():
                self.kinds[list(KINDS).index(kind_of(info)), column] += share[slot]
        self._follow(change, column)
        self.changes.append(change)

    def _follow(self, change: Change, column: int) -> None:
        """Move the frames that are inside the slots."""
        gone = np.zeros(COLUMNS, np.int64)
        if change.slot is not None:
            gone = self.inside[change.slot].copy()
        elif change.outcome == "distilled":
            gone[column] = 1
        self.inside[list(change.freed)] = 0
        for (
            slot
        ) in change.into:  # rules that fuse one template into many put the same frame into a slot again and again
            self.inside[slot] = np.minimum(self.inside[slot] + gone, self.stride)
            self.fusions[slot, column] += 1
        if change.slot is not None:
            self.writes[change.slot, column] += 1
            self.drops[change.slot, column] += change.fate == "dropped"
            self.inside[change.slot] = 0
            self.inside[change.slot, column] = 1

    def _halve(self) -> None:
        """Let each two neighbouring columns become one."""
        later = self.outcomes[:, 1::2].sum(0) > 0  # a column that was skipped says nothing of the slots
        for name in ("origin", "size", "pinned"):
            array = getattr(self, name)
            array[:, : COLUMNS // 2] = np.where(later, array[:, 1::2], array[:, ::2])
            array[:, COLUMNS // 2 :] = NO_FRAME if name == "origin" else 0
        joins: dict[str, Callable[..., NDArray[np.generic]]] = {"score": np.minimum}
        for name in ("writes", "drops", "fusions", "inside", "outcomes", "share", "kinds", "reads", "score"):
            array = getattr(self, name)
            array[..., : COLUMNS // 2] = joins.get(name, np.add)(array[..., ::2], array[..., 1::2])
            array[..., COLUMNS // 2 :] = np.inf if name == "score" else 0
        self.stride *= 2


def kind_of(slot: SlotInfo) -> str:
    """Which of `KINDS` a slot is.

    >>> kind_of(SlotInfo(slot=0, frame=3, age=0, pinned=False, frames_inside=1, fused_frames=()))
    'newest'
    """
    if slot.pinned:
        return "pinned"
    return "fused" if slot.frames_inside > 1 else "newest" if slot.age == 0 else "older"


def fused_words(frames_inside: int, *, frame: int) -> str:
    """Say what was fused into a slot, for a caption.

    Args:
        frames_inside: as the bank counts them: a frame that came in several ways counts several times.
        frame: index of the last frame, so that one can see that a count is such a one.

    >>> fused_words(1, frame=9), fused_words(4, frame=9), fused_words(500, frame=9)
    ('', '+ 3 fused in', '+ many fused in')
    """
    if frames_inside == 1:
        return ""
    return f"+ {frames_inside - 1:,} fused in" if 1 < frames_inside <= frame + 1 else "+ many fused in"
