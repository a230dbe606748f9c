"""`MemoryBank`: a fixed number of slots for each row. A policy decides what goes, a fusion merges, the bank stores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.memory.checks import (
    check_decision,
    check_frame,
    check_fused,
    check_key,
    check_part,
    check_template,
    checked_rows,
)
from stmemory.memory.extents import checked_extent, inside, slices_of, whole_extent, with_extents
from stmemory.memory.fusion import Fusion, FusionCell, MeanFusion, part_of_the_way
from stmemory.memory.policy import BankView, UpdatePolicy, update_policy, with_a_free_slot
from stmemory.memory.slots import LOG_LENGTH, MOST_FRAMES, NO_FRAME, SlotInfo, Slots
from stmemory.memory.traced import traced_write
from stmemory.memory.undo import Undo

__all__ = ["MemoryBank"]

_PARTS = ("policy", "fusion", "key")


class MemoryBank(nn.Module):
    """K slots for each of B rows, whatever the length of the video. A row is one object of one video.

    A module whose slots are non-persistent buffers: `.to()`, `.double()` and `.half()` reach the stored templates and
    the parameters of fusion cell, key and learned policy; `state_dict()` holds the parameters and not what is
    remembered, which is `contents()`. `copy.deepcopy` copies both, `fork()` what is remembered alone.

    With grad enabled the bank writes out of place and keeps the graph (`detach()` cuts it); without, it writes in place
    and its tensors stay where they are.

    Args:
        capacity: K, at least 2.
        policy: an `UpdatePolicy`, or its name or letter.
        fusion: merges one template into another; None is `MeanFusion()`.
        key: computes from templates `[P, C, *S]` the keys `[P, Ck, *S]` that eq. 1 compares, as `SpaceTimeRead.key`;
            None compares templates.
        borrow: those of "policy", "fusion" and "key" that another module owns. The bank uses them, and leaves it to
            their owner to list, move and save their parameters; a model that holds both then has them once.

    Raises:
        OptionError: the capacity is below 2, the policy's name is unknown, a part is given as a class instead of an
            object, or `borrow` names something else.

    >>> bank = MemoryBank(3)
    >>> for frame in range(10):
    ...     bank.write(torch.rand(2, 8, 4, 4), frame=frame, pinned=frame == 0)
    >>> bank.templates.shape, bank.count.tolist()
    (torch.Size([2, 3, 8, 4, 4]), [3, 3])
    >>> model = torch.nn.ModuleDict({"bank": MemoryBank(3, fusion=FusionCell(8))})
    >>> sorted(model.state_dict())[:2]
    ['bank.fusion.f.0.bias', 'bank.fusion.f.0.weight']
    """

    capacity: int
    policy: UpdatePolicy
    fusion: Fusion
    key: Callable[[Tensor], Tensor] | None

    def __init__(
        self,
        capacity: int,
        *,
        policy: str | UpdatePolicy = "least_similar",
        fusion: Fusion | None = None,
        key: Callable[[Tensor], Tensor] | None = None,
        borrow: Collection[str] = (),
    ) -> None:
        super().__init__()
        if not isinstance(capacity, int) or isinstance(capacity, bool) or capacity < 2:
            raise OptionError(
                "MemoryBank: expected a capacity of 2 slots or more, "
                f"a whole number, got {capacity!r}; the paper uses 5"
            )
        if isinstance(borrow, str) or not set(borrow) <= set(_PARTS):
            raise OptionError(f"MemoryBank: expected borrow to name some of {_PARTS}, got {borrow!r}")
        check_part("fusion", fusion)
        check_part("key", key)
        self.capacity = int(capacity)
        parts = (update_policy(policy), MeanFusion() if fusion is None else fusion, key)
        for name, part in zip(_PARTS, parts, strict=True):
            if name in borrow:
                vars(self)[name] = part  # no submodule
            else:
                setattr(self, name, part)
        self._slots = Slots(capacity)

    def __repr__(self) -> str:
        in_use = self.count.tolist() if self.rows else []
        return f"MemoryBank({self.capacity} slots, {self.policy.name}, {self.rows} rows, in use {in_use})"

    def forward(self, *given: object, **named: object) -> NoReturn:
        """A bank is not a layer: this only raises an error that names what to call.

        Raises:
            OptionError: always.
        """
        raise OptionError(
            "MemoryBank: a bank cannot be called; use bank.write(template) to store, and SpaceTimeRead or "
            "memory_tokens(bank) to read"
        )

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
    def extent(self) -> Tensor:
        """`[B, K, d, 2]` int64: the first position and the end of each slot's template along the d dimensions of S."""
        return self._slots["extent"]

    @property
    def cells(self) -> Tensor:
        """`[B, K, *S]` bool: positions that are part of a template; all of the slots in use, where no template has an
        extent."""
        return self._slots.cells

    @property
    def has_extents(self) -> bool:
        """Whether some template may have an extent that is not all of S."""
        return self._slots.partial

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
        extent: Tensor | None = None,
    ) -> None:
        """Store one template a row: in a free slot, or where the policy and the fusion make one (section 3.2).

        A write is atomic: after any error, an interrupt among them, the bank is as it was before. NaN and infinity are
        refused, except in training, where a template with a gradient shows them in the loss. This check costs no
        synchronisation with the device beside those that a write needs anyway.

        Within `torch.compile` and `torch.export`, for inference, a write is one graph without synchronisation, see
        `stmemory.memory.traced`: nothing is checked there that depends on values, such as NaN or the last free slot.

        Args:
            template: `[R, C, *S]`, floats, finite.
            rows: `[R]`, the rows they belong to, each once; None means all, in order.
            frame: index of the frame, for `describe()`.
            pinned: keep the slot unchanged until `unpin()` or `drop()`; it is stored even where the policy stores no
                new template.
            provisional: let the next write to these rows take this slot's place, so that the newest slot follows the
                video while only every n-th frame is committed. A policy that stores no new template, as I2M, fuses it
                for good.
            extent: int64 `[R, d, 2]`, the part of each template that counts: its first position and its end along the d
                dimensions of S, such as `[[[2, 8], [0, 5]]]` for rows 2 to 7 and columns 0 to 4. Similarity (eq. 1),
                fusion (eq. 3-10) and read (eq. 13) are those of templates of these sizes, at their cost; the bytes are
                those of whole templates. None is all of it.

        Raises:
            ShapeError: the template does not fit the bank, or is not a tensor of floats; or an extent is empty, or not
                inside of it.
            OptionError: both pinned and provisional; the frame is not a whole number; the policy or the fusion answered
                what cannot be done, such as to remove a pinned slot; or there are extents, in the bank or given, within
                `torch.compile`, or given with `MeanFusion`, which has no positions to compare.
            BankError: pinning it would leave a row no slot to write to; the template, or what the fusion made, holds
                NaN or infinity; or there is not enough memory for the bank.
        """
        if pinned and provisional:
            raise OptionError("write: expected pinned or provisional, got both; a pinned slot cannot be overwritten")
        traced = torch.compiler.is_compiling()
        if (extent is not None and (traced or isinstance(self.fusion, MeanFusion))) or (traced and self.has_extents):
            raise OptionError(
                "write: expected no extents, given or in the bank, within torch.compile, and none given with "
                "MeanFusion, got extents; write eagerly, with a FusionCell"
            )
        if traced:
            self._write_traced(template, rows, frame, pinned=pinned, provisional=provisional)
        else:
            self._atomic(lambda: self._store(template, rows, frame, extent, pinned=pinned, provisional=provisional))

    def note_changes(self, undo: Undo | None) -> None:
        """Note from here on how to put back what changes, so that a larger step can be undone; None ends that."""
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

        self._atomic(empty)

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
        self._slots.forget()

    def detach(self) -> None:
        """Cut the graph: what is stored stays, gradients stop here (truncated backpropagation through time)."""
        self._slots.detach_all()

    def rekey(self) -> None:
        """Compute all keys from their templates again; after `detach()`, so that the key's weights learn from old
        templates too."""
        self._slots.rekey(self.key)

    def fork(self) -> MemoryBank:
        """A bank with a copy of the contents, which goes its own way from here on; policy, fusion and key are shared,
        and this bank stays their owner."""
        twin = MemoryBank(self.capacity, policy=self.policy, fusion=self.fusion, key=self.key, borrow=_PARTS)
        twin._slots.take(self._slots.tensors)
        return twin

    def contents(self) -> dict[str, Tensor]:
        """All that is remembered, by name; copies nothing. Empty before the first write. Files: `save_bank`."""
        return self._slots.tensors

    def load_contents(self, contents: Mapping[str, Tensor]) -> None:
        """Take over a copy of what `contents()` gave, for a bank of the same capacity.

        Raises:
            BankError: names are missing or unexpected, or sizes do not fit.
        """
        contents = with_extents(contents)
        self._slots.check(contents, keyed=self.key is not None)
        self._slots.take(contents)

    def _atomic(self, work: Callable[[], None]) -> None:
        """Do something; after an error, what it changed is put back."""
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

    def _store(
        self,
        template: Tensor,
        rows: Sequence[int] | Tensor | None,
        frame: int,
        extent: Tensor | None,
        *,
        pinned: bool,
        provisional: bool,
    ) -> None:
        check_frame(frame)
        check_template(template)
        index = checked_rows(rows)
        if "valid" not in self._slots:
            self._allocate(template, index)
        index = self._fitting(template, index)
        template, extent = self._cut(template.to(self.templates.dtype), extent)
        if pinned and bool((self.pinned[index].sum(1) + 1 >= self.capacity).any()):
            raise BankError(
                f"write: this template would pin all {self.capacity} slots "
                "of a row; unpin or drop one, or use a larger capacity"
            )
        slot, gate = self._make_room(index, (template, extent), frame, must_store=pinned)
        kept = slot >= 0
        index, slot, template = index[kept], slot[kept], (template if gate is None else template * gate)[kept]
        age = self.age[index] + self.valid[index]
        age[torch.arange(len(slot), device=slot.device), slot] = 0
        self._slots.put("age", (index,), age)
        self._slots.put("templates", (index, slot), template)
        self._slots.put("extent", (index, slot), extent[kept])
        for name, value in (("valid", True), ("pinned", pinned), ("frame", frame), ("size", 1), ("log", NO_FRAME)):
            self._slots.put(name, (index, slot), int(value))
        self._slots.put("provisional", (index,), int(provisional))
        self._slots.touch(index, slot, key=self.key)

    def _allocate(self, template: Tensor, rows: Tensor | None) -> None:
        """The first write makes the rows, and finds out about parts that do not fit, not the first fusion K frames
        later."""
        if rows is not None and rows.tolist() != list(range(len(template))):
            raise ShapeError(
                "write: the first write makes the rows; expected "
                f"rows=None, got {rows.tolist()}; add_rows() comes later"
            )
        if isinstance(self.fusion, FusionCell):
            self.fusion.check(template, template)
        self._slots.allocate(template, None if self.key is None else check_key(self.key(template), template))

    def _fitting(self, template: Tensor, rows: Tensor | None) -> Tensor:
        """The rows `[R]` that a template goes to, on the bank's device, after making sure that it fits."""
        index = torch.arange(self.rows) if rows is None else rows
        expected = self.templates.shape[2:]
        inside = bool(((index >= 0) & (index < self.rows)).all()) and len(set(index.tolist())) == len(index)
        if not inside or (len(index), *template.shape[1:]) != (len(template), *expected):
            raise ShapeError(
                f"write: expected a template [R, {', '.join(map(str, expected))}] for R different rows of "
                f"0..{self.rows - 1}, got {tuple(template.shape)} for rows {index.tolist()}; start a new bank for "
                "another size"
            )
        return index.to(self.valid.device)

    def _cut(self, template: Tensor, extent: Tensor | None) -> tuple[Tensor, Tensor]:
        """Templates `[R, C, *S]` with nothing outside of their extents, and these `[R, d, 2]`."""
        shape = template.shape[2:]
        if extent is None:
            whole = whole_extent(shape, template.device)
            return template, whole.expand(len(template), *whole.shape)
        extent = checked_extent(extent, len(template), shape).to(template.device)
        self._slots.have_extents()
        return template.masked_fill(~inside(extent, shape)[:, None], 0.0), extent

    def _make_room(
        self, index: Tensor, incoming: tuple[Tensor, Tensor], frame: int, *, must_store: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The slot `[R]` that each row's template takes (-1: none), and a factor `[R, 1, ...]` that carries a
        gradient."""
        template, extent = incoming
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
                "write: expected a finite template, got NaN or infinity; it "
                "was not stored: find where it comes from, or use float32"
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
        decision, wrong = check_decision(self.policy.decide(view), view, self.policy.name)
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
        where = torch.where(goes[:, None, None], self._slots["extent"][rows, leaving], extent[full])
        self._fuse(rows, (decision.into, wrong), (source, where), size, torch.cat([past, origin[:, None]], 1))
        slot = slot.index_put((full,), torch.where(goes, leaving, torch.full_like(leaving, -1)))
        if not remove.requires_grad:
            return slot, None
        self._slots.put("templates", (rows,), self.templates[rows] * (1 - remove).view(*remove.shape, *shape[1:]))
        return slot, template.new_ones(len(index)).index_put((full,), chosen[:, 0]).view(shape)

    def _fuse(
        self,
        rows: Tensor,
        choice: tuple[Tensor, Tensor],
        sources: tuple[Tensor, Tensor],
        size: Tensor,
        frames: Tensor,
    ) -> None:
        """Fuse the sources `[F, C, *S]`, with their extents, (of `size [F]` frames, the last of them `frames [F, L]`)
        into slots, as far as `into [F, K]` says."""
        into, wrong = choice
        source, extent = sources
        where = _positions((into.detach() > 0).flatten(), unless=wrong)
        if where is None:
            raise OptionError(
                f"policy {self.policy.name!r}: expected remove with at most one 1 a row and into between 0 and 1, both "
                "0 where a slot is pinned or empty, got others; choose among view.movable"
            )
        if len(where) == 0:
            return
        which, slot = where // self.capacity, where % self.capacity  # [P]
        at = (rows[which], slot)
        target, sizes = self.templates[at], torch.stack([size[which], self._slots["size"][at]], 1)
        if self._slots.partial:
            extents = extent[which], self._slots["extent"][at]
            answer = self._fused_in_extents(source[which], target, sizes, extents)
        else:
            answer = check_fused(self.fusion(source[which], target, sizes), target)
        fused = self._moved(target, answer, into[which, slot])
        self._slots.put("templates", at, fused)
        self._slots.put("size", at, sizes.sum(1).clamp_max(MOST_FRAMES))
        self._slots.put(
            "log", at, torch.cat([self._slots["log"][at], frames[which]], 1).sort(dim=1).values[:, -LOG_LENGTH:]
        )  # the latest
        self._slots.touch(*at, key=self.key)

    def _fused_in_extents(
        self, source: Tensor, target: Tensor, sizes: Tensor, extents: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Targets `[P, C, *S]` after their fusion, pair by pair, each template as large as its extent `[P, d, 2]`."""
        fused = torch.zeros_like(target)
        ours, theirs = (list(slices_of(extent)) for extent in extents)
        for p in range(len(target)):
            here = (slice(p, p + 1), slice(None))
            part = target[here + theirs[p]]
            answer = self.fusion(source[here + ours[p]], part, sizes[p : p + 1])
            fused[here + theirs[p]] = check_fused(answer, part)
        return fused

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
        return part_of_the_way(target, fused, into)

    def _write_traced(
        self, template: Tensor, rows: Sequence[int] | Tensor | None, frame: int, *, pinned: bool, provisional: bool
    ) -> None:
        """`write` as one graph: same result, without the checks that need values."""
        check_template(template)
        index = None if rows is None else torch.as_tensor(rows, dtype=torch.int64, device=template.device)
        if "valid" not in self._slots:
            self._allocate(template, None)
        expected = (self.rows if index is None else index.shape[0], *self.templates.shape[2:])
        if template.shape != expected:
            raise ShapeError(f"write: expected a template {expected}, got {tuple(template.shape)}")
        now = self._slots.tensors
        new = traced_write(
            now if index is None else {name: t[index] for name, t in now.items()},
            template.to(self.templates.dtype),
            frame,
            (self.policy, self.fusion, self.key),
            change=now["version"].max() + 1,
            pinned=pinned,
            provisional=provisional,
        )
        self._slots.update(new, index)

    def _slot(self, slot: int, row: int) -> tuple[Tensor, ...]:
        """Index tensors `[1]` of a slot in use."""
        if not (0 <= row < self.rows and 0 <= slot < self.capacity and bool(self.valid[row, slot])):
            raise BankError(
                f"expected a slot in use of rows 0..{self.rows - 1}, got slot {slot} of row {row}; see describe()"
            )
        return torch.tensor([[row], [slot]], device=self.valid.device).unbind()


def _positions(mask: Tensor, *, unless: Tensor) -> Tensor | None:
    """Where a mask `[n]` is true, int64 `[m]`; None where `unless []` is true. Waits for the device once, as for the
    mask alone."""
    found = torch.cat([mask, unless.expand(len(mask) + 1)]).nonzero().squeeze(1)
    return found if len(found) <= len(mask) else None
