"""The buffers of a bank: allocated once, indexed by row and slot, and the similarities between slots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stmemory.errors import BankError
from stmemory.memory.extents import are_within, cells_in_use, whole_extent
from stmemory.memory.packing import packed, unpacked
from stmemory.memory.similarity import similarities
from stmemory.memory.undo import Undo

__all__ = ["LOG_LENGTH", "MOST_FRAMES", "NO_FRAME", "SlotInfo", "Slots", "note_written", "written"]

LOG_LENGTH = 8  # fused frames remembered a slot, for describe(); bounded, like everything here
NO_FRAME = -1
MOST_FRAMES = 1 << 31  # that a slot counts: rule A fuses what goes into all slots, so their counts double at each write

# What is kept for every slot beside its template: [B, K].
_FLAGS = ("valid", "pinned")
_NUMBERS = ("age", "frame", "size", "version")


@dataclass(frozen=True)
class SlotInfo:
    """What is known of one slot of one row.

    Attributes:
        slot: its position, which says nothing about its age.
        frame: index of the frame that was written into it.
        age: templates stored in this row since, 0 for the newest.
        pinned: whether it can neither go nor change.
        frames_inside: how many frames it holds, its own and those fused into it; one that comes by several ways
            counts each time, up to 2**31.
        fused_frames: the latest frames fused into it, directly or inside another template, oldest first, at most
            `LOG_LENGTH`; `frames_inside` counts all.
    """

    slot: int
    frame: int
    age: int
    pinned: bool
    frames_inside: int
    fused_frames: tuple[int, ...]


class Slots(nn.Module):
    """Named tensors `[B, K, ...]`, and `provisional [B]`: non-persistent buffers, so they move with a model and are no
    part of its `state_dict()`. Empty until `allocate`.

    The only module whose buffers change during inference: a bank belongs to one video.

    Names: `templates [B, K, C, *S]`, `keys [B, K, Ck, *S]` (optional), `similarity [B, K, K]`, `compared [B, K, K]`
    (int64, the version that a similarity is of: the later one of its two slots), `valid`, `pinned` (bool), `age`,
    `frame`, `size`, `version` (int64), `extent [B, K, d, 2]` (int64), `log [B, K, LOG_LENGTH]` (int64),
    `provisional [B]` (bool).

    Attributes:
        partial: whether some template may have an extent that is not all of S.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.identity = object()  # another one whenever rows, dtype or all contents change, so that caches start again
        self.partial = False
        self.undo: Undo | None = None  # where changes are noted while a step is under way that must be atomic

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_buffers": {}, "undo": None, "packed": packed(self.tensors)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        restore: Callable[[dict[str, Any]], None] = super().__setstate__
        restore({name: value for name, value in state.items() if name != "packed"})
        self._hold(unpacked(state["packed"]))

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._buffers.get(name)
        if tensor is None:
            raise BankError("the bank is empty: its shapes are those of the first template; call write() first")
        return tensor

    def __contains__(self, name: str) -> bool:
        return name in self._buffers

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All buffers by name; a new dict of the same tensors, empty before `allocate`."""
        return {name: t for name, t in self._buffers.items() if t is not None}

    @property
    def rows(self) -> int:
        """B; 0 before `allocate`."""
        return len(self["valid"]) if "valid" in self else 0

    @property
    def cells(self) -> Tensor:
        """Bool `[B, K, *S]`: the positions that are part of a template."""
        return cells_in_use(self["extent"], self["valid"], self["templates"].shape[3:])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())

    def allocate(self, template: Tensor, key: Tensor | None) -> None:
        """Make room for `K` templates like `[B, C, *S]`, and keys like `[B, Ck, *S]`, on their device and of their
        dtype.

        Raises:
            BankError: there is not that much memory.
        """
        try:
            tensors = self._new(template, key)
        except (RuntimeError, TypeError, ValueError, OverflowError) as error:  # torch knows many ways to say it
            raise BankError(
                f"the bank cannot hold {self.capacity} templates of {tuple(template.shape[1:])} for each of "
                f"{len(template)} rows in memory; use a smaller capacity (memory_size) or smaller templates"
            ) from error
        self._note_all()
        self._hold(tensors)

    def _new(self, template: Tensor, key: Tensor | None) -> dict[str, Tensor]:
        rows, slots, device = len(template), self.capacity, template.device
        tensors = {"templates": template.detach().new_zeros(rows, slots, *template.shape[1:])}
        if key is not None:
            tensors["keys"] = key.detach().new_zeros(rows, slots, *key.shape[1:])
        tensors["similarity"] = torch.zeros(rows, slots, slots, dtype=torch.float32, device=device)
        tensors["compared"] = torch.zeros(rows, slots, slots, dtype=torch.int64, device=device)
        for name in _FLAGS:
            tensors[name] = torch.zeros(rows, slots, dtype=torch.bool, device=device)
        for name in _NUMBERS:
            tensors[name] = torch.zeros(rows, slots, dtype=torch.int64, device=device)
        whole = whole_extent(template.shape[2:], device)
        tensors["extent"] = whole.expand(rows, slots, *whole.shape).clone()
        tensors["log"] = torch.full((rows, slots, LOG_LENGTH), NO_FRAME, dtype=torch.int64, device=device)
        tensors["provisional"] = torch.zeros(rows, dtype=torch.bool, device=device)
        return tensors

    def put(self, name: str, index: tuple[Tensor, ...], value: Tensor | int) -> None:
        """Write `value` at `index`: in place where no graph is kept, else out of place."""
        buffer = self[name]
        if not isinstance(value, Tensor):
            value = torch.tensor(value, dtype=buffer.dtype, device=buffer.device)
        if self.undo is not None:
            note_written(self.undo, buffer, index)
            self.undo.note(lambda: self._buffers.__setitem__(name, buffer))
        self._buffers[name] = written(buffer, index, value)

    def update(self, tensors: Mapping[str, Tensor], rows: Tensor | None) -> None:
        """Put the contents `[R, K, ...]` of rows `[R]`, None for all, in the place of what they held: what a traced
        write made."""
        for name, new in tensors.items():
            buffer = self[name]
            if rows is not None:
                new = buffer.index_copy(0, rows, new)
            if new.requires_grad or buffer.requires_grad:
                self._buffers[name] = new
            else:
                buffer.copy_(new)

    def touch(self, index: Tensor, slot: Tensor, *, key: Callable[[Tensor], Tensor] | None) -> None:
        """The templates at `index [P]`, `slot [P]` changed: new versions, and new keys where there are keys."""
        if len(index) == 0:
            return
        self.put("version", (index, slot), self["version"].max() + 1)  # so a slot never has the same version twice
        if key is not None:
            self.put("keys", (index, slot), key(self["templates"][index, slot]))

    def rekey(self, key: Callable[[Tensor], Tensor] | None) -> None:
        """New keys for all slots in use, where there are keys; they hold what they held, so versions stay."""
        if key is not None and "valid" in self:
            index = self["valid"].nonzero().unbind(1)
            self.put("keys", index, key(self["templates"][index]))

    def compare(self, rows: Tensor, *, movable_only: bool = False) -> Tensor:
        """Similarities `[R, K, K]` of rows (eq. 1), computing only those of pairs of which a slot changed since the
        last time.

        Args:
            rows: `[R]`.
            movable_only: leave pairs with a pinned slot as they are, maybe old.
        """
        keys = self["keys" if "keys" in self else "templates"].detach()
        with torch.no_grad():
            wanted = self["valid"][rows] & ~self["pinned"][rows] if movable_only else self["valid"][rows]
            version = self["version"][rows]
            latest = torch.maximum(version[:, :, None], version[:, None, :])  # a change is numbered above all before it
            stale = wanted[:, :, None] & wanted[:, None, :] & (self["compared"][rows] != latest)
            for row, pairs in zip(rows[:, None], stale.tolist(), strict=True):
                while any(map(any, pairs)):
                    hub = max(range(self.capacity), key=[sum(line) for line in pairs].__getitem__)
                    self._compare_one(row, hub, [k for k in range(self.capacity) if pairs[hub][k]], keys)
                    pairs = [
                        [pair and hub not in (i, j) for j, pair in enumerate(line)] for i, line in enumerate(pairs)
                    ]
            self.put("compared", (rows,), torch.where(stale, latest, self["compared"][rows]))
        return self["similarity"][rows]

    def _compare_one(self, row: Tensor, hub: int, others: list[int], keys: Tensor) -> None:
        """Compare one slot of a row `[1]` with others of it, itself among them or not."""
        slot, partners = (torch.tensor(k, device=row.device) for k in ([hub], [k for k in others if k != hub]))
        cells = None  # [1, K, *S]
        if self.partial:
            cells = cells_in_use(self["extent"][row], self["valid"][row], self["templates"].shape[3:])
        if hub in others:  # each position finds itself; one without a direction finds nothing
            found = (keys[row, slot] != 0).any(1)  # [1, *S]
            own = found.flatten(1).float().mean(1) if cells is None else found[cells[:, hub]].float().mean()[None]
            self.put("similarity", (row, slot, slot), own)
        if len(partners):
            both = None if cells is None else (cells[:, hub], cells[:, partners])
            forth, back = similarities(keys[row, slot], keys[row[:, None], partners[None]], cells=both)
            self.put("similarity", (row[:, None], slot[None], partners[None]), forth)
            self.put("similarity", (row[:, None], partners[None], slot[None]), back)

    def check(self, tensors: Mapping[str, Tensor], *, keyed: bool) -> None:
        """Make sure that `take` can hold these, of a bank with or without keys of its own.

        Raises:
            BankError: names are missing or unexpected, sizes do not fit this capacity or each other, or a dtype is
                wrong.
        """
        probe = Slots(self.capacity)
        probe.allocate(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1) if keyed else None)
        if tensors and set(tensors) != set(probe.tensors):
            raise BankError(
                f"load_contents: missing {sorted(set(probe.tensors) - set(tensors))}, unexpected "
                f"{sorted(set(tensors) - set(probe.tensors))}; build the bank with the key it was saved with"
            )
        for name, tensor in tensors.items():
            free = ("templates", "keys", "extent")  # their shapes depend on the templates
            fits = (len(tensors["valid"]), *probe.tensors[name].shape[1 : 2 if name in free else None])
            if tuple(tensor.shape[: len(fits)]) != fits:
                raise BankError(
                    f"load_contents: expected {name} of {fits[0]} rows and {self.capacity} slots, got "
                    f"{tuple(tensor.shape)}; build the bank with the capacity it was saved with"
                )
            wanted = "floats" if name in ("templates", "keys") else str(probe.tensors[name].dtype)
            if not (tensor.is_floating_point() if wanted == "floats" else tensor.dtype == probe.tensors[name].dtype):
                raise BankError(f"load_contents: expected {name} of {wanted}, got {tensor.dtype}; the state is damaged")

        if tensors:
            shape, extent = tensors["templates"].shape[3:], tensors["extent"]
            if extent.shape[2:] != (len(shape), 2) or not are_within(extent, shape):
                raise BankError(f"load_contents: expected extents within {tuple(shape)}, got others; it is damaged")

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Hold copies of these instead."""
        self._note_all()
        self._hold({name: t.clone() for name, t in tensors.items()})
        self.identity = object()
        self.partial = False
        if tensors:
            extent = tensors["extent"]
            self.partial = not bool((extent == whole_extent(tensors["templates"].shape[3:], extent.device)).all())

    def have_extents(self) -> None:
        """Say that from here on some template may be a part of S alone."""
        if self.undo is not None and not self.partial:
            self.undo.note(lambda: setattr(self, "partial", False))
        self.partial = True

    def forget(self) -> None:
        """Hold nothing, as before `allocate`."""
        self.take({})

    def detach_all(self) -> None:
        """Cut the graph of all buffers."""
        self._hold({name: t.detach() for name, t in self.tensors.items()})

    def append_rows(self, number: int) -> None:
        """Append empty rows."""
        if number < 0 or "valid" not in self:
            raise BankError(
                f"add_rows: expected a number >= 0 and a bank with a first template, got {number}; call write() first"
            )
        self._note_all()
        self.identity = object()
        empty = {"log": torch.full((), NO_FRAME), "extent": whole_extent(self["templates"].shape[3:])}
        zero = torch.zeros(())
        self._hold(
            {
                name: torch.cat([t, empty.get(name, zero).to(t).expand(number, *t.shape[1:])])
                for name, t in self.tensors.items()
            }
        )

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Keep these rows, in this order, and free the rest."""
        self._note_all()
        index = torch.tensor(list(rows), dtype=torch.int64, device=self["valid"].device)
        self._hold({name: t[index] for name, t in self.tensors.items()})
        self.identity = object()

    def _hold(self, tensors: Mapping[str, Tensor]) -> None:
        """Make these the buffers, in the place of all others; an interrupt finds either those or these."""
        self._non_persistent_buffers_set.update(tensors)
        self._buffers = dict(tensors)

    def _note_all(self) -> None:
        """Note how to put back what is held, before other tensors take its place."""
        if self.undo is not None:
            tensors, identity, partial = self.tensors, self.identity, self.partial

            def put_back() -> None:
                self._hold(tensors)
                self.identity, self.partial = identity, partial

            self.undo.note(put_back)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Slots:
        """What `.to()`, `.double()`, `.half()`, `.cuda()` do to a module: templates and keys take the dtype, all else
        the device alone, since similarities are float32 whatever the templates are."""
        before, moved = self.tensors, dict[str, Tensor]()
        for name, tensor in before.items():
            found = fn(tensor)
            free = name in ("templates", "keys") or found.dtype == tensor.dtype
            moved[name] = found if free else tensor.to(found.device)
        if any(moved[name] is not before[name] for name in before):
            self._hold(moved)
            self.identity = object()
        return self

    def info(self, row: int) -> Iterator[SlotInfo]:
        """The slots in use of one row, oldest first."""
        known = {name: self[name][row].tolist() for name in ("valid", "age", "pinned", "frame", "size", "log")}
        for k in sorted(range(self.capacity), key=lambda k: -known["age"][k]):
            if known["valid"][k]:
                yield SlotInfo(
                    slot=k,
                    frame=known["frame"][k],
                    age=known["age"][k],
                    pinned=known["pinned"][k],
                    frames_inside=known["size"][k],
                    fused_frames=tuple(f for f in known["log"][k] if f != NO_FRAME),
                )


def note_written(undo: Undo, buffer: Tensor, index: tuple[Tensor, ...]) -> None:
    """Note how to put back what `written` is about to write over; notes nothing where that leaves the buffer as it
    is."""
    if _in_place(buffer):
        old = buffer[index]  # a copy
        undo.note(lambda: buffer.__setitem__(index, old))


def _in_place(buffer: Tensor) -> bool:
    frozen = not torch.is_grad_enabled() and not buffer.requires_grad
    return frozen and (torch.is_inference_mode_enabled() or not buffer.is_inference())


def written(buffer: Tensor, index: tuple[Tensor, ...], value: Tensor) -> Tensor:
    """The buffer with `value` at `index`: itself, written in place, where no graph is kept; else another tensor.

    What was written without grad carries none; what stands beside it keeps its own.

    >>> written(torch.zeros(3), (torch.tensor([1]),), torch.ones(1))
    tensor([0., 1., 0.])
    """
    value = value.to(buffer.dtype)
    if _in_place(buffer):
        buffer[index] = value
        return buffer
    frozen = not torch.is_grad_enabled()
    with torch.enable_grad():
        return buffer.index_put(index, value.detach() if frozen else value)
