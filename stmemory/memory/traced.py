"""A write as a function of tensors: one graph for `torch.compile`, without branches or waits that depend on values."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from stmemory.memory.extents import whole_extent
from stmemory.memory.fusion import Fusion, part_of_the_way
from stmemory.memory.policy import BankView, UpdatePolicy, with_a_free_slot
from stmemory.memory.similarity import similarities
from stmemory.memory.slots import LOG_LENGTH, MOST_FRAMES, NO_FRAME

__all__ = ["traced_write"]

_NEVER = torch.iinfo(torch.int64).max

Parts = tuple[UpdatePolicy, Fusion, Callable[[Tensor], Tensor] | None]


def traced_write(
    slots: Mapping[str, Tensor],
    template: Tensor,
    frame: int,
    parts: Parts,
    *,
    change: Tensor,
    pinned: bool = False,
    provisional: bool = False,
) -> dict[str, Tensor]:
    """What R rows of a bank hold after one write; `MemoryBank.write` does the same, and only the work that is needed.

    Every row compares all of its slots, asks the policy and fuses, whether it is full or not, and keeps what counts.
    So the shapes depend on nothing, and no value is looked at: NaN is stored, a decision that cannot be done is done,
    and the last slot may be pinned.

    Args:
        slots: slots of R rows, by the names of `Slots`.
        template: `[R, C, *S]`, of their dtype.
        frame: see `MemoryBank.write`.
        parts: policy, which must be traceable itself, as those of this package are; fusion; and key.
        change: int64 `[]`, a version number above all in the bank.
        pinned: see `MemoryBank.write`.
        provisional: see there.

    Returns:
        The same names, other tensors.

    >>> from stmemory.memory import MeanFusion, MemoryBank, update_policy
    >>> bank = MemoryBank(2); bank.write(torch.rand(1, 4, 3)); bank.write(torch.rand(1, 4, 3))
    >>> parts = (update_policy("oldest"), MeanFusion(), None)
    >>> traced_write(bank.contents(), torch.rand(1, 4, 3), 2, parts, change=torch.tensor(3))["frame"].tolist()
    [[2, 0]]
    """
    policy, fusion, key = parts
    new, row = dict(slots), torch.arange(len(template), device=template.device)
    valid, age = slots["valid"], slots["age"]
    full = valid.all(1) & ~slots["provisional"]  # [R]
    if policy.uses_similarity:
        new["similarity"], new["compared"] = _compared(slots)
    view = BankView(new["similarity"], age, valid, slots["pinned"])
    decision = policy.decide(view)
    if pinned:
        decision = with_a_free_slot(decision, view)
    remove, into = decision.remove.float() * full[:, None], decision.into.float() * full[:, None]
    goes, leaving = remove.sum(1) > 0.5, remove.argmax(1)  # [R]

    # The template that goes, or the new one where none goes, is fused into those that the policy names.
    source = torch.where(_wide(goes, template), slots["templates"][row, leaving], template)
    size = torch.where(goes, slots["size"][row, leaving], 1)
    origin = torch.where(goes, slots["frame"][row, leaving], frame)
    past = slots["log"][row, leaving].masked_fill(~goes[:, None], NO_FRAME)
    targets = min(getattr(policy, "most_targets", into.shape[1]), into.shape[1])
    fusing = torch.zeros_like(goes).any()
    if targets > 0:
        share, slot = (t.flatten() for t in into.topk(targets, dim=1))  # [P], P = R targets
        which = row.repeat_interleave(targets)
        at, moves = (which, slot), share > 0
        target, sizes = slots["templates"][at], torch.stack([size[which], slots["size"][at]], 1)
        fused = fusion(source[which], target, sizes)
        fused = torch.where(_wide(share == 1, fused), fused, part_of_the_way(target, fused, share))
        log = torch.cat([slots["log"][at], past[which], origin[which, None]], 1).sort(dim=1).values[:, -LOG_LENGTH:]
        fusing = moves.any()
        _put(new, at, moves, templates=fused, size=sizes.sum(1).clamp_max(MOST_FRAMES), log=log, version=change)
        if key is not None:
            _put(new, at, moves, keys=key(fused))

    # The new template takes the slot that is free, of the provisional one, or that became free.
    newest = age.masked_fill(~valid, _NEVER).argmin(1)
    free = torch.where(slots["provisional"], newest, valid.long().argmin(1))
    at, stored = (row, torch.where(full, leaving, free)), ~full | goes
    new["age"] = torch.where(stored[:, None], age + valid, age)
    _put(new, at, stored, templates=template, age=0, valid=True, pinned=pinned, frame=frame, size=1, log=NO_FRAME)
    _put(new, at, stored, version=change + fusing, extent=whole_extent(template.shape[2:], template.device))
    if key is not None:
        _put(new, at, stored, keys=key(template))
    new["provisional"] = torch.where(stored, provisional, slots["provisional"])
    return new


def _put(tensors: dict[str, Tensor], at: tuple[Tensor, Tensor], where: Tensor, **values: Tensor | int) -> None:
    """Put values `[P, ...]` at rows and slots `[P]`, only where `where [P]` is true."""
    for name, value in values.items():
        old = tensors[name][at]  # [P, ...]
        given = value.to(old.dtype) if isinstance(value, Tensor) else torch.full_like(old, value)  # broadcast
        tensors[name] = tensors[name].index_put(at, torch.where(_wide(where, old), given, old))


def _compared(slots: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Similarities `[R, K, K]` of all slots, and the versions that they are of; see `Slots.compare`."""
    keys = slots["keys" if "keys" in slots else "templates"]
    valid, version = slots["valid"], slots["version"]
    fresh = slots["similarity"].clone()
    for k in range(keys.shape[1]):
        fresh[:, k, k] = (keys[:, k] != 0).any(1).flatten(1).float().mean(1)
        if k + 1 < keys.shape[1]:
            forth, back = similarities(keys[:, k], keys[:, k + 1 :])  # [R, K - 1 - k] each
            fresh[:, k, k + 1 :], fresh[:, k + 1 :, k] = forth, back
    latest = torch.maximum(version[:, :, None], version[:, None, :])
    stale = valid[:, :, None] & valid[:, None, :] & (slots["compared"] != latest)
    return torch.where(stale, fresh, slots["similarity"]), torch.where(stale, latest, slots["compared"])


def _wide(flags: Tensor, like: Tensor) -> Tensor:
    """Flags `[P]` in as many dimensions as a tensor `[P, ...]`."""
    return flags.view(-1, *[1] * (like.dim() - 1))
