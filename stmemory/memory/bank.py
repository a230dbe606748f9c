"""`MemoryBank`: a fixed number of slots. Decides nothing, merges nothing, attends to nothing: it asks a policy and a
fusion."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.memory.fusion import Fusion, FusionCell, MeanFusion
from stmemory.memory.policy import BankView, Decision, UpdatePolicy, update_policy, with_a_free_slot
from stmemory.memory.slots import LOG_LENGTH, MOST_FRAMES, NO_FRAME, SlotInfo, Slots
from stmemory.memory.undo import Undo

__all__ = ["MemoryBank"]

_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_ONE_HOT = 1e-2  # how far the 0 and 1 of a policy's choice may be off
_LAST_FRAME = 1 << 62


class MemoryBank:
    """K slots for each of B rows, whatever the length of the video. A row is one object of one video.

    With grad enabled the bank writes out of place and keeps the graph (`detach()` cuts it); without, it writes in place
    and its tensors stay where they are.

    Args:
        capacity: K, at least 2.
        policy: an `UpdatePolicy`, or its name or letter.
        fusion: what distils one template into another; None is `MeanFusion()`.
        key: makes of templates `[P, C, *S]` the keys `[P, Ck, *S]` that eq. 1 compares, as `SpaceTimeRead.key`; None
            compares templates.

    Raises:
        OptionError: the capacity is below 2, the policy's name is unknown, or a part is given as a class instead of an
            object.

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
        if type(capacity) is not int or capacity < 2:
            raise OptionError(
                f"MemoryBank: expected a capacity of 2 slots or more, a whole number, got {capacity!r}; the paper "
                "uses 5"
            )
        for name, part in (("fusion", fusion), ("key", key)):
            if part is not None and (isinstance(part, type) or not callable(part)):
                came = (
                    f"the class {part.__name__}; write {part.__name__}(...)"
                    if isinstance(part, type)
                    else type(part).__name__
                )
                raise OptionError(f"MemoryBank: expected as {name} an object that can be called, got {came}")
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
        """`[B, K, K]` float32: S(X_i, X_j) of eq. 1 between the slots in use; kept, and only what changed is
        computed."""
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

        It happens whole or not at all: after any error, an interrupt among them, the bank is as it was before. NaN and
        infinity are refused, but in training, where a template with a gradient shows them in the loss. The look at them
        costs no synchronisation with the device beside those that a write needs anyway.

        Args:
            template: `[R, C, *S]`, floats, finite.
            rows: `[R]`, the rows they belong to, each once; None means all, in order.
            frame: index of the frame, for `describe()`.
            pinned: keep the slot for good, unchanged; it is stored even where the policy stores no new template.
            provisional: let the next write to these rows take this slot's place, so that the newest slot follows the
                video while only every n-th frame is committed.

        Raises:
            ShapeError: the template does not fit the bank, or is no tensor of floats.
            OptionError: both pinned and provisional; the frame is no whole number; or the policy or the fusion answered
                what cannot be done, such as to remove a pinned slot.
            BankError: pinning it would leave a row no slot to write to; the template, or what the fusion made, holds
                NaN or infinity; or there is not enough memory for the bank.
        """
        self._whole(lambda: self._store(template, rows, frame, pinned=pinned, provisional=provisional))

    def _store(
        self, template: Tensor, rows: Sequence[int] | Tensor | None, frame: int, *, pinned: bool, provisional: bool
    ) -> None:
        if pinned and provisional:
            raise OptionError("write: expected pinned or provisional, got both; a pinned slot cannot be overwritten")
        if not _is_frame(frame):
            raise OptionError(
                f"write: expected the index of a frame, a whole number, got {frame!r}; 0 will do where there are no "
                "frames"
            )
        index = self._check(template, rows)
        template = template.to(self.templates.dtype)
        if pinned and bool((self.pinned[index].sum(1) + 1 >= self.capacity).any()):
            raise BankError(
                f"write: this template would pin all {self.capacity} slots of a row; unpin or drop one, or use a "
                "larger capacity"
            )
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

    def note_changes(self, undo: Undo | None) -> None:
        """Note from here on how to put back what changes, so that a larger whole can happen or not; None ends that."""
        self._slots.undo = undo

    def drop(self, slot: int, *, row: int = 0) -> None:
        """Forget one template, pinned or not; its slot is free again.

        Raises:
            BankError: there is no such slot in use.
        """
        index = self._slot(slot, row)

        def empty() -> None:
            if int(self.age[row, slot]) == 0:
                self._slots.put("provisional", index[:1], 0)
            for name in ("templates", "valid", "pinned"):
                self._slots.put(name, index, 0)
            self._slots.touch(*index, key=self.key)

        self._whole(empty)

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

    def reset(self) -> None:
        """Forget everything, the rows and the shape of templates too: the bank is as it was made, for another video."""
        self._slots = Slots(self.capacity)

    def detach(self) -> None:
        """Cut the graph: what is stored stays, gradients stop here (truncated backpropagation through time)."""
        self._slots.tensors = {name: t.detach() for name, t in self._slots.tensors.items()}

    def rekey(self) -> None:
        """Make all keys anew of their templates; after `detach()`, so that the key's weights learn from old templates
        too."""
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

    def _whole(self, work: Callable[[], None]) -> None:
        """Do something; what it changed is put back where it ends in an error."""
        outer = self._slots.undo
        undo = Undo() if outer is None else outer
        begun = len(undo)
        self._slots.undo = undo
        try:
            work()
        except BaseException:
            undo.put_back(begun)
            raise
        finally:
            self._slots.undo = outer

    def _check(self, template: Tensor, rows: Sequence[int] | Tensor | None) -> Tensor:
        """The rows `[R]` that a template goes to, after making sure that it fits; allocates at the first write."""
        if not isinstance(template, Tensor):
            came = type(template).__name__
            raise ShapeError(
                f"write: expected a template [R, C, *S], a torch.Tensor, got {came}; torch.as_tensor() makes one of "
                "an array"
            )
        if template.dtype not in _FLOATS or template.is_meta:
            came = f"{template.dtype} on {template.device}"
            raise ShapeError(
                f"write: expected a template of floats, got {came}; what is fused is not whole: convert it with "
                ".float()"
            )
        if template.dim() < 3:
            raise ShapeError(
                f"write: expected a template [R, C, *S], got {tuple(template.shape)}; give vectors as [R, C, 1]"
            )
        index = _rows_of(rows)
        if not self._slots.tensors:
            if index is not None and index.tolist() != list(range(len(template))):
                raise ShapeError(
                    f"write: the first write makes the rows; expected rows=None, got {rows}; add_rows() comes later"
                )
            if isinstance(self.fusion, FusionCell):
                self.fusion.check(template, template)  # now, not at the first fusion, which comes K frames later
            self._slots.allocate(template, self._first_key(template))
        expected = (*self.templates.shape[:1], *self.templates.shape[2:])
        index = torch.arange(self.rows) if index is None else index
        inside = bool(((index >= 0) & (index < self.rows)).all()) and len(set(index.tolist())) == len(index)
        if not inside or (len(index), *template.shape[1:]) != (len(template), *expected[1:]):
            raise ShapeError(
                f"write: expected a template [R, {', '.join(map(str, expected[1:]))}] for R different rows of "
                f"0..{self.rows - 1}, "
                f"got {tuple(template.shape)} for rows {index.tolist()}; start a new bank for another size"
            )
        return index.to(self.valid.device)

    def _first_key(self, template: Tensor) -> Tensor | None:
        """The keys of the first template; what is no key is told now, not K frames later."""
        if self.key is None:
            return None
        key: object = self.key(template)
        if not isinstance(key, Tensor) or key.dim() < 3 or len(key) != len(template) or not key.is_floating_point():
            came = tuple(key.shape) if isinstance(key, Tensor) else type(key).__name__
            raise OptionError(
                f"MemoryBank: expected key to make [P, Ck, *S] of templates {tuple(template.shape)}, got {came}; mend "
                "the key"
            )
        return key

    def _slot(self, slot: int, row: int) -> tuple[Tensor, ...]:
        """Index tensors `[1]` of a slot in use."""
        if not (0 <= row < self.rows and 0 <= slot < self.capacity and bool(self.valid[row, slot])):
            raise BankError(
                f"expected a slot in use of rows 0..{self.rows - 1}, got slot {slot} of row {row}; see describe()"
            )
        return torch.tensor([[row], [slot]], device=self.valid.device).unbind()

    def _make_room(
        self, index: Tensor, template: Tensor, frame: int, *, must_store: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The slot `[R]` that each row's template takes (-1: none), and a factor `[R, 1, ...]` that carries a
        gradient."""
        valid, age = self.valid[index], self.age[index]
        overwrite, newest = (
            self._slots["provisional"][index],
            age.masked_fill(~valid, torch.iinfo(torch.int64).max).argmin(1),
        )
        slot = torch.where(overwrite, newest, valid.long().argmin(1))
        unusable = torch.zeros_like(overwrite[:1]).any() if template.requires_grad else ~template.isfinite().all()
        full = _positions(valid.all(1) & ~overwrite, unless=unusable)
        if full is None:
            raise BankError(
                "write: expected a finite template, got NaN or infinity; it was not stored: find where it comes from, "
                "or use float32"
            )
        if len(full) == 0:
            return slot, None
        rows = index[full]
        movable_only = getattr(self.policy, "movable_only", False)
        similarity = (
            self._slots.compare(rows, movable_only=movable_only)
            if self.policy.uses_similarity
            else self._slots["similarity"][rows]
        )
        view = BankView(similarity, age[full], valid[full], self.pinned[rows])
        decision, wrong = self._decide(view)
        if must_store:
            decision = with_a_free_slot(decision, view)
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
        self._distil(rows, (decision.into, wrong), source, size, torch.cat([past, origin[:, None]], 1))
        slot = slot.index_put((full,), torch.where(goes, leaving, torch.full_like(leaving, -1)))
        if not remove.requires_grad:
            return slot, None
        self._slots.put("templates", (rows,), self.templates[rows] * (1 - remove).view(*remove.shape, *shape[1:]))
        return slot, template.new_ones(len(index)).index_put((full,), chosen[:, 0]).view(shape)

    def _decide(self, view: BankView) -> tuple[Decision, Tensor]:
        """What the policy answers, and whether that cannot be done, bool `[]`: it may be on a device that is better not
        waited for."""
        decision: object = self.policy.decide(view)
        expected = tuple(view.age.shape)
        if not isinstance(decision, Decision):
            raise OptionError(
                f"policy {self.policy.name!r}: expected decide(view) to give a Decision, got {type(decision).__name__}"
            )
        for name, told in (("remove", decision.remove), ("into", decision.into)):
            if (
                not isinstance(told, Tensor)
                or tuple(told.shape) != expected
                or told.device != view.age.device
                or told.is_complex()
            ):
                came = (
                    f"{told.dtype} {tuple(told.shape)} on {told.device}"
                    if isinstance(told, Tensor)
                    else type(told).__name__
                )
                raise OptionError(
                    f"policy {self.policy.name!r}: expected {name} as floats {expected} on {view.age.device}, got "
                    f"{came}"
                )
        remove, into = decision.remove.detach().float(), decision.into.detach().float()
        one_hot = (
            ((remove - remove.round()).abs() <= _ONE_HOT).all()
            & (remove >= -_ONE_HOT).all()
            & (remove.round().sum(1) <= 1).all()
        )
        shares = ((into >= 0) & (into <= 1)).all()
        spared = (view.movable | ((remove == 0) & (into == 0))).all()
        return decision, ~(one_hot & shares & spared)

    def _distil(self, rows: Tensor, told: tuple[Tensor, Tensor], source: Tensor, size: Tensor, frames: Tensor) -> None:
        """Fuse the sources `[F, C, *S]` (of `size [F]` frames, known ones `frames [F, L]`) into slots, as far as `into
        [F, K]` says."""
        into, wrong = told
        where = _positions((into.detach() > 0).flatten(), unless=wrong)
        if where is None:
            raise OptionError(
                f"policy {self.policy.name!r}: expected remove with at most one 1 a row and into between 0 and 1, "
                "both 0 where a slot is pinned "
                "or empty, got others; choose among view.movable"
            )
        if len(where) == 0:
            return
        which, slot = where // self.capacity, where % self.capacity  # [P]
        at = (rows[which], slot)
        target, sizes = self.templates[at], torch.stack([size[which], self._slots["size"][at]], 1)
        answer: object = self.fusion(source[which], target, sizes)
        if not isinstance(answer, Tensor) or answer.shape != target.shape or not answer.is_floating_point():
            came = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise OptionError(
                f"MemoryBank: expected the fusion to make templates {tuple(target.shape)}, got {came}; mend the fusion"
            )
        fused = self._moved(target, answer, into[which, slot])
        self._slots.put("templates", at, fused)
        self._slots.put("size", at, sizes.sum(1).clamp_max(MOST_FRAMES))
        self._slots.put(
            "log", at, torch.cat([self._slots["log"][at], frames[which]], 1).sort(dim=1).values[:, -LOG_LENGTH:]
        )  # the latest
        self._slots.touch(*at, key=self.key)

    def _moved(self, target: Tensor, fused: Tensor, into: Tensor) -> Tensor:
        """Targets `[P, C, *S]` that go to their fused templates as far as `into [P]` says.

        Raises:
            BankError: a fused template is not finite, where it carries no gradient.
        """
        whole = False
        if not into.requires_grad:
            finite = torch.ones_like(into[:1]).bool().all() if fused.requires_grad else fused.isfinite().all()
            flags = int((into == 1).all() + 2 * finite)  # one look at the device for both
            whole = flags % 2 == 1
            if flags < 2:
                raise BankError(
                    "write: expected the fusion to make a finite template, got NaN or infinity; nothing was stored: "
                    "use float32, or another fusion"
                )
        if whole:
            return fused
        share = into.view(-1, *[1] * (target.dim() - 1)).to(target.dtype)
        wide = torch.promote_types(target.dtype, torch.float32)  # in half precision a difference may be infinite
        return (target.to(wide) + share.to(wide) * (fused.to(wide) - target.to(wide))).to(target.dtype)


def _positions(mask: Tensor, *, unless: Tensor) -> Tensor | None:
    """Where a mask `[n]` is true, int64 `[m]`; None where `unless []` is true. Waits for the device once, as for the
    mask alone."""
    found = torch.cat([mask, unless.expand(len(mask) + 1)]).nonzero().squeeze(1)
    return found if len(found) <= len(mask) else None


def _rows_of(rows: Sequence[int] | Tensor | None) -> Tensor | None:
    """The rows that a user named, int64 `[R]` on their own device."""
    if rows is None:
        return None
    if isinstance(rows, Tensor):
        if rows.dim() == 1 and not rows.is_floating_point() and not rows.is_complex() and rows.dtype != torch.bool:
            return rows.to(torch.int64)
        came = f"{rows.dtype} {tuple(rows.shape)}"
        raise ShapeError(f"write: expected rows as whole numbers [R], got {came}; a mask becomes rows with .nonzero()")
    try:
        return torch.tensor([operator.index(row) for row in rows], dtype=torch.int64)
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ShapeError(f"write: expected rows as whole numbers, got {rows!r}; such as rows=[0, 2]") from error


def _is_frame(frame: object) -> bool:
    try:
        return isinstance(frame, SupportsIndex) and -_LAST_FRAME <= operator.index(frame) <= _LAST_FRAME
    except TypeError:  # a tensor of another kind
        return False
