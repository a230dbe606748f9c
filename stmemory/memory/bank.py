"""`MemoryBank`: a fixed number of slots. Decides nothing, merges nothing, attends to nothing: it asks a policy and a fusion."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.memory.fusion import Fusion, FusionCell, MeanFusion
from stmemory.memory.policy import BankView, UpdatePolicy, with_a_free_slot
from stmemory.memory.registry import update_policy
from stmemory.memory.slots import LOG_LENGTH, MOST_FRAMES, NO_FRAME, SlotInfo, Slots
from stmemory.pretrained import BankFromPretrained

__all__ = ["MemoryBank"]


class MemoryBank(BankFromPretrained):
    """K slots for each of B rows, whatever the length of the video. A row is one object of one video.

    With grad enabled the bank writes out of place and keeps the graph (`detach()` cuts it); without, it writes in place
    and its tensors stay where they are.

    Args:
        capacity: K, at least 2.
        policy: an `UpdatePolicy`, or its name or letter.
        fusion: what distils one template into another; None is `MeanFusion()`.
        key: makes of templates `[P, C, *S]` the keys `[P, Ck, *S]` that eq. 1 compares, as `SpaceTimeRead.key`; None compares templates.

    Raises:
        OptionError: the capacity is below 2 or the policy's name is unknown.

    >>> bank = MemoryBank(3)
    >>> for frame in range(10):
    ...     bank.write(torch.rand(2, 8, 4, 4), frame=frame, pinned=frame == 0)
    >>> bank.templates.shape, bank.count.tolist()
    (torch.Size([2, 3, 8, 4, 4]), [3, 3])
    """

    def __init__(
        self,
        capacity: int,
        *,
        policy: str | UpdatePolicy = "least_similar",
        fusion: Fusion | None = None,
        key: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if capacity < 2:
            raise OptionError(f"MemoryBank: expected a capacity of 2 slots or more, got {capacity}; the paper uses 5")
        self.capacity = capacity
        self.policy = update_policy(policy)
        self.fusion: Fusion = MeanFusion() if fusion is None else fusion
        self.key = key
        self._slots = Slots(capacity)

    def __repr__(self) -> str:
        return f"MemoryBank({self.capacity} slots, {self.policy.name}, {self.rows} rows, in use {self.count.tolist() if self.rows else []})"

    @property
    def rows(self) -> int:
        """B; 0 before the first write."""
        return self._slots.rows

    @property
    def templates(self) -> Tensor:
        """`[B, K, C, *S]`; zeros where not valid."""
        return self._slots["templates"]

    @property
    def keys(self) -> Tensor:
        """`[B, K, Ck, *S]`, what eq. 1 compares; the templates themselves when the bank has no `key`."""
        return self._slots["keys"] if "keys" in self._slots else self._slots["templates"]

    @property
    def valid(self) -> Tensor:
        """`[B, K]` bool: slots that hold a template."""
        return self._slots["valid"]

    @property
    def age(self) -> Tensor:
        """`[B, K]` int64: templates stored in the row since the slot was written, 0 for the newest."""
        return self._slots["age"]

    @property
    def pinned(self) -> Tensor:
        """`[B, K]` bool: slots that neither go nor change."""
        return self._slots["pinned"]

    @property
    def version(self) -> Tensor:
        """`[B, K]` int64: grows whenever a slot's template changes; what caches compare."""
        return self._slots["version"]

    @property
    def identity(self) -> object:
        """Another object once rows were added or removed, or a state loaded: then no cache of the contents holds."""
        return self._slots.identity

    @property
    def count(self) -> Tensor:
        """`[B]` int64: slots in use."""
        return self.valid.sum(1)

    @property
    def nbytes(self) -> int:
        """Bytes of all that the bank holds; constant from the first write on while the rows are the same."""
        return self._slots.nbytes

    def similarity(self) -> Tensor:
        """`[B, K, K]` float32: S(X_i, X_j) of eq. 1 between the slots in use; kept, and only what changed is computed."""
        return self._slots.compare(torch.arange(self.rows, device=self.valid.device))

    def describe(self, row: int = 0) -> list[SlotInfo]:
        """What the slots of one row hold, oldest first.

        Raises:
            BankError: there is no such row.
        """
        if not 0 <= row < self.rows:
            raise BankError(f"describe: expected a row in 0..{self.rows - 1}, got {row}")
        return list(self._slots.info(row))

    def write(
        self,
        template: Tensor,
        *,
        rows: Sequence[int] | Tensor | None = None,
        frame: int = 0,
        pinned: bool = False,
        provisional: bool = False,
    ) -> None:
        """Store one template a row: in a free slot, or where the policy and the fusion make one (section 3.2).

        Args:
            template: `[R, C, *S]`.
            rows: `[R]`, the rows they belong to, each once; None means all, in order.
            frame: index of the frame, for `describe()`.
            pinned: keep the slot for good, unchanged; it is stored even where the policy stores no new template.
            provisional: let the next write to these rows take this slot's place, so that the newest slot follows the video
                while only every n-th frame is committed.

        Raises:
            ShapeError: the template does not fit the bank.
            OptionError: both pinned and provisional.
            BankError: pinning it would leave a row no slot to write to.
        """
        if pinned and provisional:
            raise OptionError("write: expected pinned or provisional, got both; a pinned slot cannot be overwritten")
        index = self._check(template, rows)
        template = template.to(self.templates.dtype)
        if pinned and bool((self.pinned[index].sum(1) + 1 >= self.capacity).any()):
            raise BankError(f"write: this template would pin all {self.capacity} slots of a row; unpin or drop one, or use a larger capacity")
        slot, gate = self._make_room(index, template, frame, must_store=pinned)
        kept = slot >= 0
        index, slot, template = index[kept], slot[kept], (template if gate is None else template * gate)[kept]
        age = self.age[index] + self.valid[index]
        age[torch.arange(len(slot), device=slot.device), slot] = 0
        self._slots.put("age", (index,), age)
        self._slots.put("templates", (index, slot), template)
        for name, value in (("valid", True), ("pinned", pinned), ("frame", frame), ("size", 1), ("log", NO_FRAME)):
            self._slots.put(name, (index, slot), int(value))
        self._slots.put("provisional", (index,), int(provisional))
        self._slots.touch(index, slot, key=self.key)

    def drop(self, slot: int, *, row: int = 0) -> None:
        """Forget one template, pinned or not; its slot is free again.

        Raises:
            BankError: there is no such slot in use.
        """
        index = self._slot(slot, row)
        if int(self.age[row, slot]) == 0:
            self._slots.put("provisional", index[:1], 0)
        for name in ("templates", "valid", "pinned"):
            self._slots.put(name, index, 0)
        self._slots.touch(*index, key=self.key)

    def unpin(self, slot: int, *, row: int = 0) -> None:
        """Let a pinned slot go and change like any other.

        Raises:
            BankError: there is no such slot in use.
        """
        self._slots.put("pinned", self._slot(slot, row), 0)

    def add_rows(self, number: int) -> None:
        """Append empty rows: objects that enter later. Allocates once, at the call."""
        self._slots.append_rows(number)

    def remove_rows(self, rows: Sequence[int]) -> None:
        """Forget whole rows and free their bytes; the rows after them move up.

        Raises:
            BankError: there is no such row.
        """
        if unknown := [r for r in rows if not 0 <= r < self.rows]:
            raise BankError(f"remove_rows: expected rows in 0..{self.rows - 1}, got {unknown}")
        self._slots.keep_rows([r for r in range(self.rows) if r not in set(rows)])

    def detach(self) -> None:
        """Cut the graph: what is stored stays, gradients stop here (truncated backpropagation through time)."""
        self._slots.tensors = {name: t.detach() for name, t in self._slots.tensors.items()}

    def rekey(self) -> None:
        """Make all keys anew of their templates; after `detach()`, so that the key's weights learn from old templates too."""
        self._slots.rekey(self.key)

    def fork(self) -> MemoryBank:
        """A bank that goes its own way from here on; policy, fusion and key are shared."""
        twin = MemoryBank(self.capacity, policy=self.policy, fusion=self.fusion, key=self.key)
        twin._slots.take(self._slots.tensors)
        return twin

    def state_dict(self) -> dict[str, Tensor]:
        """All that is remembered, by name; copies nothing. Empty before the first write. Files: `save_bank`."""
        return dict(self._slots.tensors)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a copy of what `state_dict()` gave, for a bank of the same capacity.

        Raises:
            BankError: names are missing or unexpected, or sizes do not fit.
        """
        self._slots.check(state, keyed=self.key is not None)
        self._slots.take(state)

    def _check(self, template: Tensor, rows: Sequence[int] | Tensor | None) -> Tensor:
        """The rows `[R]` that a template goes to, after making sure that it fits; allocates at the first write."""
        if template.dim() < 3:
            raise ShapeError(f"write: expected a template [R, C, *S], got {tuple(template.shape)}; give vectors as [R, C, 1]")
        if not self._slots.tensors:
            if rows is not None and list(rows) != list(range(len(template))):
                raise ShapeError(f"write: the first write makes the rows; expected rows=None, got {rows}; add_rows() comes later")
            if isinstance(self.fusion, FusionCell):
                self.fusion.check(template, template)  # now, not at the first fusion, which comes K frames later
            self._slots.allocate(template, self.key(template) if self.key else None)
        expected = (*self.templates.shape[:1], *self.templates.shape[2:])
        index = torch.arange(self.rows) if rows is None else torch.as_tensor(rows, dtype=torch.int64)
        inside = bool(((index >= 0) & (index < self.rows)).all()) and len(set(index.tolist())) == len(index)
        if not inside or (len(index), *template.shape[1:]) != (len(template), *expected[1:]):
            raise ShapeError(
                f"write: expected a template [R, {', '.join(map(str, expected[1:]))}] for R different rows of 0..{self.rows - 1}, "
                f"got {tuple(template.shape)} for rows {index.tolist()}; start a new bank for another size"
            )
        return index.to(self.valid.device)

    def _slot(self, slot: int, row: int) -> tuple[Tensor, ...]:
        """Index tensors `[1]` of a slot in use."""
        if not (0 <= row < self.rows and 0 <= slot < self.capacity and bool(self.valid[row, slot])):
            raise BankError(f"expected a slot in use of rows 0..{self.rows - 1}, got slot {slot} of row {row}; see describe()")
        return torch.tensor([[row], [slot]], device=self.valid.device).unbind()

    def _make_room(self, index: Tensor, template: Tensor, frame: int, *, must_store: bool) -> tuple[Tensor, Tensor | None]:
        """The slot `[R]` that each row's template takes (-1: none), and a factor `[R, 1, ...]` that carries a gradient."""
        valid, age = self.valid[index], self.age[index]
        overwrite, newest = self._slots["provisional"][index], age.masked_fill(~valid, torch.iinfo(torch.int64).max).argmin(1)
        slot = torch.where(overwrite, newest, valid.long().argmin(1))
        full = (valid.all(1) & ~overwrite).nonzero().squeeze(1)
        if len(full) == 0:
            return slot, None
        rows = index[full]
        movable_only = getattr(self.policy, "movable_only", False)
        similarity = self._slots.compare(rows, movable_only=movable_only) if self.policy.uses_similarity else self._slots["similarity"][rows]
        view = BankView(similarity, age[full], valid[full], self.pinned[rows])
        decision = with_a_free_slot(self.policy.decide(view), view) if must_store else self.policy.decide(view)
        remove = decision.remove.to(template.dtype)
        goes, leaving = remove.detach().sum(1) > 0.5, remove.detach().argmax(1)  # [F]
        chosen = remove.gather(1, leaving[:, None])  # [F, 1], one; carries the gradient of a learned choice
        shape = (-1, *[1] * (template.dim() - 1))
        source = self.templates[rows, leaving]  # [F, C, *S]
        if remove.requires_grad:
            source = source * chosen.view(shape)
        source = torch.where(goes.view(shape), source, template[full])
        size = torch.where(goes, self._slots["size"][rows, leaving], torch.ones_like(rows))
        origin = torch.where(goes, self._slots["frame"][rows, leaving], torch.full_like(rows, frame))
        past = self._slots["log"][rows, leaving].masked_fill(~goes[:, None], NO_FRAME)
        self._distil(rows, decision.into, source, size, torch.cat([past, origin[:, None]], 1))
        slot = slot.index_put((full,), torch.where(goes, leaving, torch.full_like(leaving, -1)))
        if not remove.requires_grad:
            return slot, None
        self._slots.put("templates", (rows,), self.templates[rows] * (1 - remove).view(*remove.shape, *shape[1:]))
        return slot, template.new_ones(len(index)).index_put((full,), chosen[:, 0]).view(shape)

    def _distil(self, rows: Tensor, into: Tensor, source: Tensor, size: Tensor, frames: Tensor) -> None:
        """Fuse the sources `[F, C, *S]` (of `size [F]` frames, known ones `frames [F, L]`) into slots, as far as `into [F, K]` says."""
        which, slot = (into.detach() > 0).nonzero().unbind(1)  # [P]
        if len(which) == 0:
            return
        at = (rows[which], slot)
        target, sizes = self.templates[at], torch.stack([size[which], self._slots["size"][at]], 1)
        fused = self.fusion(source[which], target, sizes)
        share = into[which, slot].view(-1, *[1] * (target.dim() - 1)).to(target.dtype)
        if into.requires_grad or not bool((share == 1).all()):
            fused = target + share * (fused - target)
        self._slots.put("templates", at, fused)
        self._slots.put("size", at, sizes.sum(1).clamp_max(MOST_FRAMES))
        self._slots.put("log", at, torch.cat([self._slots["log"][at], frames[which]], 1).sort(dim=1).values[:, -LOG_LENGTH:])  # the latest
        self._slots.touch(*at, key=self.key)
