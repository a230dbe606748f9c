"""Where a query cell reads from: the weights of eq. 13, cell by cell of every slot. Draws nothing, stores nothing.

The read itself (`stmemory/memory/read.py`) never holds these weights: its fused kernel goes straight to the weighted
sum.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stmemory.errors import BankError, ShapeError
from stmemory.memory.bank import MemoryBank
from stmemory.memory.read import SpaceTimeRead

__all__ = ["memory_keys", "slot_attention"]


def memory_keys(read: SpaceTimeRead, bank: MemoryBank) -> Tensor:
    """The keys that the read compares queries with.

    Args:
        read: the read.
        bank: the memory, of B rows.

    Returns:
        `[B, K, Ck, *S]`, the bank's own tensor where it keeps these keys; those of empty slots mean nothing.

    Raises:
        BankError: nothing was written to the bank yet.

    >>> read, bank = SpaceTimeRead(torch.nn.Conv2d(8, 4, 1), torch.nn.Conv2d(8, 6, 1)), MemoryBank(3)
    >>> bank.write(torch.rand(2, 8, 5, 7))
    >>> memory_keys(read, bank).shape
    torch.Size([2, 3, 4, 5, 7])
    """
    if not bank.rows:
        raise BankError("memory_keys: expected a bank with a template, got an empty one; write() first")
    if bank.key is read.key:
        return bank.keys
    keys: Tensor = read.key(bank.templates.flatten(0, 1))  # [B K, Ck, *S]
    return keys.view(bank.rows, bank.capacity, *keys.shape[1:])


def slot_attention(
    query: Tensor,
    keys: Tensor,
    valid: Tensor,
    *,
    affinity: str = "dot",
    scale: float | None = None,
    top_k: int | None = None,
) -> Tensor:
    """The weights of eq. 13: softmax of the affinity over all cells of all slots in use, as `space_time_read` computes
    it.

    The weighted sum of the values with these weights is what the read recalls. They are `m` times the memory's cells,
    so ask for the query cells that you mean to look at.

    Args:
        query: `[B, Ck, m]`, or `[1, Ck, m]` for all rows: the cells in question.
        keys: `[B, K, Ck, n]`, see `memory_keys`.
        valid: `[B, K]` bool.
        affinity: see `SpaceTimeRead`.
        scale: see `SpaceTimeRead`.
        top_k: see `SpaceTimeRead`.

    Returns:
        `[B, m, K, n]`, float32 (float64 for such queries); sums to 1 over K and n. Zeros for a row without any slot in
        use.

    Raises:
        ShapeError: the shapes do not fit.

    >>> weights = slot_attention(torch.rand(1, 4, 6), torch.rand(2, 3, 4, 5), torch.ones(2, 3).bool())
    >>> weights.shape, weights.sum((2, 3)).allclose(torch.ones(2, 6))
    (torch.Size([2, 6, 3, 5]), True)
    """
    fits = query.dim() == 3 and keys.dim() == 4 and keys.shape[:2] == valid.shape
    if not fits or query.shape[0] not in (1, len(keys)) or query.shape[1] != keys.shape[2]:
        raise ShapeError(
            "slot_attention: expected query [B or 1, Ck, m], keys [B, K, Ck, n] and valid [B, K], got "
            f"{tuple(query.shape)}, {tuple(keys.shape)} and {tuple(valid.shape)}; flatten the cells"
        )
    rows, slots, channels, cells = keys.shape
    scale = 1 / math.sqrt(channels) if scale is None else scale
    with torch.autocast(query.device.type, enabled=False):
        wide = torch.promote_types(query.dtype, torch.float32)
        keys = keys.to(wide).masked_fill(~valid[:, :, None, None], 0.0)  # what an empty slot holds may be anything
        scores = torch.einsum("bcm,bkcn->bmkn", query.to(wide).expand(rows, -1, -1), keys)
        if affinity == "l2":  # without |q|^2, which is the same for all of a query's scores
            scores = 2 * scores - keys.square().sum(2)[:, None]
        hidden = ~valid[:, None, :, None].expand_as(scores)
        flat = (scores * scale).masked_fill(hidden, torch.finfo(wide).min).flatten(2)  # [B, m, K n]
        if top_k is None or top_k >= slots * cells:
            weights = flat.softmax(2)
        else:
            best, where = flat.topk(top_k, dim=2)
            weights = torch.zeros_like(flat).scatter(2, where, best.softmax(2))
        return weights.view_as(scores).masked_fill(hidden, 0.0)
