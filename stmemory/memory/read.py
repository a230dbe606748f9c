"""The space-time read, eq. 13: every query cell attends to every cell of every slot."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from stmemory.errors import BankError, OptionError, ShapeError
from stmemory.memory.attention import attend_in_blocks, in_few_sizes
from stmemory.memory.bank import MemoryBank
from stmemory.memory.checks import check_floats
from stmemory.memory.extents import cells_in_use
from stmemory.memory.packing import packed, unpacked
from stmemory.memory.slots import note_written, written
from stmemory.memory.undo import Undo

__all__ = ["ReadCache", "SpaceTimeRead", "memory_tokens", "space_time_read"]

_AFFINITIES = ("dot", "l2")
_TOP_K_ELEMENTS = 1 << 24  # scores held at once when top_k is set: 64 MiB
_HIDDEN = -1e30  # score of a slot that holds nothing


class ReadCache:
    """Keys and values of a bank's slots, computed again only for slots that changed. One for each bank that is read."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None  # [B, K, Ck, *S], unless the bank holds the very same keys
        self.values: Tensor | None = None  # [B, K, Cv, *S]
        self._seen: Tensor | None = None  # [B, K], versions of the bank's slots
        self._identity: object = None  # of the bank's contents
        self._undo: Undo | None = None

    def __getstate__(self) -> dict[str, Any]:
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        return {**vars(self), **dict.fromkeys(tensors), "_undo": None, "packed": packed(tensors)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        known = unpacked(state["packed"])
        vars(self).update({name: value for name, value in state.items() if name != "packed"} | known)

    @property
    def nbytes(self) -> int:
        """Bytes of all that the cache holds."""
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values, self._seen) if t is not None)

    def detach(self) -> None:
        """Cut the graph, together with `MemoryBank.detach`."""
        self.keys = None if self.keys is None else self.keys.detach()
        self.values = None if self.values is None else self.values.detach()

    def note_changes(self, undo: Undo | None) -> None:
        """Note from here on how to put back what changes, see `MemoryBank.note_changes`."""
        self._undo = undo

    def state_dict(self, bank: MemoryBank) -> dict[str, Tensor]:
        """What is cached of this bank, by name; copies nothing. A cache filled again may differ in the last bit, a
        saved one does not."""
        if self._identity is not bank.identity:  # rows came or went since: the next refresh starts over
            return {}
        named = {"keys": self.keys, "values": self.values, "seen": self._seen}
        return {name: t for name, t in named.items() if t is not None}

    def load_state_dict(self, state: dict[str, Tensor], bank: MemoryBank) -> None:
        """Take over a copy of what `state_dict()` gave, of a bank that holds what it held then."""
        self._identity = bank.identity
        self.keys, self.values, self._seen = (
            state[n].clone() if n in state else None for n in ("keys", "values", "seen")
        )

    def refresh(self, bank: MemoryBank, read: SpaceTimeRead) -> tuple[Tensor, Tensor]:
        """Keys `[B, K, Ck, *S]` and values `[B, K, Cv, *S]` of the bank as it is now; those of empty slots mean
        nothing."""
        if torch.compiler.is_compiling():
            return _all_keys_and_values(bank, read)
        version = bank.version
        if self._undo is not None:
            before = {name: value for name, value in vars(self).items() if name != "_undo"}
            self._undo.note(lambda: vars(self).update(before))
        if self._seen is None or self._identity is not bank.identity:  # other rows, or another bank: start over
            self._identity = bank.identity
            self.keys = self.values = None
            self._seen = torch.full_like(version, -1)
        stale = (self._seen != version) & bank.valid
        own_keys = bank.key is not read.key
        if bool(stale.any()):
            index = stale.nonzero().unbind(1)
            templates = bank.templates[index]
            self.values = self._updated(self.values, index, read.value(templates))
            if own_keys:
                self.keys = self._updated(self.keys, index, read.key(templates))
            self._seen = torch.where(stale, version, self._seen)
        keys = self.keys if own_keys else bank.keys
        if keys is None or self.values is None:
            raise BankError(
                "space-time read: expected a bank with a template in some slot, got an empty one; write() first"
            )
        return keys, self.values

    def _updated(self, buffer: Tensor | None, index: tuple[Tensor, ...], new: Tensor) -> Tensor:
        """Put new entries `[P, ...]` into a `[B, K, ...]` buffer, made at the first of them."""
        if buffer is None and self._seen is not None:
            buffer = new.new_zeros(*self._seen.shape, *new.shape[1:])
        elif buffer is not None and self._undo is not None:
            note_written(self._undo, buffer, index)
        return new if buffer is None else written(buffer, index, new)


def _all_keys_and_values(bank: MemoryBank, read: SpaceTimeRead) -> tuple[Tensor, Tensor]:
    """What `refresh` gives, of all slots at once, in one graph that depends on no value and keeps nothing."""
    templates = bank.templates.flatten(0, 1)  # [B K, C, *S]
    values: Tensor = read.value(templates)
    keys: Tensor = bank.keys.flatten(0, 1) if bank.key is read.key else read.key(templates)
    return keys.view(*bank.valid.shape, *keys.shape[1:]), values.view(*bank.valid.shape, *values.shape[1:])


class SpaceTimeRead(nn.Module):
    """The space-time memory module of figure 4: key and value heads for templates, and the read of eq. 13.

    Args:
        key: computes keys `[P, Ck, *S]` from templates `[P, C, *S]`. Give it to the bank too, so both share its
            results.
        value: computes values `[P, Cv, *S]` from templates.
        affinity: `"dot"` (eq. 13) or `"l2"`, the negative squared distance.
        scale: factor on the affinity; None is `1 / sqrt(Ck)` as in STM, 1.0 is eq. 13 to the letter.
        top_k: attend only to that many best cells of the memory for each query cell; None attends to all.
        pinned_bias: learn a number that is added to the scores of pinned slots, 0 at first, so that given templates
            can be weighted differently from found ones.

    Raises:
        OptionError: an unknown affinity or a `top_k` below 1.
    """

    def __init__(
        self,
        key: nn.Module,
        value: nn.Module,
        *,
        affinity: str = "dot",
        scale: float | None = None,
        top_k: int | None = None,
        pinned_bias: bool = False,
    ) -> None:
        super().__init__()
        self.pinned_bias = nn.Parameter(torch.zeros(())) if pinned_bias else None
        if affinity not in _AFFINITIES or (top_k is not None and top_k < 1):
            raise OptionError(
                f"SpaceTimeRead: expected affinity in {_AFFINITIES} and top_k >= 1 or None, got {affinity!r}, {top_k}"
            )
        self.key, self.value = key, value
        self.affinity, self.scale, self.top_k = affinity, scale, top_k

    def forward(
        self, query_key: Tensor, bank: MemoryBank, cache: ReadCache | None = None, *, row: int | None = None
    ) -> Tensor:
        """Recall what the memory holds for each query cell.

        Args:
            query_key: `[B, Ck, *S]`, or `[1, Ck, *S]` for all rows. Its S may be another one than the templates'.
            bank: the memory, of B rows.
            cache: cache of this bank; None computes keys and values of all slots again, as a call within
                `torch.compile` does.
            row: the only row that is read; the query is then `[1, Ck, *S]`. None reads all.

        Returns:
            `[B, Cv, *S]`, the first part of eq. 13; concatenate the query value to get all of it. With a row, 1 for B.

        Raises:
            ShapeError: the query is not a tensor of floats, or does not fit the bank.
            BankError: the bank is empty, or has no such row.
        """
        check_floats("SpaceTimeRead: query_key", query_key, "[B, Ck, *S]")
        keys, values = (cache or ReadCache()).refresh(bank, self)
        if row is not None and not 0 <= row < bank.rows:
            raise BankError(f"SpaceTimeRead: expected a row in 0..{bank.rows - 1}, or None for all, got {row}")
        of = slice(None) if row is None else slice(row, row + 1)
        bias = self.bias(bank)
        recalled = space_time_read(
            query_key.flatten(2),
            keys[of].flatten(3),
            values[of].flatten(3),
            self._in_use(bank, of),
            affinity=self.affinity,
            scale=self.scale,
            top_k=self.top_k,
            bias=None if bias is None else bias[of],
        )
        return recalled.reshape(*recalled.shape[:2], *query_key.shape[2:])

    @staticmethod
    def _in_use(bank: MemoryBank, of: slice) -> Tensor:
        """What of some rows counts, `[R, K]`, or `[R, K, n]` where templates have extents."""
        if not bank.has_extents:
            return bank.valid[of]
        return cells_in_use(bank.extent[of], bank.valid[of], bank.templates.shape[3:]).flatten(2)

    def bias(self, bank: MemoryBank) -> Tensor | None:
        """What is added to the scores of each slot, `[B, K]`; None where nothing is."""
        return None if self.pinned_bias is None else self.pinned_bias.float() * bank.pinned


def memory_tokens(bank: MemoryBank) -> tuple[Tensor, Tensor]:
    """All cells of all slots as tokens, for a model that attends by itself: `nn.MultiheadAttention`, a transformer's
    layers.

    The slots lie where they lie in the bank, whatever their age; `bank.age` has what a temporal encoding needs.

    Args:
        bank: with templates `[B, K, C, *S]` of n cells each.

    Returns:
        Tokens `[B, K n, C]`, and `[B, K n]` bool, true where no template is: what torch calls a `key_padding_mask`.

    Raises:
        BankError: nothing was written yet; `bank.rows` is 0 then.

    >>> bank = MemoryBank(3)
    >>> bank.write(torch.rand(2, 8, 5))
    >>> tokens, empty = memory_tokens(bank)
    >>> tokens.shape, empty.sum(1).tolist()
    (torch.Size([2, 15, 8]), [10, 10])
    """
    templates = bank.templates.flatten(3)  # [B, K, C, n]
    return templates.transpose(2, 3).flatten(1, 2), ~bank.cells.flatten(1)


def space_time_read(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    valid: Tensor,
    *,
    affinity: str = "dot",
    scale: float | None = None,
    top_k: int | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Eq. 13 for B rows: softmax over all cells of all slots in use, in float32, then the weighted sum of their values.

    Sums are float32. Where the CPU multiplies bfloat16, and without grad, the weights of bfloat16 values are rounded.

    Args:
        query: `[B, Ck, m]`, or `[1, Ck, m]` for all rows.
        keys: `[B, K, Ck, n]`.
        values: `[B, K, Cv, n]`.
        valid: bool `[B, K]`, the slots in use, or `[B, K, n]`, the cells in use; at least one of each row.
        affinity: see `SpaceTimeRead`.
        scale: see `SpaceTimeRead`.
        top_k: see `SpaceTimeRead`; without it no K n by m matrix is held.
        bias: `[B, K]`, added to the scores of all cells of a slot after `scale`; None is eq. 13.

    Returns:
        `[B, Cv, m]`.

    Raises:
        ShapeError: the shapes do not fit.

    >>> query, keys, values = torch.rand(1, 4, 6), torch.rand(2, 3, 4, 5), torch.ones(2, 3, 7, 5)
    >>> space_time_read(query, keys, values, torch.ones(2, 3).bool()).shape
    torch.Size([2, 7, 6])
    """
    fits = query.dim() == 3 and keys.dim() == values.dim() == 4 and keys.shape[:2] == values.shape[:2]
    if (
        not fits
        or valid.shape not in (keys.shape[:2], (*keys.shape[:2], keys.shape[3]))
        or query.shape[0] not in (1, keys.shape[0])
        or query.shape[1] != keys.shape[2]
        or keys.shape[3] != values.shape[3]
    ):
        raise ShapeError(
            "space-time read: expected query [B or 1, Ck, m], keys [B, K, Ck, n], values [B, K, Cv, n] and valid "
            f"[B, K] or [B, K, n], got {tuple(query.shape)}, {tuple(keys.shape)}, {tuple(values.shape)} and "
            f"{tuple(valid.shape)}"
        )
    scale = 1 / math.sqrt(keys.shape[2]) if scale is None else scale
    with torch.autocast(query.device.type, enabled=False):  # squared distances lose their meaning in half precision
        extra = keys.new_zeros(keys.shape[:2]) if bias is None else bias / scale
        valid = valid if valid.dim() == 3 else valid[:, :, None]
        return _read(query, keys, values, (valid, extra), (affinity, scale, top_k))


def _read(
    query: Tensor, keys: Tensor, values: Tensor, in_use: tuple[Tensor, Tensor], how: tuple[str, float, int | None]
) -> Tensor:
    affinity, scale, top_k = how
    valid, extra = in_use  # [B, K, n] or [B, K, 1], and [B, K]
    rows, slots, _, cells = keys.shape
    wide = torch.promote_types(query.dtype, torch.float32)
    query, keys = _fold(
        query.to(wide), keys.to(wide), valid, extra.to(wide), affinity
    )  # one more channel: what a score has beside the product
    whole = top_k is None or top_k >= slots * cells
    if whole and query.device.type == "cpu" and not torch.is_grad_enabled() and not torch.compiler.is_compiling():
        found = [_read_blocked(query[b % len(query)], keys[b], values[b], valid[b], scale) for b in range(rows)]
        return torch.stack(found).to(values.dtype) if found else values.new_zeros(0, values.shape[2], query.shape[2])
    queries = query.transpose(1, 2).expand(rows, -1, -1)  # [B, m, Ck+1]
    memory = keys.transpose(2, 3).flatten(1, 2)  # [B, K n, Ck+1]
    contents = values.transpose(2, 3).flatten(1, 2)  # [B, K n, Cv]
    if top_k is not None and not whole:
        return _read_top_k(queries, memory, contents, scale, top_k).transpose(1, 2)
    width = max(queries.shape[2], contents.shape[2])  # the fused kernel on the CPU needs one width
    width += -width % 16
    queries, memory = (nn.functional.pad(t, (0, width - t.shape[2])) for t in (queries, memory))
    padded = nn.functional.pad(contents.to(wide), (0, width - contents.shape[2]))
    recalled = nn.functional.scaled_dot_product_attention(
        queries[:, None], memory[:, None], padded[:, None], scale=scale
    )
    return recalled[:, 0, :, : contents.shape[2]].transpose(1, 2).to(values.dtype)


def _fold(query: Tensor, keys: Tensor, valid: Tensor, extra: Tensor, affinity: str) -> tuple[Tensor, Tensor]:
    """Write the score of every pair as one product, with the part that depends on the memory alone in an extra channel.

    -|q - k|^2 = 2 q.k - |k|^2 - |q|^2, and the last term is the same for all of a query's scores, so softmax loses it.
    """
    bias = -keys.square().sum(2, keepdim=True) if affinity == "l2" else torch.zeros_like(keys[:, :, :1])
    hidden = ~valid[:, :, None]  # [B, K, 1, n or 1]
    bias = (bias + extra[:, :, None, None]).masked_fill(hidden, _HIDDEN)
    query = torch.cat([2 * query if affinity == "l2" else query, torch.ones_like(query[:, :1])], 1)
    keys = torch.cat([keys.masked_fill(hidden, 0.0), bias], 2)
    return query, keys


def _read_blocked(query: Tensor, keys: Tensor, values: Tensor, valid: Tensor, scale: float) -> Tensor:
    """The read of one row, `[Cv, m]`, of query `[Ck+1, m]`, keys `[K, Ck+1, n]`, values `[K, Cv, n]` and what of them
    is in use, `[K, n]` or `[K, 1]`."""
    memory, contents = (t.transpose(0, 1).flatten(1) for t in (keys, values))  # [Ck+1, K n], [Cv, K n]
    used = valid.expand(keys.shape[0], keys.shape[2]).flatten().nonzero()[:, 0]
    if len(used):  # a row that holds nothing recalls the mean of what lies there, as the kernel
        if len(used) < memory.shape[1]:
            memory, contents = memory.index_select(1, used), contents.index_select(1, used)
        # always, so that sums have one order, whatever else the bank has room for
        memory, contents = in_few_sizes(memory), in_few_sizes(contents)
        memory[-1, len(used) :] = _HIDDEN
    return attend_in_blocks((query * scale).t().contiguous(), memory.t().contiguous(), contents).t()


def _read_top_k(query: Tensor, memory: Tensor, contents: Tensor, scale: float, top_k: int) -> Tensor:
    """The read over the best `top_k` cells only, `[B, m, Cv]`; blocked over query cells, so its scores have a bound."""
    rows, cells = memory.shape[:2]
    step = max(1, _TOP_K_ELEMENTS // (rows * cells))
    recalled = []
    for start in range(0, max(1, query.shape[1]), step):  # once without query cells: cat needs a part
        scores = query[:, start : start + step] @ memory.transpose(1, 2) * scale  # [B, step, K n]
        best, where = scores.topk(top_k, dim=2)
        weights = torch.zeros_like(scores).scatter(2, where, best.softmax(2))
        recalled.append(weights @ contents.to(weights.dtype))
    return torch.cat(recalled, 1).to(contents.dtype)
